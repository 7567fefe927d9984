"""What a model, a file of weights or a map descends from, as it says itself or as the ledger knows it."""

from pathlib import Path

from pixelwise.errors import DataError, WeightsError
from pixelwise.files import file_digest
from pixelwise.geo.map_file import read_tags
from pixelwise.geo.raster import IMAGE_SUFFIXES
from pixelwise.hub import ledger
from pixelwise.hub.licences import Origin, given_by_path, origins_of_tags
from pixelwise.runs.model_card import is_model, read_origins
from pixelwise.weights.files import FOLDER_FILES


def origins_of(path: Path) -> tuple[Origin, ...] | None:
    """Return the weights of others that something descends from.

    Args:
        path: a run, a model folder, a file of weights, a folder of transformers, or a map.

    Returns:
        None where nothing says so: a model or a map of an early version, or a map of a model that began fresh.

    Raises:
        WeightsError: nothing there, or records that are damaged.
    """
    if not path.exists():
        raise WeightsError(f"There is no {path}. Name a run, a model folder, a file of weights or a map.", code="PW509")
    if is_model(path):
        return read_origins(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        try:
            return origins_of_tags(read_tags(path))
        except (DataError, ValueError) as error:
            raise WeightsError(f"{path} does not tell what it descends from ({error}).", code="PW509") from None
    kept = read_origins(path)
    if kept is not None:
        return kept
    file = next((path / name for name in FOLDER_FILES if (path / name).is_file()), path)
    if path.is_dir() and file == path and (path / "config.toml").exists():
        raise WeightsError(f"The run {path} has no model yet. It has one after its first evaluation.", code="PW509")
    digest = file_digest(file) if file.is_file() else ""
    row = ledger.by_digest(digest) if digest else None
    return (given_by_path(path.name, digest) if row is None else row.origin(digest),)
