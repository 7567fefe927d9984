"""Losses for thin boundaries, where a configuration has a class of them and names no loss."""

from collections.abc import Callable

from pixelwise.config import Config
from pixelwise.loss_config import LOSSES
from pixelwise.models import answers_with_masks

LOSSES_FOR_BOUNDARIES: dict[str, float | str] = {"cross_entropy": 1.0, "dice": 1.0, "class_weights": "balanced"}
"""By cross-entropy alone a network misses boundaries, because they are thin (`docs/losses.md`)."""


def with_boundary_losses(config: Config, say: Callable[[str], None]) -> Config:
    """Return a configuration with `LOSSES_FOR_BOUNDARIES`, if polygons give it boundaries and it names no loss."""
    data, own = config.data, config.train.model_fields_set & {*LOSSES, "class_weights"}
    drawn = data.annotations is not None or not any(place.is_dir() for place in data.label_places)
    if own or data.boundary not in data.classes or not drawn:
        return config
    if answers_with_masks(config.model.name, config.model.options):
        # It has a loss of its own, in which the weights are of masks.
        say(f"The class {data.boundary!r} is thin, so [train] takes class_weights = 'balanced', unless you set it.")
        return config.model_copy(update={"train": config.train.model_copy(update={"class_weights": "balanced"})})
    say(
        f"The class {data.boundary!r} is thin, so [train] takes dice = 1.0 and class_weights = 'balanced' besides "
        "cross_entropy = 1.0. Any loss or class_weights in [train] changes that."
    )
    return config.model_copy(update={"train": config.train.model_copy(update=LOSSES_FOR_BOUNDARIES)})
