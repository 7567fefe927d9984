"""The weights that a configuration begins with: a file on this machine, and all that a model of it descends from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.config import ModelConfig
from pixelwise.encoder_name import is_folder_name, is_library_name
from pixelwise.errors import WeightsError
from pixelwise.hub import ledger
from pixelwise.hub.addresses import Network, is_offline
from pixelwise.hub.download import Advance
from pixelwise.hub.licences import Origin, given_by_path, require_consent
from pixelwise.hub.named_weights import Asked, fetch, is_name, unknown_name
from pixelwise.models import MODELS, Segmenter, create
from pixelwise.models.library_encoder import LIBRARIES, LibraryEncoder
from pixelwise.runs.model_card import is_model
from pixelwise.runs.origins import origins_of


@dataclass(frozen=True)
class FirstWeights:
    """Where a network begins."""

    path: Path
    origins: tuple[Origin, ...]


def first_weights(
    settings: ModelConfig,
    *,
    offline: bool | None = None,
    advance: Advance | None = None,
    say: Callable[[str], None] | None = None,
) -> FirstWeights | None:
    """Find the weights that [model].weights names; a file that is not kept on this machine is fetched.

    Args:
        offline: fetch nothing; None: as the environment says.
        advance: called with the bytes that are there, and all bytes, if that is known.
        say: called with sentences about what is fetched.

    Returns:
        None if the network begins with fresh weights.

    Raises:
        WeightsError: an unknown name, nothing there, a licence that is not accepted, or a file that cannot be fetched.
    """
    _require_brought_licence(settings)
    weights = settings.weights
    if weights is None:
        return None
    if isinstance(weights, str) and is_name(weights):
        through = Network(settings.mirrors, is_offline() if offline is None else offline)
        asked = Asked(weights, settings.name, encoder_of(settings), tuple(settings.accept_licence), through)
        path, origin = fetch(asked, advance=advance, say=say)
        return FirstWeights(path, (origin,))
    path = Path(weights)
    if not path.exists():
        raise WeightsError(unknown_name(str(weights)), code="PW506")
    origins = _known_origins(path)
    for origin in origins:
        require_consent(origin, settings.accept_licence, ledger.licence_of(origin.licence).terms)
    return FirstWeights(path, origins)


def _known_origins(path: Path) -> tuple[Origin, ...]:
    """Return what a file or a model descends from; a model of an early version, which does not say, is unknown."""
    origins = origins_of(path)
    return (given_by_path(path.name, ""),) if origins is None else origins


def library_origins(model: Segmenter, accepted: Sequence[str]) -> tuple[Origin, ...]:
    """Return where the weights of a library's encoder come from; nothing if it began fresh, or is ours.

    Raises:
        WeightsError: a licence that is not accepted.
    """
    encoder = model.encoder
    if not isinstance(encoder, LibraryEncoder) or encoder.recipe.licence is None:
        return ()
    origin = _brought_origin(encoder.recipe.encoder, encoder.recipe.licence)
    require_consent(origin, accepted, ledger.licence_of(origin.licence).terms)
    return (origin,)


def _require_brought_licence(settings: ModelConfig) -> None:
    """Check the licence of the weights that a library's encoder brings along, before they are fetched.

    Raises:
        WeightsError: a licence that is not accepted.
        ConfigError, MissingExtraError: the library does not know the encoder, or is not installed.
    """
    encoder = str(settings.options.get("encoder"))
    if not (settings.options.get("pretrained") and is_library_name(encoder)):
        return
    licence = None
    if ledger.by_encoder(encoder) is None:
        library = LIBRARIES[encoder.partition(":")[0]]
        licence = library.licence(library.recipe(encoder))
    origin = _brought_origin(encoder, licence)
    require_consent(origin, settings.accept_licence, ledger.licence_of(origin.licence).terms)


def _brought_origin(encoder: str, licence: str | None) -> Origin:
    """Return where the weights of a library's encoder come from.

    Args:
        licence: as the library or the card beside them names it.
    """
    library, _, name = encoder.partition(":")
    row, known, folder = ledger.by_encoder(encoder), ledger.licence_of(licence or "unknown"), is_folder_name(name)
    if row is not None:
        return row.origin("")
    if folder and known.name == "unknown":
        return given_by_path(Path(name).name, "")
    source = "a folder given by path" if folder else f"{library}'s hub: {name}"
    return Origin(f"{library}:{Path(name).name}" if folder else encoder, source, known.name, known.commercial, "", "")


def teacher_origins(teacher: Path | None, accepted: Sequence[str]) -> tuple[Origin, ...]:
    """Return what a teacher descends from: what learns from its answers descends from it too.

    Raises:
        WeightsError: a licence that is not accepted.
    """
    # `load_teacher` says what is wrong with one that is not there.
    if teacher is None or not is_model(teacher):
        return ()
    origins = _known_origins(teacher)
    for origin in origins:
        require_consent(origin, accepted, ledger.licence_of(origin.licence).terms)
    return origins


def encoder_of(settings: ModelConfig) -> str:
    """Return the name of the encoder that a network has.

    Raises:
        ConfigError: a network that does not exist.
    """
    name = str(settings.options.get("network", "hrnet-w48-ocr")) if settings.name == "hmsa" else settings.name
    if name not in MODELS:
        create(name, classes=1)
    return str(settings.options.get("encoder", MODELS[name].encoder))
