"""Masks beside images, as several formats have them: which file is the mask of which image."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pixelwise.data.annotations.records import AnnotatedImage, Findings, MaskImage

MASK_WORDS = r"mask|label|lbl|annot|truth|groundtruth|target|segm|gt|(ann|anno|seg)$"
"""Beginnings of words in the names of folders, files and columns of masks."""


def by_stem(paths: Iterable[Path], ending: str = "") -> dict[str, Path]:
    """Return files by their stems without an ending; files whose stems do not end so are left out."""
    return {path.stem.removesuffix(ending): path for path in paths if path.stem.endswith(ending)}


def add_pairs(
    found: Findings,
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    mask: MaskImage,
    part: str | None,
) -> None:
    """Add each image with its mask to the findings; masks without an image are missing ones.

    Args:
        images, masks: by a name that both share.
        mask: what its values mean; the path is filled in.
    """
    for name, path in images.items():
        own = MaskImage(masks[name], mask.names, mask.colours, mask.ignored) if name in masks else None
        found.images.append(AnnotatedImage(path, mask=own, part=part, source=masks.get(name)))
    found.missing += [str(masks[name]) for name in masks if name not in images]


def looks_like_mask(path: Path, top: Path) -> bool:
    """Return whether a word in a path below ``top`` says that it is a mask."""
    return named_as_mask(path.relative_to(top).as_posix())


def named_as_mask(name: str) -> bool:
    """Return whether a word in a name says that it is of masks: ``ann_dir``, ``gtFine``, but not ``channels``."""
    return any(re.match(MASK_WORDS, word) for word in re.split(r"[^a-z]+", name.lower()))
