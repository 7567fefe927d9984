"""VGG Image Annotator 2 (https://www.robots.ox.ac.uk/~vgg/software/via/): a project, or its exported JSON or CSV.

Later regions lie on top. The format does not know the images' sizes.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import head_of, load_json, read_text
from pixelwise.data.annotations.records import AnnotatedImage, Annotations, Findings, Region, polygon_of, understood
from pixelwise.data.annotations.shapes import Ellipse, Shape, rectangle
from pixelwise.errors import DataError

NAME = "via"
NO_AREA = "{n} points and open lines have no area, so they are left out."


def recognises(path: Path) -> bool:
    """Return whether a JSON or CSV file, or the only one in a folder, begins as VIA's do."""
    file = _file(path)
    head = head_of(file) if file is not None else ""
    signs = ('"_via_img_metadata"', '"shape_attributes"', '"region_attributes"')
    return any(sign in head for sign in signs) or "region_shape_attributes" in head[:1000]


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in (".json", ".csv") else None
    found = sorted([*path.glob("*.json"), *path.glob("*.csv")])
    return found[0] if len(found) == 1 else None


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read VIA's file. ``attribute`` names the region attribute that is the class; the only one needs no name."""
    file, found, index = _file(path) or path, Findings(), ImageIndex(folders)
    with understood("VIA", file):
        entries = list(_csv_entries(file) if file.suffix.lower() == ".csv" else _json_entries(file, found))
        attribute = attribute or _only_attribute(file, [regions for _, regions in entries])
        for name, regions in entries:
            drawn = []
            for number, (shape, values) in enumerate(regions):
                with understood("VIA", file, f"region {number + 1} of {name!r}"):
                    area = _shape(shape)
                    if area is None:
                        found.note(NO_AREA)
                    else:
                        drawn.append(Region(_class_of(values, attribute), area))
            image = index.find(name)
            if image is None:
                found.missing.append(name)
            else:
                found.images.append(AnnotatedImage(image, None, tuple(drawn), source=file))
    return found.annotations(NAME, path, index)


_Regions = list[tuple[dict[str, Any], dict[str, Any]]]
"""Of each region, its shape and its attributes."""


def _json_entries(path: Path, found: Findings) -> Iterator[tuple[str, _Regions]]:
    told = load_json(path)
    if "project" in told and "metadata" in told:
        raise DataError(f"{path} is a project of VIA 3, which is for video and audio. Export it with VIA 2.")
    options = told.get("_via_attributes", {}).get("region", {})
    if len(options) == 1:
        (only,) = options.values()
        found.classes.update(dict.fromkeys(only.get("options", {})))
    for entry in told.get("_via_img_metadata", told).values():
        regions = entry["regions"]
        # In version 1 they are numbered by keys.
        listed = regions.values() if isinstance(regions, dict) else regions
        yield str(entry["filename"]), [(each["shape_attributes"], each.get("region_attributes", {})) for each in listed]


def _csv_entries(path: Path) -> Iterator[tuple[str, _Regions]]:
    entries: dict[str, _Regions] = {}
    rows = csv.DictReader(io.StringIO(read_text(path).lstrip("\ufeff")))
    for row in rows:
        name = row.get("filename") or row["#filename"]
        shape = json.loads(row["region_shape_attributes"] or "{}")
        regions = entries.setdefault(name, [])
        if shape:
            regions.append((shape, json.loads(row["region_attributes"] or "{}")))
    return iter(entries.items())


def _only_attribute(path: Path, entries: list[_Regions]) -> str | None:
    names = list(dict.fromkeys(name for regions in entries for _, values in regions for name in values))
    if len(names) > 1:
        raise DataError(
            f"{path} gives its regions {len(names)} attributes: {', '.join(names[:10])}. Name the one that is the "
            "class with [data].attribute."
        )
    return names[0] if names else None


def _class_of(values: dict[str, Any], attribute: str | None) -> str:
    value = values.get(attribute, "") if attribute is not None else ""
    if isinstance(value, dict):
        # Check boxes: those that are ticked.
        ticked = [name for name, on in value.items() if on]
        if len(ticked) > 1:
            raise ValueError(f"several values of {attribute!r} are ticked: {', '.join(ticked)}")
        return ticked[0] if ticked else ""
    return str(value)


def _shape(told: dict[str, Any]) -> Shape | None:
    kind = told["name"]
    if kind in ("polygon", "polyline"):
        points = list(zip(told["all_points_x"], told["all_points_y"], strict=True))
        return polygon_of(points) if kind == "polygon" or points[0] == points[-1] else None
    if kind == "rect":
        return rectangle(float(told["x"]), float(told["y"]), float(told["width"]), float(told["height"]))
    if kind == "circle":
        return Ellipse(float(told["cx"]), float(told["cy"]), float(told["r"]), float(told["r"]))
    if kind == "ellipse":
        turn = math.degrees(float(told.get("theta") or 0))
        return Ellipse(float(told["cx"]), float(told["cy"]), float(told["rx"]), float(told["ry"]), turn)
    if kind == "point":
        return None
    raise ValueError(f"the shape {kind!r} is not known")
