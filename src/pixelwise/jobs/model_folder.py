"""A model folder is self-contained: architecture, classes, colours, bands and normalisation travel with the weights."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import tomli_w
from safetensors.torch import load_file

from pixelwise.errors import WeightsError
from pixelwise.files import recovered_folder, replacing_folder
from pixelwise.labels import Classes
from pixelwise.models import Architecture, Segmenter, rebuilt
from pixelwise.weights import with_options
from pixelwise.weights.files import write_state


@dataclass(frozen=True)
class ModelCard:
    """All that a predictor must know beside the weights."""

    architecture: Architecture
    classes: Classes
    bands: tuple[int, ...]
    """Band numbers in the file, counted from 1."""
    dtype: str
    """Type of the raw values that the network was trained on, such as 'uint8'."""
    mean: tuple[float, ...]
    """Mean of each band over the valid training pixels, in raw units."""
    std: tuple[float, ...]
    """Standard deviation of each band, in raw units."""
    nodata: float | None = None
    """Raw value that means no data, where the file does not say; None: as the file says."""
    file_bands: int | None = None
    """How many bands the training files had, alpha left out; None: as many as ``bands``."""
    tile: int = 512
    overlap: int = 128
    provenance: dict[str, str] = field(default_factory=dict)
    """Where the model came from: version, data, licence, date, score."""


def save_model(folder: str | Path, model: Segmenter, card: ModelCard) -> None:
    """Write ``model.safetensors`` and ``model.toml`` as one step: the old folder stays until the new is complete."""
    with replacing_folder(folder) as temporary:
        write_state(model, temporary / "model.safetensors")
        table = {key: value for key, value in asdict(card).items() if value is not None}
        (temporary / "model.toml").write_text(tomli_w.dumps(table), encoding="utf-8")


def load_model(folder: str | Path, *, options: Mapping[str, object] | None = None) -> tuple[Segmenter, ModelCard, str]:
    """Read a model folder, or the best model of a run.

    Args:
        options: of `create`, in place of those that the model was trained with, such as ``{"output_stride": 8}``; they
            must get by with its tensors.

    Returns:
        the network in evaluation mode, its card (with these options), and the SHA-256 of its weights in hexadecimal.

    Raises:
        WeightsError: no model there, one that does not fit its card, or an option that needs other tensors.
        ConfigError: an unknown option, or a value that the network cannot have.
    """
    folder = Path(folder)
    if not (folder / "model.toml").exists():
        recovered_folder(folder / "model")
        if (folder / "model" / "model.toml").exists():
            folder = folder / "model"
        else:
            raise WeightsError(
                f"{folder} holds no model (no model.toml in it or in {folder / 'model'}). "
                "Name a run or a model folder; a run has a model after its first evaluation."
            )
    weights = folder / "model.safetensors"
    try:
        card = _read_card(tomllib.loads((folder / "model.toml").read_text(encoding="utf-8")))
        state = load_file(weights)
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise WeightsError(
            f"{folder / 'model.toml'} is damaged ({error}). Restore the folder or train again."
        ) from None
    except Exception as error:
        raise WeightsError(f"{weights} cannot be read ({error}). Restore the folder or train again.") from None
    model = rebuilt(card.architecture, {})
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{weights} does not fit {folder / 'model.toml'}: {str(error)[:300]}") from None
    if options:
        model = with_options(model, options, str(weights))
        card = replace(card, architecture=model.architecture)
    return model.eval(), card, hashlib.sha256(weights.read_bytes()).hexdigest()


def _read_card(table: dict) -> ModelCard:
    about = table["architecture"]
    table["architecture"] = Architecture(**{**about, "asked": tuple(about.get("asked", ()))})
    names, palette = table["classes"]["names"], table["classes"]["palette"]
    table["classes"] = Classes(tuple(names), tuple((r, g, b) for r, g, b in palette))
    for key in ("bands", "mean", "std"):
        table[key] = tuple(table[key])
    return ModelCard(**table)
