"""The formats of annotations: one table, and reading by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixelwise.data.annotations import (
    cityscapes,
    coco,
    cvat,
    huggingface,
    label_studio,
    labelme,
    lists,
    roboflow,
    supervisely,
    via,
    voc,
    yolo,
)
from pixelwise.data.annotations.records import Annotations
from pixelwise.data.annotations.traced import TracedImage
from pixelwise.errors import DataError, PixelwiseError
from pixelwise.labels import Classes


@dataclass(frozen=True)
class Format:
    """How a format is told from others, and read."""

    recognises: Callable[[Path], bool]
    """Whether a file or folder is of this format, by its name and its beginning."""
    read: Callable[[Path, Sequence[Path], str | None], Annotations]
    """Reads a file or folder, given the folders of images and the attribute that names the class."""


FORMATS: dict[str, Format] = {
    each.NAME: Format(each.recognises, each.read)
    # Those with the clearest signs come first.
    for each in (
        *(roboflow, voc, cityscapes, supervisely, yolo, coco),
        *(labelme, cvat, label_studio, via, huggingface, lists),
    )
}


WRITERS: dict[str, Callable[[Path, Sequence[TracedImage], Classes], list[Path]]] = {
    each.NAME: each.write for each in (coco, labelme, cvat, label_studio)
}
"""Format -> writes predicted regions of images into a folder, for people to correct, and returns the files."""

WRITTEN = {
    "coco": ("annotations.json",),
    "cvat": ("annotations.xml",),
    "label-studio": ("label-studio.json", "label-config.xml"),
}
"""Format -> the files that its writer makes; that of LabelMe makes one for each image."""


def recognise(path: str | Path) -> str | None:
    """Return the format of a file or folder of annotations; None if it is of none that is known."""
    path = Path(path)
    return next((name for name, each in FORMATS.items() if path.exists() and _is_of(each, path)), None)


def _is_of(format: Format, path: Path) -> bool:
    try:
        return format.recognises(path)
    except (PixelwiseError, OSError):
        # A damaged file, or one without permission, is of no known format.
        return False


def read(
    path: str | Path,
    format: str | None = None,
    *,
    images: Sequence[Path] = (),
    attribute: str | None = None,
) -> Annotations:
    """Read a file or folder of annotations. Images are not opened.

    Args:
        format: one of `FORMATS`; None: `recognise` finds it.
        images: the folders that hold the images; empty: the annotations' own folder.
        attribute: VIA, CVAT, Label Studio: the attribute or field that names the class.

    Raises:
        DataError: no such file, a format that is not known, or a damaged file.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no {path}. Fix [data].annotations: a file or a folder of annotations.", code="PW401")
    name = format or recognise(path)
    if name is None:
        raise DataError(
            f"{path} is in no format of annotations that is known ({', '.join(FORMATS)}). Name it with "
            "[data].annotation_format, or convert it.",
            code="PW431",
        )
    if name not in FORMATS:
        raise DataError(f"There is no format {name!r}. Known are {', '.join(FORMATS)}.", code="PW431")
    folders = tuple(images) or (path if path.is_dir() else path.parent,)
    try:
        return FORMATS[name].read(path, folders, attribute)
    except DataError as error:
        looks = recognise(path) if format is not None else name
        if looks in (None, name):
            if error.code == DataError.code:
                error.code = "PW430"
            raise
        raise DataError(f"{error} It looks like {looks!r}; annotation_format says {name!r}.", code="PW430") from None
