"""Roboflow's folders ``train``, ``valid`` and ``test``, each with its images.

Beside the images is ``_annotations.coco.json`` (export as COCO), or a mask ``IMAGE_mask.png`` for each and
``_classes.csv`` with their values (export as PNG mask semantic segmentation).
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.annotations.coco import read_file
from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import read_text
from pixelwise.data.annotations.mask_files import add_pairs, by_stem
from pixelwise.data.annotations.records import Annotations, Findings, MaskImage, understood
from pixelwise.data.folder import find_images
from pixelwise.data.part_names import part_named

NAME = "roboflow"
COCO, CLASSES = "_annotations.coco.json", "_classes.csv"


def recognises(path: Path) -> bool:
    """Return whether a folder, or one of its folders ``train``, ``valid`` and ``test``, has Roboflow's files."""
    return path.is_dir() and bool(_folders(path))


def _folders(path: Path) -> list[Path]:
    below = sorted(each for each in path.iterdir() if each.is_dir() and part_named(each.name))
    return [each for each in (path, *below) if (each / COCO).is_file() or (each / CLASSES).is_file()]


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read Roboflow's folders, or one of them. Images lie beside their annotations."""
    found = Findings()
    for folder in _folders(path):
        part = part_named(folder.name)
        if (folder / COCO).is_file():
            read_file(folder / COCO, ImageIndex([folder]), found, part=part)
            continue
        names = _classes(folder / CLASSES)
        found.classes.update(dict.fromkeys(names.values()))
        files = find_images(folder)
        masks = by_stem([file for file in files if file.suffix.lower() == ".png"], "_mask")
        images = by_stem([file for file in files if file not in set(masks.values())])
        add_pairs(found, images, masks, MaskImage(folder, names), part)
    return found.annotations(NAME, path)


def _classes(path: Path) -> dict[int, str]:
    rows = csv.reader(io.StringIO(read_text(path).lstrip("\ufeff")))
    with understood("Roboflow's classes", path):
        # Below a header: the value, and the name.
        return {int(row[0]): row[1].strip() for row in list(rows)[1:] if row}
