"""Pascal VOC: ``JPEGImages``, palette masks in ``SegmentationClass``, and lists in ``ImageSets/Segmentation``.

A mask holds an index per pixel, and 255 along borders, which counts nowhere. CVAT's "Segmentation mask 1.1" has the
same folders with coloured masks and ``labelmap.txt``, and LabelMe's converter has ``class_names.txt``.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pixelwise.data.annotations.image_index import ImageIndex
from pixelwise.data.annotations.json_text import read_text
from pixelwise.data.annotations.mask_files import by_stem
from pixelwise.data.annotations.records import (
    ALWAYS_IGNORED,
    AnnotatedImage,
    Annotations,
    Colour,
    Findings,
    MaskImage,
    understood,
)
from pixelwise.data.folder import find_images
from pixelwise.data.part_names import WORDS
from pixelwise.errors import DataError

NAME = "voc"
MASKS, IMAGES, LISTS = "SegmentationClass", "JPEGImages", "ImageSets/Segmentation"
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Of the challenge's own data, by index (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/segexamples/index.html)."""
BORDER, BORDER_COLOUR = 255, 0xE0E0C0
"""The index of pixels along borders, and its colour in VOC's palette."""


def recognises(path: Path) -> bool:
    """Return whether a folder has VOC's folder of masks, itself or one or two levels below (``VOCdevkit/VOC2012``)."""
    return path.is_dir() and _root(path) is not None


def _root(path: Path) -> Path | None:
    for pattern in ("", "*/", "*/*/"):
        found = sorted(path.glob(f"{pattern}{MASKS}"))
        if found:
            return found[-1].parent
    return None


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read VOC's folders. Without lists of names the classes are those of the challenge."""
    root, found = _root(path), Findings(ignorable=ALWAYS_IGNORED | {"void", "border"})
    if root is None:
        raise DataError(f"{path} has no folder {MASKS}, so it is not in the form of Pascal VOC.")
    colours = _labelmap(root / "labelmap.txt")
    if colours is not None:
        found.classes.update(colours)
        names = {r << 16 | g << 8 | b: name for name, (r, g, b) in colours.items()}
        ignored = () if BORDER_COLOUR in names else (BORDER_COLOUR,)
        mask = MaskImage(root, names, colours=True, ignored=ignored)
    else:
        names = dict(enumerate(_class_names(root) or CLASSES))
        found.classes.update(dict.fromkeys(names.values()))
        mask = MaskImage(root, names, ignored=(BORDER,))
    masks, parts = by_stem(find_images(root / MASKS)), _parts(root / LISTS)
    own = tuple(folder for folder in folders if folder not in (path, root)) or (root / IMAGES,)
    if own == (root / IMAGES,) and not own[0].is_dir():
        raise DataError(f"{root} has no folder {IMAGES}. Name the folder of images with [data].images.", code="PW432")
    index = ImageIndex(own)
    listed = dict.fromkeys([*masks, *parts])
    for name in listed:
        image = index.find(name)
        if image is None:
            found.missing.append(name)
            continue
        drawn = replace(mask, path=masks[name]) if name in masks else None
        found.images.append(AnnotatedImage(image, mask=drawn, part=parts.get(name), source=masks.get(name)))
    return found.annotations(NAME, path, index)


def _labelmap(path: Path) -> dict[str, Colour] | None:
    if not path.is_file():
        return None
    colours: dict[str, Colour] = {}
    for line in read_text(path).splitlines():
        if line.strip() and not line.startswith("#"):
            with understood("a label map of VOC", path, repr(line)):
                name, colour = line.split(":")[:2]
                red, green, blue = map(int, colour.split(","))
                colours[name.strip()] = red, green, blue
    return colours


def _class_names(root: Path) -> list[str]:
    """Return the names that LabelMe's converter lists beside its folders; empty, where there is no list."""
    path = root / "class_names.txt"
    lines = read_text(path).splitlines() if path.is_file() else []
    # What is ignored is 255 in the masks.
    return [line.strip() for line in lines if line.strip() and line.strip() != "__ignore__"]


def _parts(folder: Path) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("train", "val", "test"):
        path = folder / f"{name}.txt"
        for line in read_text(path).splitlines() if path.is_file() else []:
            if line.strip():
                found.setdefault(line.split()[0], WORDS[name])
    return found
