"""Lists of files, as PaddleSeg and mmsegmentation have them: ``train.txt``, ``val.txt`` and ``test.txt``.

A line has an image and its mask, between spaces, tabs or a comma, or an image alone, whose mask has its name in a
folder of masks. Paths count from the list's folder, or from those of the images. ``labels.txt`` names the values.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pixelwise.data.annotations.json_text import head_of, read_text
from pixelwise.data.annotations.mask_files import looks_like_mask
from pixelwise.data.annotations.records import AnnotatedImage, Annotations, Findings, MaskImage
from pixelwise.data.folder import MASK_ENDINGS, find_images
from pixelwise.data.part_names import part_in_name
from pixelwise.errors import DataError
from pixelwise.geo.drivers import IMAGE_SUFFIXES

NAME = "lists"


def recognises(path: Path) -> bool:
    """Return whether a text file holds names of images, or a folder has such a list for a part."""
    files = _files(path)
    if any(_names_images(file) for file in files):
        return True
    first = [lines[0] for file in files if path.is_dir() and (lines := _lines(file))]
    # Names without suffixes, as mmsegmentation has them: there must be an image and a mask of this name.
    return bool(first) and first[0] in _images_below(path) and _mask_named(first[0], _masks_below(path)) is not None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".txt", ".lst", ".list", ".csv") else []
    places = (path, path / "splits", path / "split", path / "lists")
    found = [file for folder in places for file in sorted(folder.glob("*.txt")) if part_in_name(file.stem)]
    # VOC's list of two parts would put images into both.
    return [file for file in found if "trainval" not in file.stem.lower()]


def _names_images(path: Path) -> bool:
    lines = [line for line in head_of(path).splitlines()[:-1] or head_of(path).splitlines() if line.strip()]
    return bool(lines) and any(suffix in lines[0].lower() for suffix in IMAGE_SUFFIXES)


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read a list, or those of a folder."""
    found, files = Findings(), _files(path)
    top = path if path.is_dir() else path.parent
    names_file = next((top / name for name in ("labels.txt", "class_names.txt") if (top / name).is_file()), None)
    names = dict(enumerate(_lines(names_file))) if names_file else None
    found.classes.update(dict.fromkeys((names or {}).values()))
    masks: dict[str, list[Path]] | None = None
    stems: dict[str, Path] | None = None
    for file in files or [path]:
        roots = [file.parent, top, *(folder for folder in folders if folder.is_dir())]
        for line in _lines(file):
            image, mask = _split(line, roots)
            if image is None:
                stems = stems if stems is not None else _images_below(top)
                image = stems.get(line)
            if image is None:
                found.missing.append(line)
                continue
            if mask is None:
                masks = masks if masks is not None else _masks_below(top)
                mask = _mask_of(image, masks)
            elif not mask.is_file():
                found.missing.append(str(mask))
                continue
            drawn = MaskImage(mask, names, ignored=(255,)) if mask is not None else None
            part = part_in_name(file.stem)
            found.images.append(AnnotatedImage(image, mask=drawn, part=part, source=file))
    return found.annotations(NAME, path)


def _lines(path: Path) -> list[str]:
    lines = read_text(path).lstrip("\ufeff").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _split(line: str, roots: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """Return the image and the mask of a line; no mask, where it names none; no image, where it is not there."""
    whole = _placed(line, roots)
    if whole is not None:
        return whole, None
    for first, second in _halves(line):
        image = _placed(first, roots)
        if image is not None:
            return image, _placed(second, roots) or roots[0] / second
    return None, None


def _halves(line: str) -> Iterator[tuple[str, str]]:
    # Names may hold the separator, so each place is tried.
    for separator in ("\t", ",", ";", " "):
        for match in re.finditer(re.escape(separator), line):
            first, second = line[: match.start()].strip(), line[match.end() :].strip()
            if first and second:
                yield first, second


def _placed(name: str, roots: Sequence[Path]) -> Path | None:
    for root in roots:
        for form in (name, *(f"{name}{suffix}" for suffix in (".jpg", ".png", ".tif"))):
            path = root / form.replace("\\", "/")
            try:
                if not path.is_file():
                    continue
            except (OSError, ValueError):
                continue
            if not any(path.resolve().is_relative_to(each.resolve()) for each in roots):
                raise DataError(f"A list names {name!r}, which leads out of {root}. Name that folder in [data].images.")
            return path
    return None


def _images_below(top: Path) -> dict[str, Path]:
    return {path.stem: path for path in find_images(top) if not looks_like_mask(path, top)}


def _masks_below(top: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in find_images(top):
        if looks_like_mask(path, top):
            found.setdefault(path.stem, []).append(path)
    return found


def _mask_of(image: Path, masks: dict[str, list[Path]]) -> Path | None:
    return _mask_named(image.stem, masks, image)


def _mask_named(stem: str, masks: dict[str, list[Path]], image: Path | None = None) -> Path | None:
    for ending in MASK_ENDINGS:
        found = [path for path in masks.get(stem + ending, []) if path != image]
        # In folders of parts, masks lie as images do.
        near = [path for path in found if image is not None and path.parent.name == image.parent.name] or found
        if near:
            return near[0]
    return None
