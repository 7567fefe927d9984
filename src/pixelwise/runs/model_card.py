"""What a model folder says of its model, in ``model.toml``: all that a predictor must know besides the weights."""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from pixelwise.architecture import Architecture
from pixelwise.data.contract import Contract
from pixelwise.errors import WeightsError
from pixelwise.files import read_checked
from pixelwise.hub.licences import Origin, origins_from
from pixelwise.labels import Classes

DIGEST = "weights_sha256"
"""The key of ``model.toml`` for the SHA-256 of the weights beside it."""
ORIGINS_KEY = "pixelwise.origins"
"""Of the header of a ``model.safetensors`` whose model descends from others' weights: the records as JSON."""


@dataclass(frozen=True)
class ModelCard:
    """What a predictor must know besides the weights."""

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
    """Raw value that means no data, if the file names none; None: as the file says."""
    file_bands: int | None = None
    """How many bands the training files had, without alpha; None: as many as ``bands``."""
    grey_too: bool = False
    """Some training images were grey and were read with three equal bands. Prediction reads grey ones so too."""
    contract: Contract | None = None
    """Range of values, ground resolution and colours of the training images; None in folders of before version 0.3."""
    tile: int = 512
    overlap: int = 128
    temperature: float = 1.0
    """By which logits are divided before they become confidence and probabilities (`evaluation.calibration`)."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Where the model came from: version, data, licence, date, score."""
    origins: tuple[Origin, ...] | None = None
    """Weights that it descends from, with their licences; None: not recorded, as in folders of early versions."""


def read_card(folder: Path) -> tuple[ModelCard, str | None]:
    """Read and check ``model.toml``.

    Returns:
        the card, and the SHA-256 of the weights beside it; None in folders of early versions.

    Raises:
        WeightsError: it is damaged, or was changed since it was written.
    """
    path = folder / "model.toml"
    try:
        table = tomllib.loads(read_checked(path))
        digest = table.pop(DIGEST, None)
        return _checked_card(table), digest
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
    raise WeightsError(f"{path} is damaged ({reason[:200]}). Restore the folder or train again.", code="PW510")


def is_model(path: Path) -> bool:
    """Return whether a path is a model folder of ours, a run that has one, or a file in a model folder."""
    folder = path if path.is_dir() else path.parent
    cards = ("model.toml", "model/model.toml") if path.is_dir() else ("model.toml",)
    return any((folder / card).is_file() for card in cards)


def read_origins(path: Path) -> tuple[Origin, ...] | None:
    """Return what a model of ours descends from, by its card or by the header of its weights alone.

    Args:
        path: a run, a model folder, an export to transformers, or a file in one, such as a run's state.

    Returns:
        None if nothing says so: others' weights, or a folder of an early version.

    Raises:
        WeightsError: what should say so is damaged.
    """
    folder = path if path.is_dir() else path.parent
    run = path if path.is_dir() else folder.parent if folder.name == "last" else None
    try:
        for card in (folder / "model.toml", *([run / "model" / "model.toml"] if run else [])):
            if card.is_file():
                table = tomllib.loads(read_checked(card))
                return origins_from(table["origins"]) if "origins" in table else None
        weights = path / "model.safetensors" if path.is_dir() else path
        if weights.suffix == ".safetensors" and weights.is_file():
            with safe_open(weights, framework="numpy") as opened:
                header = opened.metadata() or {}
            return origins_from(json.loads(header[ORIGINS_KEY])) if ORIGINS_KEY in header else None
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"What {path} descends from is damaged ({reason}). Restore the folder, or train again.", code="PW510"
        ) from None
    return None


_CARD = TypeAdapter(ModelCard)


def _checked_card(table: dict) -> ModelCard:
    card = _CARD.validate_python(table)
    require_sound(card)
    return card


def require_sound(card: ModelCard) -> None:
    """Check what no type says of a card.

    Raises:
        ValueError: numbers that contradict each other, or that nothing can be computed with.
    """
    bands, classes = len(card.bands), card.classes
    if not bands or not len(card.mean) == len(card.std) == bands or min(card.bands) < 1:
        raise ValueError(f"bands, mean and std have {bands}, {len(card.mean)} and {len(card.std)} numbers")
    if not np.isfinite([*card.mean, *card.std]).all() or min(card.std) <= 0:
        raise ValueError("mean and std must be finite, and std above 0")
    if not classes.names or len(classes.names) != len(classes.palette):
        raise ValueError(f"there are {len(classes.names)} names of classes and {len(classes.palette)} colours")
    if not all(0 <= part <= 255 for colour in classes.palette for part in colour):
        raise ValueError("colours are numbers from 0 to 255")
    if card.contract is not None and not len(card.contract.low) == len(card.contract.high) == bands:
        raise ValueError(f"the contract has {len(card.contract.low)} bands, and the model {bands}")
    if not (np.isfinite(card.temperature) and card.temperature > 0):
        raise ValueError("the temperature must be finite, and above 0")
    if np.dtype(card.dtype).kind not in "iuf":
        raise ValueError(f"images have whole or real numbers, not {card.dtype}")
