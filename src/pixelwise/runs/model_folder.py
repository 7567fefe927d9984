"""A model folder is self-contained: architecture, classes, colours, bands and normalisation travel with the weights."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import tomli_w
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from pixelwise.data.contract import Contract
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.files import (
    file_digest,
    read_checked,
    recovered_folder,
    replacing,
    replacing_folder,
    with_checksum,
)
from pixelwise.hub.licences import Origin, notice, origins_from, records
from pixelwise.labels import Classes
from pixelwise.models import Architecture, Segmenter, rebuilt
from pixelwise.models.library_encoder import versions_apart
from pixelwise.weights import with_options
from pixelwise.weights.files import write_state

DIGEST = "weights_sha256"
"""The key of ``model.toml`` for the SHA-256 of the weights beside it."""
ORIGINS_KEY = "pixelwise.origins"
"""Of the header of a ``model.safetensors`` whose model descends from others' weights: the records as JSON."""
NOTICE = "NOTICE.txt"
"""Beside such a model: the same for people."""


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


def save_model(folder: str | Path, model: Segmenter, card: ModelCard) -> None:
    """Write ``model.safetensors`` and ``model.toml`` in one step: the old folder stays until the new one is whole.

    Raises:
        ConfigError: the disk is full.
    """
    with replacing_folder(folder) as temporary:
        weights, origins = temporary / "model.safetensors", card.origins or ()
        header = {"format": "pt", ORIGINS_KEY: json.dumps(records(origins))} if origins else None
        try:
            write_state(model, weights, header)
        except SafetensorError as error:
            raise ConfigError(f"{Path(folder) / weights.name} could not be written: {error}.") from None
        _write_card(temporary / "model.toml", card, file_digest(weights))
        if origins:
            (temporary / NOTICE).write_text(notice(origins), encoding="utf-8", newline="\n")


def replace_card(folder: str | Path, card: ModelCard) -> None:
    """Replace ``model.toml`` of a model folder, or of the best model of a run; its weights stay as they are.

    Raises:
        WeightsError: no model there, or a damaged one.
        ConfigError: a folder that cannot be written.
    """
    folder = _model_folder(Path(folder))
    _, digest = read_card(folder)
    with replacing(folder / "model.toml") as temporary:
        _write_card(temporary, card, digest)


def _write_card(path: Path, card: ModelCard, digest: str | None) -> None:
    table = {**({} if digest is None else {DIGEST: digest}), **_without_none(asdict(card))}
    path.write_text(with_checksum(tomli_w.dumps(table)), encoding="utf-8", newline="\n")


def _without_none(table: dict) -> dict:
    """Return a table without what TOML has no word for."""
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in table.items() if v is not None}


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
    raise WeightsError(f"{path} is damaged ({reason[:200]}). Restore the folder or train again.")


def is_model(path: Path) -> bool:
    """Return whether a path is a model folder of ours, a run that has one, or a file in a model folder."""
    folder = path if path.is_dir() else path.parent
    cards = ("model.toml", "model/model.toml") if path.is_dir() else ("model.toml",)
    return any((folder / card).is_file() for card in cards)


def read_origins(path: Path) -> tuple[Origin, ...] | None:
    """Return what a model of ours descends from, by its card or by the header of its weights alone.

    Args:
        path: a run, a model folder, or a file in one.

    Returns:
        None if nothing says so: others' weights, or a folder of an early version.

    Raises:
        WeightsError: what should say so is damaged.
    """
    folder = path if path.is_dir() else path.parent
    try:
        for card in (folder / "model.toml", *([folder / "model" / "model.toml"] if path.is_dir() else [])):
            if card.is_file():
                table = tomllib.loads(read_checked(card))
                return origins_from(table["origins"]) if "origins" in table else None
        if path.suffix == ".safetensors" and path.is_file():
            with safe_open(path, framework="pt") as opened:
                header = opened.metadata() or {}
            return origins_from(json.loads(header[ORIGINS_KEY])) if ORIGINS_KEY in header else None
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"What {path} descends from is damaged ({reason}). Restore the folder, or train again."
        ) from None
    return None


def load_model(folder: str | Path, *, options: Mapping[str, object] | None = None) -> tuple[Segmenter, ModelCard, str]:
    """Read a model folder, or the best model of a run.

    Args:
        options: of `create`, such as ``{"output_stride": 8}``. They replace those that the model was trained with, and
            need the same tensors.

    Returns:
        the network in evaluation mode, its card (with these options), and the SHA-256 of its weights in hexadecimal.

    Raises:
        WeightsError: no model there, one that does not fit its card, or an option that needs other tensors.
        ConfigError: an unknown option, or a value that the network does not take.
    """
    folder = _model_folder(Path(folder))
    card, expected = read_card(folder)
    weights = folder / "model.safetensors"
    state, found = _read_weights(weights)
    if expected not in (None, found):
        raise WeightsError(
            f"{weights} is not the file that {folder / 'model.toml'} was written for: it is damaged, or was replaced. "
            f"Restore the folder or train again; if you replaced it, delete {DIGEST} and the first line there."
        )
    try:
        model = rebuilt(card.architecture, {})
    except Exception as error:  # values of any kind, in a damaged card
        raise WeightsError(
            f"{folder / 'model.toml'} describes a network that does not exist ({error}). Restore the folder, or "
            "train again."
        ) from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        apart = versions_apart(model)
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{weights} does not fit {folder / 'model.toml'}: {reason}{apart}") from None
    if options:
        model = with_options(model, options, str(weights))
        card = replace(card, architecture=model.architecture)
    return model.eval(), card, found


def _model_folder(folder: Path) -> Path:
    """Return a model folder; of a run, that of its best model."""
    if (folder / "model.toml").exists():
        return folder
    recovered_folder(folder / "model")
    if not (folder / "model" / "model.toml").exists():
        raise WeightsError(
            f"{folder} holds no model (no model.toml in it or in {folder / 'model'}). "
            "Name a run or a model folder; a run has a model after its first evaluation."
        )
    return folder / "model"


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, and its SHA-256."""
    try:
        return load_file(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # safetensors raises errors of many kinds
        raise WeightsError(f"{path} is damaged ({error}). Restore the folder or train again.") from None


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
    if card.contract is not None and not len(card.contract.low) == len(card.contract.high) == bands:
        raise ValueError(f"the contract has {len(card.contract.low)} bands, and the model {bands}")
    if not (np.isfinite(card.temperature) and card.temperature > 0):
        raise ValueError("the temperature must be finite, and above 0")
    np.dtype(card.dtype)
    return card
