"""Masks beside images, as several formats have them: which file is the mask of which image."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pixelwise.data.annotations.records import AnnotatedImage, Findings, MaskImage

MASK_WORDS = ("mask", "label", "annotation", "ann", "gt", "seg", "truth", "target")
"""Words in the names of folders and files of masks."""


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
    return any(word in path.relative_to(top).as_posix().lower() for word in MASK_WORDS)
