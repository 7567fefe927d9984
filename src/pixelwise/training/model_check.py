"""What is checked before any training: the network, its settings, and the compiler."""

import torch

from pixelwise.config import Config
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.models import create
from pixelwise.training.network import require_encoder
from pixelwise.training.training_data import require_weight_per_class
from pixelwise.weights import load_weights


def check_model(config: Config, *, bands: int | None) -> list[str]:
    """Return a paragraph for each mistake in [model], and for class weights that are too many or too few.

    Args:
        bands: of the images; None where no image could be read: as [data].bands says, else 3.
    """
    settings, classes = config.model, len(config.data.classes)
    problems = []
    try:
        require_weight_per_class(config, classes)
    except ConfigError as problem:
        problems.append(str(problem))
    bands = bands or len(config.data.bands or (1, 2, 3))
    try:
        if settings.weights is None:
            # The meta device takes no memory, and building is all that is tried.
            with torch.device("meta"):
                create(settings.name, classes=classes, bands=bands, **settings.options)
        else:
            model = create(settings.name, classes=classes, bands=bands, **settings.options)
            loaded = load_weights(model, settings.weights, partial=True)
            require_encoder(model, config, loaded.missing)
    except PixelwiseError as problem:
        problems.append(str(problem))
    return problems


def network_stride(config: Config) -> int | None:
    """Return the stride of a network's logits; None where the network does not work, which `check_model` says."""
    settings, bands = config.model, len(config.data.bands or (1, 2, 3))
    try:
        with torch.device("meta"), torch.no_grad():
            model = create(settings.name, classes=len(config.data.classes), bands=bands, **settings.options).eval()
            decoded = model.decode(torch.empty(1, bands, 512, 512))
    except (PixelwiseError, RuntimeError, NotImplementedError, TypeError):
        return None
    return 512 // decoded.logits.shape[-1]


def require_compiler(device: torch.device) -> None:
    """Check that this machine can compile, before any data is read.

    Raises:
        ConfigError: it cannot.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except (TorchDynamoException, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            "[train].compile = true needs a compiler that works here (g++ or clang++; triton on a GPU), but: "
            f"{reason.rstrip('.')}. Install one, or set compile = false."
        ) from None
