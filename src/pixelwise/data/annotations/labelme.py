"""LabelMe (https://github.com/wkentaro/labelme): a JSON file beside each image. Later shapes lie on top."""

import base64
import binascii
import io
import json
import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from pixelwise.data.annotations.embedded import decoded_picture, kept_image
from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import head_of, load_json
from pixelwise.data.annotations.records import (
    AnnotatedImage,
    Annotations,
    Findings,
    Region,
    polygon_of,
    understood,
)
from pixelwise.data.annotations.shapes import Bitmap, Ellipse, Shape, rectangle
from pixelwise.data.annotations.traced import TracedImage, TracedRegion
from pixelwise.data.part_names import part_named
from pixelwise.files import replacing
from pixelwise.labels import Classes

NAME = "labelme"
NO_AREA = "{n} lines and points have no area, so they are left out."


def recognises(path: Path) -> bool:
    """Return whether a file, or the first JSON file of a folder, begins as LabelMe's do."""
    files = json_files(path)
    return any(_is_labelme(file) for file in files[:5])


def json_files(path: Path) -> list[Path]:
    """Return the JSON files in a folder and its subfolders, hidden ones left out; a file is a list of itself."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    return sorted(f for f in path.rglob("*.json") if not any(p.startswith(".") for p in f.relative_to(path).parts))


def _is_labelme(path: Path) -> bool:
    head = head_of(path)
    signs = ('"shape_type"', '"imagePath"', '"flags"', '"lineColor"')
    # An embedded image may stand before the shapes, and fill the beginning.
    return '"imageData"' in head or ('"shapes"' in head and any(sign in head for sign in signs))


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read a LabelMe file, or all in a folder. An image that is nowhere is taken from the file that embeds it."""
    found, index = Findings(), ImageIndex(folders, empty=True)
    for file in json_files(path):
        if path.is_file() or _is_labelme(file):
            _read_file(file, index, found)
    return found.annotations(NAME, path, index)


def _read_file(path: Path, index: ImageIndex, found: Findings) -> None:
    told = load_json(path)
    with understood("LabelMe", path):
        regions = []
        for number, item in enumerate(told["shapes"]):
            with understood("LabelMe", path, f"shape {number + 1}"):
                shape = _shape(item)
                if shape is None:
                    found.note(NO_AREA)
                else:
                    regions.append(Region(str(item["label"]), shape))
        named = str(told.get("imagePath") or "")
        # Beside the file first: in several folders images may have the same names.
        beside = path.parent / PureWindowsPath(named).name
        image = (beside if named and beside in index else None) or (index.find(named) if named else None)
        image = image or index.find(path.stem)
        if image is None and told.get("imageData"):
            image = kept_image(base64.b64decode(told["imageData"]), PureWindowsPath(named or path.stem).name, path)
        if image is None:
            found.missing.append(named or path.stem)
            return
        height, width = told.get("imageHeight"), told.get("imageWidth")
        size = (int(height), int(width)) if height and width else None
        found.images.append(AnnotatedImage(image, size, tuple(regions), part=part_named(path.parent.name), source=path))


def _shape(item: dict[str, Any]) -> Shape | None:
    kind, points = item.get("shape_type") or "polygon", item["points"]
    if kind in ("polygon", "oriented_rectangle", "rotation"):
        return polygon_of(points)
    if kind == "rectangle":
        # Two opposite corners, or all four.
        corners = np.asarray(points, np.float64).reshape(-1, 2)
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        return rectangle(left, top, right - left, bottom - top)
    if kind == "circle":
        (x, y), (edge_x, edge_y) = np.asarray(points, np.float64).reshape(-1, 2)[:2].tolist()
        radius = math.hypot(edge_x - x, edge_y - y)
        return Ellipse(x, y, radius, radius)
    if kind == "mask":
        (left, top), (right, bottom) = np.rint(np.asarray(points, np.float64)).astype(int).reshape(-1, 2)[:2].tolist()
        # Both corners are pixels of the mask.
        width, height = right - left + 1, bottom - top + 1
        return Bitmap(left, top, width, height, partial(_mask, item["mask"], height, width))
    if kind in ("line", "linestrip", "point", "points"):
        return None
    raise ValueError(f"the shape_type {kind!r} is not known")


def _mask(text: str, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    try:
        return decoded_picture(base64.b64decode(text), (height, width))
    except binascii.Error as error:
        raise ValueError(f"its mask is no base64: {error}") from None


def write(folder: Path, images: Sequence[TracedImage], classes: Classes) -> list[Path]:
    """Write a JSON file for each image, which holds its path and not its pixels. A region with holes is a mask."""
    written = []
    for image in images:
        path = written_path(folder, image.place)
        told = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [_written_shape(region) for region in image.regions],
            "imagePath": Path(os.path.relpath(image.path, path.parent)).as_posix(),
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(told, indent=2), encoding="utf-8")
        written.append(path)
    return written


def written_path(folder: Path, place: str) -> Path:
    """Return where `write` puts the file of an image."""
    return (folder / place).with_suffix(".json")


def _written_shape(region: TracedRegion) -> dict[str, Any]:
    told = {"label": region.name, "group_id": None, "description": "", "flags": {}}
    if not region.holes:
        return {**told, "shape_type": "polygon", "points": region.outer.tolist(), "mask": None}
    left, top, width, height = region.box
    packed = io.BytesIO()
    Image.fromarray(region.pixels().astype(np.uint8)).save(packed, "PNG")
    corners = [[left, top], [left + width - 1, top + height - 1]]
    mask = base64.b64encode(packed.getvalue()).decode("ascii")
    return {**told, "shape_type": "mask", "points": corners, "mask": mask}
