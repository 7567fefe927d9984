"""Supervisely (https://docs.supervisely.com/customization-and-integration/00_ann_format_navi): a project's folder.

``meta.json`` has the classes, ``DATASET/img`` the images and ``DATASET/ann/IMAGE.json`` what is drawn on them. Later
objects lie on top.
"""

import base64
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from pixelwise.data.annotations.embedded import decoded_picture
from pixelwise.data.annotations.json_text import head_of, load_json
from pixelwise.data.annotations.records import (
    AnnotatedImage,
    Annotations,
    Findings,
    Region,
    parse_hex,
    ring_of,
    understood,
)
from pixelwise.data.annotations.shapes import Bitmap, Polygon, Shape, rectangle
from pixelwise.data.part_names import part_named
from pixelwise.errors import DataError

NAME = "supervisely"
NO_AREA = "{n} points, lines and other objects have no area, so they are left out."
LARGEST_BITMAP = 1 << 28
"""Bytes of an unpacked bitmap; its PNG is smaller than its pixels."""


def recognises(path: Path) -> bool:
    """Return whether a folder has ``meta.json`` with classes, or is a data set of images and their ``ann``."""
    if not path.is_dir():
        return False
    return '"classes"' in head_of(path / "meta.json") or any(_objects_in(folder) for folder in _datasets(path))


def _objects_in(folder: Path) -> bool:
    first = next((folder / "ann").glob("*.json"), None)
    return first is not None and '"objects"' in head_of(first)


def _datasets(path: Path) -> list[Path]:
    below = sorted(each.parent for each in path.glob("*/ann") if each.is_dir())
    # Data sets may hold others.
    nested = sorted(each.parent for each in path.glob("**/datasets/*/ann") if each.is_dir())
    return [*([path] if (path / "ann").is_dir() else []), *below, *nested]


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read a project, or one of its data sets."""
    found = Findings()
    meta = next((file for file in (path / "meta.json", path.parent / "meta.json") if file.is_file()), None)
    if meta is not None:
        told = load_json(meta)
        with understood("Supervisely", meta):
            found.classes.update({str(each["title"]): parse_hex(each.get("color")) for each in told["classes"]})
    for dataset in _datasets(path):
        images = {image.name: image for image in _images(dataset / "img")}
        part = part_named(dataset.name)
        described = dict[str, Path]()
        for file in sorted((dataset / "ann").glob("*.json")):
            # IMAGE.png.json; older exports leave out the image's suffix.
            name = next((n for n in images if file.stem in (n, Path(n).stem)), None)
            if name is None:
                found.missing.append(file.stem)
            else:
                described[name] = file
        for name, image in images.items():
            file = described.get(name)
            found.images.append(
                AnnotatedImage(image, part=part) if file is None else _described(image, file, part, found)
            )
    return found.annotations(NAME, path)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder} beside its 'ann'. Export the project with its images.", code="PW432"
        )
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _described(image: Path, file: Path, part: str | None, found: Findings) -> AnnotatedImage:
    told = load_json(file)
    with understood("Supervisely", file):
        size = int(told["size"]["height"]), int(told["size"]["width"])
        regions = []
        for number, item in enumerate(told["objects"]):
            with understood("Supervisely", file, f"object {number + 1}"):
                shapes = list(_shapes(item))
            if not shapes:
                found.note(NO_AREA)
            regions += [Region(str(item["classTitle"]), shape) for shape in shapes]
    return AnnotatedImage(image, size, tuple(regions), part=part, source=file)


def _shapes(item: dict[str, Any]) -> Iterator[Shape]:
    kind = item.get("geometryType") or item.get("type") or ("bitmap" if item.get("bitmap") else "polygon")
    if kind == "polygon":
        outer = ring_of(item["points"]["exterior"])
        holes = [ring for hole in item["points"].get("interior", []) if (ring := ring_of(hole)) is not None]
        if outer is not None:
            yield Polygon(((outer, *holes),))
    elif kind == "rectangle":
        (left, top), (right, bottom) = item["points"]["exterior"]
        left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
        # Both corners are pixels of the rectangle.
        yield rectangle(float(left), float(top), right - left + 1.0, bottom - top + 1.0)
    elif kind == "bitmap":
        pixels = _bitmap(item["bitmap"]["data"])
        left, top = map(int, item["bitmap"]["origin"])
        packed, shape = np.packbits(pixels), pixels.shape
        decode = partial(_unpacked, packed, shape)
        yield Bitmap(left, top, shape[1], shape[0], decode, float(pixels.sum()))


def _bitmap(text: str) -> Bool[np.ndarray, "h w"]:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(base64.b64decode(text), LARGEST_BITMAP)
    except zlib.error as error:
        raise ValueError(f"a bitmap is not packed with zlib: {error}") from None
    if unpacker.unconsumed_tail:
        raise ValueError("a bitmap is larger than any image")
    return decoded_picture(content)


def _unpacked(packed: np.ndarray, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
