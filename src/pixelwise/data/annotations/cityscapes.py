"""Cityscapes (https://www.cityscapes-dataset.com): ``*_leftImg8bit.png`` beside ``*_gtFine_labelIds.png`` and others.

Of ids, training ids and polygons, what is there first in this order is read. Later polygons lie on top.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pixelwise.data.annotations.json_text import load_json
from pixelwise.data.annotations.records import (
    ALWAYS_IGNORED,
    AnnotatedImage,
    Annotations,
    Colour,
    Findings,
    MaskImage,
    Region,
    polygon_of,
    understood,
)
from pixelwise.data.folder import find_images
from pixelwise.data.part_names import part_named
from pixelwise.errors import DataError

NAME = "cityscapes"
IMAGE = "_leftImg8bit"
KINDS = ("_gtFine_", "_gtCoarse_")
VOID = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground"),
    *("parking", "rail track", "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer", "license plate"),
)
"""Names that the benchmark's evaluation ignores."""
LABELS: tuple[tuple[str, int, int, Colour], ...] = (
    ("unlabeled", 0, 255, (0, 0, 0)),
    ("ego vehicle", 1, 255, (0, 0, 0)),
    ("rectification border", 2, 255, (0, 0, 0)),
    ("out of roi", 3, 255, (0, 0, 0)),
    ("static", 4, 255, (0, 0, 0)),
    ("dynamic", 5, 255, (111, 74, 0)),
    ("ground", 6, 255, (81, 0, 81)),
    ("road", 7, 0, (128, 64, 128)),
    ("sidewalk", 8, 1, (244, 35, 232)),
    ("parking", 9, 255, (250, 170, 160)),
    ("rail track", 10, 255, (230, 150, 140)),
    ("building", 11, 2, (70, 70, 70)),
    ("wall", 12, 3, (102, 102, 156)),
    ("fence", 13, 4, (190, 153, 153)),
    ("guard rail", 14, 255, (180, 165, 180)),
    ("bridge", 15, 255, (150, 100, 100)),
    ("tunnel", 16, 255, (150, 120, 90)),
    ("pole", 17, 5, (153, 153, 153)),
    ("polegroup", 18, 255, (153, 153, 153)),
    ("traffic light", 19, 6, (250, 170, 30)),
    ("traffic sign", 20, 7, (220, 220, 0)),
    ("vegetation", 21, 8, (107, 142, 35)),
    ("terrain", 22, 9, (152, 251, 152)),
    ("sky", 23, 10, (70, 130, 180)),
    ("person", 24, 11, (220, 20, 60)),
    ("rider", 25, 12, (255, 0, 0)),
    ("car", 26, 13, (0, 0, 142)),
    ("truck", 27, 14, (0, 0, 70)),
    ("bus", 28, 15, (0, 60, 100)),
    ("caravan", 29, 255, (0, 0, 90)),
    ("trailer", 30, 255, (0, 0, 110)),
    ("train", 31, 16, (0, 80, 100)),
    ("motorcycle", 32, 17, (0, 0, 230)),
    ("bicycle", 33, 18, (119, 11, 32)),
    ("license plate", -1, 255, (0, 0, 142)),
)
"""Name, id, training id and colour, as the data set's authors publish them (cityscapesScripts, labels.py)."""


def recognises(path: Path) -> bool:
    """Return whether a folder has a file whose name ends as Cityscapes' labels do."""
    return path.is_dir() and next(_labels(path, "labelIds.png", "labelTrainIds.png", "polygons.json"), None) is not None


def _labels(path: Path, *endings: str) -> Iterator[Path]:
    for kind in KINDS:
        for ending in endings:
            yield from path.rglob(f"*{kind}{ending}")


def read(path: Path, folders: Sequence[Path], attribute: str | None) -> Annotations:
    """Read Cityscapes' folders: ``leftImg8bit`` and ``gtFine`` (or ``gtCoarse``) below one, or beside each other."""
    found = Findings(ignorable=ALWAYS_IGNORED | set(VOID))
    found.classes.update({name: colour for name, _, _, colour in LABELS})
    labels: dict[str, Path] = {}
    for ending in ("polygons.json", "labelTrainIds.png", "labelIds.png"):
        # The last one stands.
        labels.update({_name(file): file for file in sorted(_labels(path, ending))})
    own = [folder for folder in folders if folder != path] or [_images_beside(path)]
    images = {image.stem.removesuffix(IMAGE): image for folder in own for image in find_images(folder)}
    images = {name: image for name, image in images.items() if not any(kind in image.name for kind in KINDS)}
    for name, image in images.items():
        part = next((part for folder in reversed(image.parts[:-1]) if (part := part_named(folder))), None)
        found.images.append(_described(image, labels.get(name), part))
    found.missing += [str(file) for name, file in labels.items() if name not in images]
    return found.annotations(NAME, path)


def _name(path: Path) -> str:
    return next(path.name.partition(kind)[0] for kind in KINDS if kind in path.name)


def _images_beside(path: Path) -> Path:
    """Return the folder of images: below ``gtFine``'s parent, where that was named."""
    for folder in (path / "leftImg8bit", path, path.parent / "leftImg8bit"):
        if folder.is_dir() and next(folder.rglob(f"*{IMAGE}.*"), None) is not None:
            return folder
    raise DataError(
        f"There are no images NAME{IMAGE}.png in or beside {path}. Name their folder with [data].images.", code="PW432"
    )


def _described(image: Path, labels: Path | None, part: str | None) -> AnnotatedImage:
    if labels is None:
        return AnnotatedImage(image, part=part)
    if labels.suffix == ".png":
        train = labels.stem.endswith("labelTrainIds")
        names = {train_id if train else own: name for name, own, train_id, _ in LABELS if not train or train_id != 255}
        # In 8 bits -1 is 255.
        mask = MaskImage(labels, names, ignored=(255,))
        return AnnotatedImage(image, mask=mask, part=part, source=labels)
    told = load_json(labels)
    known = {name for name, *_ in LABELS}
    with understood("Cityscapes", labels):
        regions = []
        for item in told["objects"]:
            shape = None if item.get("deleted") else polygon_of(item["polygon"])
            # A group of cars that could not be told apart is 'cargroup'.
            name = str(item["label"])
            name = name if name in known else name.removesuffix("group")
            if shape is not None:
                regions.append(Region(name, shape))
        size = int(told["imgHeight"]), int(told["imgWidth"])
    return AnnotatedImage(image, size, tuple(regions), part=part, source=labels)
