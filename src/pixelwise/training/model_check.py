"""Can the network of a configuration be built, and do its settings fit the classes? Said before any training."""

import torch

from pixelwise.config import Config
from pixelwise.errors import PixelwiseError
from pixelwise.models import create
from pixelwise.training.train import require_encoder
from pixelwise.weights import load_weights


def check_model(config: Config, *, bands: int | None) -> list[str]:
    """Return a paragraph for each mistake in [model], and for class weights that are too many or too few.

    Args:
        bands: of the images; None where they cannot be read: as [data].bands says, else 3.
    """
    settings, classes = config.model, len(config.data.classes)
    problems = []
    weights = config.train.class_weights
    if isinstance(weights, list) and len(weights) != classes:
        problems.append(f"[train].class_weights has {len(weights)} numbers for {classes} classes. Give one per class.")
    bands = bands or len(config.data.bands or (1, 2, 3))
    try:
        if settings.weights is None:
            # Without memory for any number: only what can be built is asked.
            with torch.device("meta"):
                create(settings.name, classes=classes, bands=bands, **settings.options)
        else:
            model = create(settings.name, classes=classes, bands=bands, **settings.options)
            require_encoder(model, config, load_weights(model, settings.weights, partial=True).missing)
    except PixelwiseError as problem:
        problems.append(str(problem))
    return problems
