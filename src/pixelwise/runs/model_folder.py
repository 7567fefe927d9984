"""A model folder is self-contained: architecture, classes, colours, bands and normalisation travel with the weights."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import tomli_w
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from pixelwise.errors import ConfigError, WeightsError
from pixelwise.files import file_digest, read_checked, recovered_folder, replacing_folder, with_checksum
from pixelwise.labels import Classes
from pixelwise.models import Architecture, Segmenter, rebuilt
from pixelwise.weights import with_options
from pixelwise.weights.files import write_state

DIGEST = "weights_sha256"
"""The key of ``model.toml`` for the SHA-256 of the weights beside it."""


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
    grey_too: bool = False
    """Some training images were grey, and were read with three equal bands; so are those of prediction."""
    tile: int = 512
    overlap: int = 128
    provenance: dict[str, str] = field(default_factory=dict)
    """Where the model came from: version, data, licence, date, score."""


def save_model(folder: str | Path, model: Segmenter, card: ModelCard) -> None:
    """Write ``model.safetensors`` and ``model.toml`` as one step: the old folder stays until the new is complete.

    Raises:
        ConfigError: the disk is full.
    """
    with replacing_folder(folder) as temporary:
        weights = temporary / "model.safetensors"
        try:
            write_state(model, weights)
        except SafetensorError as error:
            raise ConfigError(f"{Path(folder) / weights.name} could not be written: {error}.") from None
        table = {DIGEST: file_digest(weights), **{k: v for k, v in asdict(card).items() if v is not None}}
        (temporary / "model.toml").write_text(with_checksum(tomli_w.dumps(table)), encoding="utf-8", newline="\n")


def read_card(folder: Path) -> dict:
    """Read the table in ``model.toml``.

    Raises:
        WeightsError: it is damaged, or was changed since it was written.
    """
    path = folder / "model.toml"
    try:
        return tomllib.loads(read_checked(path))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}). Restore the folder or train again."
        ) from None


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
    table = read_card(folder)
    expected = table.pop(DIGEST, None)
    try:
        card = _checked_card(table)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise WeightsError(
            f"{folder / 'model.toml'} is damaged ({reason[:200]}). Restore the folder or train again."
        ) from None
    try:
        state, found = load_file(weights), hashlib.sha256(weights.read_bytes()).hexdigest()
    except Exception as error:
        raise WeightsError(f"{weights} cannot be read ({error}). Restore the folder or train again.") from None
    if expected not in (None, found):
        raise WeightsError(
            f"{weights} is not the file that {folder / 'model.toml'} was written for: it is damaged, or was replaced. "
            f"Restore the folder or train again; if you replaced it, delete {DIGEST} and the first line there."
        )
    try:
        model = rebuilt(card.architecture, {})
    except Exception as error:  # values of any kind, in a damaged card
        raise WeightsError(
            f"{folder / 'model.toml'} describes no network that can be built ({error}). Restore the folder, or "
            "train again."
        ) from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{weights} does not fit {folder / 'model.toml'}: {str(error)[:300]}") from None
    if options:
        model = with_options(model, options, str(weights))
        card = replace(card, architecture=model.architecture)
    return model.eval(), card, found


_CARD = TypeAdapter(ModelCard)


def _checked_card(table: dict) -> ModelCard:
    card = _CARD.validate_python(table)
    bands, classes = len(card.bands), card.classes
    if not bands or not len(card.mean) == len(card.std) == bands or min(card.bands) < 1:
        raise ValueError(f"bands, mean and std have {bands}, {len(card.mean)} and {len(card.std)} numbers")
    if not np.isfinite([*card.mean, *card.std]).all() or min(card.std) <= 0:
        raise ValueError("mean and std must be finite, and std above 0")
    if not classes.names or len(classes.names) != len(classes.palette):
        raise ValueError(f"there are {len(classes.names)} names of classes and {len(classes.palette)} colours")
    if not all(0 <= part <= 255 for colour in classes.palette for part in colour):
        raise ValueError("colours are numbers from 0 to 255")
    np.dtype(card.dtype)
    return card
