"""Hugging Face's folders of images: ``metadata.csv`` or ``.jsonl`` beside them, or Parquet files that hold both.

https://huggingface.co/docs/datasets/image_dataset. The values of masks are named by ``id2label.json``, if it is there.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.annotations.embedded import kept_image
from pixelwise.data.annotations.json_text import load_json, read_text
from pixelwise.data.annotations.mask_files import named_as_mask
from pixelwise.data.annotations.records import AnnotatedImage, Annotations, Findings, MaskImage, understood
from pixelwise.data.part_names import part_in_name
from pixelwise.errors import DataError
from pixelwise.optional import optional_module

NAME = "huggingface"
METADATA = ("metadata.jsonl", "metadata.csv")
IMAGE_COLUMNS = ("image", "pixel_values", "img")


def recognises(path: Path) -> bool:
    """Return whether a folder has ``metadata`` files that name masks, or Parquet files."""
    return path.is_dir() and bool(_metadata(path) or _parquet(path))


def _metadata(path: Path) -> list[Path]:
    return sorted(file for name in METADATA for file in path.rglob(name) if _mask_column(_rows(file)[:1]))


def _parquet(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet"))


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read such a folder. Images in Parquet files are written to the system's folder for caches, once.

    Args:
        attribute: the column of the masks; None: found by its name.
    """
    found = Findings()
    names = _names(path)
    found.classes.update(dict.fromkeys((names or {}).values()))
    for file in _metadata(path):
        _add_rows(file, path, found, names, attribute)
    for file in [] if found.images else _parquet(path):
        _add_parquet(file, path, found, names, attribute)
    return found.annotations(NAME, path)


def _names(path: Path) -> dict[int, str] | None:
    file = path / "id2label.json"
    if not file.is_file():
        return None
    with understood("id2label", file):
        return {int(value): str(name) for value, name in load_json(file).items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    text = read_text(path).lstrip("\ufeff")
    with understood("metadata", path):
        if path.suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text)))
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def _mask_column(rows: Sequence[dict[str, Any]]) -> str | None:
    columns = [key for row in rows for key in row]
    return next((key for key in columns if key.endswith("file_name") and named_as_mask(key)), None)


def _add_rows(file: Path, top: Path, found: Findings, names: dict[int, str] | None, attribute: str | None) -> None:
    rows = _rows(file)
    mask_column = attribute or _mask_column(rows[:1])
    for number, row in enumerate(rows):
        with understood("metadata", file, f"row {number + 1}"):
            image_column = "file_name" if "file_name" in row else "image_file_name"
            image, mask = _inside(file, top, row[image_column]), row.get(mask_column or "")
            mask_path = _inside(file, top, mask) if mask else None
            found.missing += [str(each) for each in (image, mask_path) if each is not None and not each.is_file()]
            if not image.is_file() or (mask_path is not None and not mask_path.is_file()):
                continue
            part = part_in_name(file.parent.name) or part_in_name(str(row.get("split") or ""))
            drawn = MaskImage(mask_path, names, ignored=(255,)) if mask_path is not None else None
            found.images.append(AnnotatedImage(image, mask=drawn, part=part, source=file))


def _inside(file: Path, top: Path, name: str) -> Path:
    path = (file.parent / name.replace("\\", "/")).resolve()
    if not path.is_relative_to(top.resolve()):
        raise DataError(f"{file} names {name!r}, which leads out of {top}. Put the files into this folder.")
    return path


def _add_parquet(file: Path, top: Path, found: Findings, names: dict[int, str] | None, attribute: str | None) -> None:
    parquet = optional_module("pyarrow.parquet")
    table = parquet.ParquetFile(file)
    columns = list(table.schema_arrow.names)
    image = next((name for name in IMAGE_COLUMNS if name in columns), None)
    mask = attribute or next((name for name in columns if name != image and named_as_mask(name)), None)
    if image is None or mask is None or mask not in columns:
        raise DataError(
            f"{file} has the columns {', '.join(columns[:20])}, but an image ({', '.join(IMAGE_COLUMNS)}) and a mask "
            "are wanted. Name the column of the masks with [data].attribute."
        )
    for number, row in enumerate(_records(table, [image, mask])):
        with understood("Hugging Face", file, f"row {number + 1}"):
            name = Path(str(row[image].get("path") or f"{file.stem}-{number:06d}")).name
            path = kept_image(row[image]["bytes"], name, file)
            drawn = None
            if row[mask] is not None:
                kept = kept_image(row[mask]["bytes"], f"{Path(name).stem}_mask", file)
                drawn = MaskImage(kept, names, ignored=(255,))
            found.images.append(AnnotatedImage(path, mask=drawn, part=part_in_name(file.stem), source=file))


def _records(table: Any, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in table.iter_batches(batch_size=16, columns=columns):
        yield from batch.to_pylist()
