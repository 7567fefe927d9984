"""What is checked before any training: the network, its settings, and the compiler."""

from functools import partial

import torch

from pixelwise.config import Config
from pixelwise.encoder_name import is_folder_name
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.hub.download import NotKeptError
from pixelwise.loss_config import LOSS_KEYS, LossConfig
from pixelwise.models import answers_with_masks, create
from pixelwise.optional import optional_module
from pixelwise.training.first_weights import first_weights, library_origins
from pixelwise.training.network import require_encoder
from pixelwise.training.teaching import load_teacher, require_teacher
from pixelwise.training.training_data import require_weight_per_class
from pixelwise.weights import load_weights


def check_model(config: Config, *, bands: int | None) -> list[str]:
    """Return a paragraph for each mistake in [model] and of teachers, and for too many or too few class weights.

    Args:
        bands: of the images; None where no image could be read: as [data].bands says, else 3.
    """
    settings, classes = config.model, len(config.data.classes)
    problems = []
    teacher = [partial(load_teacher, config, None)] if config.train.teacher is not None else []
    checks = (
        partial(require_weight_per_class, config, classes),
        *(partial(f, config) for f in (require_mask_loss, require_teacher)),
    )
    for check in (*checks, *teacher):
        try:
            check()
        except PixelwiseError as problem:
            problems.append(str(problem))
    bands = bands or len(config.data.bands or (1, 2, 3))
    try:
        try:
            start = first_weights(settings, offline=True)
        except NotKeptError:
            # Training fetches them; their name and licence are checked already.
            start = None
        # Of a library's encoder only a folder is read here; training fetches what is on the hub.
        folder = is_folder_name(str(settings.options.get("encoder")).partition(":")[2])
        if start is None and not (folder and settings.options.get("pretrained")):
            # The meta device takes no memory, and building is all that is tried.
            with torch.device("meta"):
                create(settings.name, classes=classes, bands=bands, **settings.options)
        else:
            model = create(settings.name, classes=classes, bands=bands, **settings.options)
            library_origins(model, settings.accept_licence)
            if start is not None:
                loaded = load_weights(model, start.path, partial=True)
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
        # Options of any kind may be wrong here; `check_model` words each.
        return None
    return 512 // decoded.logits.shape[-1]


def require_mask_loss(config: Config) -> None:
    """Check that a network that answers with masks can have its loss, and is asked for no other.

    Raises:
        ConfigError: [train] sets a loss of pixels.
        MissingExtraError: the package that matches masks is not installed.
    """
    if not answers_with_masks(config.model.name, config.model.options):
        return
    optional_module("scipy.optimize", what="Training EoMT", extra="eomt")
    usual, asked = LossConfig(), config.train.losses
    other = [key for key in LOSS_KEYS if getattr(asked, key) != getattr(usual, key)]
    if other:
        raise ConfigError(
            f"[train] asks for losses of pixels ({', '.join(other)}), but {config.model.name} is trained by the loss "
            "of its masks and their classes. Leave them out of [train], or take another network."
        )


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
            f"{reason.rstrip('.')}. Install one, or set compile = false.",
            code="PW315",
        ) from None
