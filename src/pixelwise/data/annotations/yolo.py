"""YOLO's segmentation (https://docs.ultralytics.com/datasets/segment/): ``data.yaml`` and a text file per image.

A line has a class's index and the corners of one polygon, as shares of width and height. Later lines lie on top.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixelwise.data.annotations.json_text import read_text
from pixelwise.data.annotations.records import AnnotatedImage, Annotations, Findings, Region, polygon_of, understood
from pixelwise.data.folder import find_images
from pixelwise.data.part_names import part_named
from pixelwise.errors import DataError
from pixelwise.optional import optional_module

NAME = "yolo"
ONLY_BOX = "{n} objects have a box and no outline, so they are left out."


def recognises(path: Path) -> bool:
    """Return whether a YAML file, or one in a folder, names classes, with ``labels`` beside it."""
    file = _file(path)
    if file is None:
        return False
    return "names" in read_text(file) and next(file.parent.rglob("labels/**/*.txt"), None) is not None


def _file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() in (".yaml", ".yml") else None
    return next(iter(sorted([*path.glob("*.yaml"), *path.glob("*.yml")])), None)


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read such a folder, or the one of a YAML file. The labels of ``images/a.jpg`` are in ``labels/a.txt``."""
    file, found = _file(path), Findings()
    if file is None:
        raise DataError(f"{path} has no data.yaml, which names YOLO's classes.")
    yaml = optional_module("yaml")
    try:
        told = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise DataError(f"{file} is damaged YAML: {str(error)[:200]}.") from None
    with understood("YOLO", file):
        named = told["names"]
        names = {int(key): str(name) for key, name in (named.items() if isinstance(named, dict) else enumerate(named))}
    found.classes.update(dict.fromkeys(names.values()))
    for image in find_images(file.parent):
        if "images" not in image.parts:
            continue
        at = len(image.parts) - 1 - image.parts[::-1].index("images")
        labels = Path(*image.parts[:at], "labels", *image.parts[at + 1 :]).with_suffix(".txt")
        part = next((p for folder in reversed(image.parent.parts) if (p := part_named(folder))), None)
        regions = _regions(labels, names, found) if labels.is_file() else ()
        found.images.append(AnnotatedImage(image, None, regions, part=part, source=labels, relative=True))
    return found.annotations(NAME, path)


def _regions(path: Path, names: dict[int, str], found: Findings) -> tuple[Region, ...]:
    regions = []
    for number, line in enumerate(read_text(path).splitlines()):
        values = line.split()
        if not values:
            continue
        with understood("YOLO", path, f"line {number + 1}"):
            if len(values) == 5:
                found.note(ONLY_BOX)
                continue
            if int(values[0]) not in names:
                raise ValueError(f"data.yaml names no class {values[0]}")
            shape = polygon_of(np.array(values[1:], np.float64))
            if shape is not None:
                regions.append(Region(names[int(values[0])], shape))
    return tuple(regions)
