"""A model folder is self-contained: architecture, classes, colours, bands and normalisation travel with the weights."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import tomli_w
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pixelwise.errors import ConfigError, WeightsError
from pixelwise.files import file_digest, recovered_folder, replacing, replacing_folder, with_checksum
from pixelwise.hub.licences import notice, records
from pixelwise.models import Segmenter, rebuilt
from pixelwise.models.library_encoder import versions_apart
from pixelwise.runs.model_card import DIGEST, ORIGINS_KEY, ModelCard, is_model, read_card, read_origins
from pixelwise.weights import with_options
from pixelwise.weights.files import write_state

__all__ = [
    "DIGEST",
    "NOTICE",
    "ORIGINS_KEY",
    "ModelCard",
    "is_model",
    "load_model",
    "read_card",
    "read_origins",
    "save_model",
]

NOTICE = "NOTICE.txt"
"""Beside such a model: the same for people."""


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
            raise ConfigError(f"{Path(folder) / weights.name} could not be written: {error}.", code="PW803") from None
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
            f"Restore the folder or train again; if you replaced it, delete {DIGEST} and the first line there.",
            code="PW510",
        )
    try:
        model = rebuilt(card.architecture, {})
    except Exception as error:  # values of any kind, in a damaged card
        raise WeightsError(
            f"{folder / 'model.toml'} describes a network that does not exist ({error}). Restore the folder, or "
            "train again.",
            code="PW510",
        ) from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        apart = versions_apart(model)
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{weights} does not fit {folder / 'model.toml'}: {reason}{apart}", code="PW510") from None
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
            "Name a run or a model folder; a run has a model after its first evaluation.",
            code="PW509",
        )
    return folder / "model"


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, and its SHA-256."""
    try:
        return load_file(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # safetensors raises errors of many kinds
        raise WeightsError(f"{path} is damaged ({error}). Restore the folder or train again.", code="PW510") from None
