"""COCO (https://cocodataset.org/#format-data): one JSON file of images, annotations and categories.

The format has no order of overlapping objects. Larger ones are drawn first, so that smaller ones lie on top. Crowds,
which are coarse, lie below all single objects.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import head_of, json_members
from pixelwise.data.annotations.records import (
    AnnotatedImage,
    Annotations,
    Colour,
    Findings,
    Region,
    parse_hex,
    polygon_of,
    understood,
)
from pixelwise.data.annotations.shapes import Bitmap, Shape
from pixelwise.data.annotations.traced import IGNORED, TracedImage, TracedRegion
from pixelwise.data.part_names import part_in_name, part_named
from pixelwise.errors import DataError
from pixelwise.files import replacing
from pixelwise.labels import Classes
from pixelwise.optional import optional_module

NAME = "coco"
ONLY_BOX = "{n} objects have a box and no outline, so they are left out."


def recognises(path: Path) -> bool:
    """Return whether a file, or one in a folder or its ``annotations``, begins as COCO does."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" and _is_coco(path) else []
    found = [file for folder in (path, path / "annotations") for file in sorted(folder.glob("*.json"))]
    found = [file for file in found if _is_coco(file)]
    # The data set's own release has captions and keypoints of the same objects beside these.
    return [file for file in found if file.name.startswith("instances_")] or found


def _is_coco(path: Path) -> bool:
    head = head_of(path)
    if not head.lstrip().startswith("{"):
        return False
    signs = ('"categories"', '"images"', '"annotations"', '"info"', '"licenses"')
    objects = '"category_id"' in head or '"file_name"' in head or '"supercategory"' in head
    return sum(sign in head for sign in signs) >= 1 and objects


@dataclass(frozen=True)
class _Object:
    image: Any
    category: Any
    shape: Shape
    crowd: bool


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read a COCO file, or all of a folder; ``annotations`` in it too."""
    files = _files(path) or ([path] if path.is_file() else [])
    found, index = Findings(), ImageIndex(folders)
    for file in files:
        read_file(file, index, found, part=part_in_name(file.stem) or part_named(file.parent.name))
    return found.annotations(NAME, path, index)


def read_file(path: Path, index: ImageIndex, found: Findings, *, part: str | None) -> None:
    """Add what a COCO file says to the findings.

    Raises:
        DataError: it is damaged, or no COCO file.
    """
    images: dict[Any, dict] = {}
    categories: dict[Any, dict] = {}
    objects: list[_Object] = []
    kinds: Counter[str] = Counter()
    for key, item in json_members(path, ("images", "annotations", "categories")):
        kinds[key] += 1
        with understood("COCO", path, f"{key}, entry {kinds[key]}"):
            if key == "images":
                images[item["id"]] = {each: item.get(each) for each in ("file_name", "width", "height")}
                if images[item["id"]]["file_name"] is None:
                    raise KeyError("file_name")
            elif key == "categories":
                categories[item["id"]] = item
            elif key == "annotations":
                objects += _objects(item, path, found)
    if missing := [key for key in ("images", "annotations", "categories") if key not in kinds and not images]:
        raise DataError(
            f"{path} is no COCO file: it has no {missing[0]!r}. Name its format with [data].annotation_format."
        )
    with understood("COCO", path):
        for category in _named(categories, {each.category for each in objects}):
            found.classes.setdefault(str(category["name"]), _colour(category.get("color")))
        _add(path, index, found, images, categories, objects, part)


def _colour(told: Any) -> Colour | None:
    """Return a colour, which the format does not have and some tools write: as a list, or as #rrggbb."""
    if not isinstance(told, list):
        return parse_hex(told)
    red, green, blue = map(int, told)
    return red, green, blue


def _named(categories: dict[Any, dict], used: set) -> list[dict]:
    """Return the categories that are classes. Roboflow adds one of its own, which is above all others."""
    above = {category.get("supercategory") for category in categories.values()}
    return [
        category
        for number, category in categories.items()
        if number in used or not (category.get("supercategory") == "none" and category["name"] in above)
    ]


def _objects(item: dict, path: Path, found: Findings) -> Iterator[_Object]:
    if "segments_info" in item:
        raise DataError(
            f"{path} is COCO's panoptic form, whose pixels are in pictures beside it. Convert it to COCO's instances "
            "(panopticapi's panoptic2detection_coco_format.py), or to masks and name these in [data].labels."
        )
    shape = _shape(item.get("segmentation"), item)
    if shape is None:
        found.note(ONLY_BOX)
        return
    yield _Object(item["image_id"], item["category_id"], shape, bool(item.get("iscrowd")))


def _shape(segmentation: Any, item: dict) -> Shape | None:
    if not segmentation:
        return None
    if not isinstance(segmentation, dict):
        flat = not isinstance(segmentation[0], list)
        return polygon_of(segmentation) if flat else polygon_of(*segmentation)
    height, width = map(int, segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, list):
        runs = np.asarray(counts, np.int64)
        if runs.sum() != height * width or (runs < 0).any():
            raise ValueError(f"its runs have {runs.sum()} pixels, but its size has {height * width}")
        return Bitmap(0, 0, width, height, partial(_runs, runs, height, width), float(runs[1::2].sum()))
    mask = optional_module("pycocotools.mask")
    encoded = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
    area = float(item.get("area") or mask.area(encoded))
    return Bitmap(0, 0, width, height, partial(_decoded, encoded), area)


def _runs(runs: np.ndarray, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    # Columns come one after the other; the first run is of pixels outside.
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def _decoded(encoded: dict) -> Bool[np.ndarray, "h w"]:
    return optional_module("pycocotools.mask").decode(encoded).astype(bool)


def _add(
    path: Path,
    index: ImageIndex,
    found: Findings,
    images: dict[Any, dict],
    categories: dict[Any, dict],
    objects: list[_Object],
    part: str | None,
) -> None:
    of_image: dict[Any, list[_Object]] = {}
    for each in objects:
        if each.category not in categories:
            raise DataError(f"{path}: an annotation has the category_id {each.category}, which no category has.")
        if each.image not in images:
            found.note("{n} objects belong to images that the file does not list, so they are left out.")
        of_image.setdefault(each.image, []).append(each)
    for number, image in images.items():
        file = index.find(str(image["file_name"]))
        if file is None:
            found.missing.append(str(image["file_name"]))
            continue
        ordered = sorted(of_image.get(number, []), key=lambda each: (not each.crowd, -each.shape.area))
        regions = tuple(Region(str(categories[each.category]["name"]), each.shape) for each in ordered)
        size = (int(image["height"]), int(image["width"])) if image["height"] and image["width"] else None
        for each in ordered:
            if size and isinstance(each.shape, Bitmap) and (each.shape.height, each.shape.width) != size:
                raise DataError(
                    f"{path}: run lengths of {image['file_name']} have {each.shape.width}x{each.shape.height} pixels, "
                    f"but the image {size[1]}x{size[0]}. Export it again."
                )
        found.images.append(AnnotatedImage(file, size, regions, part=part, source=path))


def write(folder: Path, images: Sequence[TracedImage], classes: Classes) -> list[Path]:
    """Write ``annotations.json``: a polygon for each region, and run lengths for one with holes."""
    number = {name: i + 1 for i, name in enumerate((*classes.names, IGNORED))}
    used = {region.name for image in images for region in image.regions}
    colours = dict(zip(classes.names, classes.palette, strict=True))
    told = {
        "info": {"description": "predicted by pixelwise"},
        "licenses": [],
        "categories": [
            {"id": i, "name": name, "supercategory": "", "color": list(colours.get(name, (0, 0, 0)))}
            for name, i in number.items()
            if name in used or (name in colours and name != "background")
        ],
        "images": [
            {"id": i + 1, "file_name": image.place, "width": image.width, "height": image.height}
            for i, image in enumerate(images)
        ],
        "annotations": [],
    }
    for i, image in enumerate(images):
        for region in image.regions:
            annotation = {
                "id": len(told["annotations"]) + 1,
                "image_id": i + 1,
                "category_id": number[region.name],
                "bbox": list(region.box),
                "area": region.area,
                "iscrowd": 0,
                "segmentation": _written_shape(region, image),
            }
            told["annotations"].append(annotation)
    path = folder / "annotations.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(told), encoding="utf-8")
    return [path]


def _written_shape(region: TracedRegion, image: TracedImage) -> list[list[int]] | dict[str, Any]:
    if not region.holes:
        return [region.outer.astype(int).ravel().tolist()]
    left, top, width, height = region.box
    whole = np.zeros((image.height, image.width), np.uint8, order="F")
    whole[top : top + height, left : left + width] = region.pixels()
    encoded = optional_module("pycocotools.mask").encode(whole)
    return {"size": [image.height, image.width], "counts": encoded["counts"].decode("ascii")}
