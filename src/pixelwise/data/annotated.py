"""Annotations of other tools as the labels of images: which class a name is, and a mask drawn where it is read."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from pixelwise.config import DataConfig, as_places
from pixelwise.data.annotations import AnnotatedImage, Annotations, MaskImage, read
from pixelwise.data.annotations.boundaries import boundary_zones
from pixelwise.data.annotations.records import UnknownClassesError, paint_on
from pixelwise.data.annotations.shapes import Shape
from pixelwise.data.folder import Naming, find_images
from pixelwise.data.masks import MaskFile, open_mask
from pixelwise.data.problems import Problem
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.labels import IGNORE, Classes, MaskTable, UnknownMaskValuesError, make_mask_table

BLOCK = 2048
"""Side in pixels of what is drawn at once, on a fixed grid, so that a pixel has one class whichever window asks."""
CACHE_BYTES = 1 << 28
"""Of blocks that stay drawn."""
SHOWN = 300
"""Messages list so many missing images."""
BACKGROUND_NAMES = ("_background_",)
"""What tools call what is no object."""


@dataclass(frozen=True)
class AnnotatedScene:
    """An image of annotations, and what opens its labels."""

    path: Path
    open_labels: Callable[[RasterInfo], "DrawnLabels | MaskFile"]
    part: str | None
    """'training', 'validation' or 'test', where the annotations say so."""


@dataclass(frozen=True)
class AnnotatedScenes:
    """What annotations say of the images in some folders."""

    scenes: tuple[AnnotatedScene, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def annotated_scenes(data: DataConfig, classes: Classes, folders: Sequence[Path], place: Path) -> AnnotatedScenes:
    """Read annotations, and say which images they label.

    Args:
        folders: of the images.
        place: a file or folder of annotations.

    Raises:
        DataError: annotations that cannot be read, name classes that nobody maps, or label no image.
        ConfigError: classes that do not work with them.
    """
    told = _read(data, folders, place)
    naming = Naming(image=data.image_pattern)
    labelled = [image for image in told.images if image.annotated and naming.image_name(image.path) is not None]
    notes, problems = list(told.notes), _missing(data, told, place)
    if told.missing and not problems:
        notes.append(f"{len(told.missing)} files that {place} names are not there, so they are left out.")
    bare = _bare_images(told, folders, naming)
    background = classes.names.index(data.background) if data.background in classes.names else IGNORE
    if bare and data.unannotated == "background":
        if background == IGNORE:
            raise ConfigError(
                f"[data].unannotated is 'background', but [data].classes has no {data.background!r}. Add this class, "
                "or name the one that is the background with [data].background.",
                code="PW311",
            )
        labelled += bare
    elif bare:
        notes.append(
            f"Nothing is drawn on {len(bare)} of {len(bare) + len(labelled)} images, such as {bare[0].path}, so they "
            "are left out. If they hold nothing but background, write unannotated = 'background' below [data]."
        )
    if not labelled and not problems:
        raise DataError(f"{place} has no labels for any image. {' '.join(notes)}".strip(), code="PW432")
    opener = _Opener(data, classes, told, background, place)
    scenes = tuple(AnnotatedScene(image.path, partial(opener.open, image), image.part) for image in labelled)
    return AnnotatedScenes(scenes, tuple(problems), tuple(notes))


def _read(data: DataConfig, folders: Sequence[Path], place: Path) -> Annotations:
    if data.validation_images is None or data.validation_labels is not None:
        return read(place, data.annotation_format, images=folders, attribute=data.attribute)
    # One file describes the images of both parts. Those of the other part are there, and not wanted here.
    others = [*as_places(data.images), *as_places(data.validation_images)]
    everywhere = list(dict.fromkeys([*folders, *others]))
    told = read(place, data.annotation_format, images=everywhere, attribute=data.attribute)
    own = tuple(image for image in told.images if any(image.path.is_relative_to(folder) for folder in folders))
    return replace(told, images=own)


def _missing(data: DataConfig, told: Annotations, place: Path) -> list[Problem]:
    if not told.missing or data.missing_images == "leave_out":
        return []
    listed = ", ".join(told.missing[:SHOWN]) + (
        f" and {len(told.missing) - SHOWN} more" if len(told.missing) > SHOWN else ""
    )
    said = (
        f"{place} names {len(told.missing)} files that are not there: {listed}. Add them, name their folder in "
        "[data].images, or leave them out with missing_images = 'leave_out' below [data]."
    )
    return [Problem(DataError(said), (place,))]


def _bare_images(told: Annotations, folders: Sequence[Path], naming: Naming) -> list[AnnotatedImage]:
    """Return the images on which nothing is drawn: those that are described so, and those that nothing describes."""
    bare = [image for image in told.images if not image.annotated]
    if any(image.mask is not None for image in told.images):
        # Masks lie among the images, so what is not described may be one.
        return bare
    known = {image.path for image in told.images}
    others = [path for folder in folders if folder.is_dir() for path in find_images(folder) if path not in known]
    return bare + [AnnotatedImage(path) for path in others if naming.image_name(path) is not None]


class _Opener:
    """Opens the labels of images of one file of annotations."""

    def __init__(self, data: DataConfig, classes: Classes, told: Annotations, background: int, place: Path) -> None:
        self.data, self.classes, self.told, self.background = data, classes, told, background
        self.index_of = class_indices(data, classes, told)
        _require_known(told, self.index_of, place)
        named = {region.name for image in told.images for region in image.regions}
        # Boundaries that people drew as regions are theirs.
        boundary = classes.names.index(data.boundary) if data.boundary in classes.names else None
        self.boundary = None if boundary in {self.index_of[name] for name in named} else boundary
        self.tables: dict[tuple, MaskTable] = {}
        self.cache = BlockCache(CACHE_BYTES)

    def open(self, image: AnnotatedImage, info: RasterInfo) -> "DrawnLabels | MaskFile":
        """Return the labels of an image, given its header."""
        if image.mask is None:
            shapes = image.values(self.index_of, (info.height, info.width))
            if self.boundary is not None:
                zones = boundary_zones([shape for shape, _ in shapes], info, self.data.boundary_width)
                shapes += [(zone, self.boundary) for zone in zones]
            size = None if image.relative or image.size == (info.height, info.width) else image.size
            return DrawnLabels(info.path, shapes, info.height, info.width, self.background, self.cache, size)
        mask = image.mask
        key = (tuple((mask.names or {}).items()), mask.colours, mask.ignored)
        if key not in self.tables:
            self.tables[key] = mask_table(self.data, self.classes, mask, self.index_of)
        return open_mask(mask.path, info, self.tables[key])


def class_indices(data: DataConfig, classes: Classes, told: Annotations) -> dict[str, int]:
    """Return the index of each name that annotations may use, and -1 for those that are ignored.

    Raises:
        ConfigError: regions without a class, while [data].classes leaves several for them.
    """
    index: dict[str, int] = {}
    for name in told.ignorable:
        index[name] = IGNORE
    if data.background in classes.names:
        index |= dict.fromkeys(BACKGROUND_NAMES, classes.names.index(data.background))
    index |= {name: i for i, name in enumerate(classes.names)}
    for name, values in (data.values or {}).items():
        index |= {str(value): classes.index(name) for value in values}
    index |= {str(value): IGNORE for value in data.ignore or []}
    if any(not region.name for image in told.images for region in image.regions):
        taken = {data.background, data.boundary}
        free = [name for name in classes.names if name not in taken]
        if len(free) != 1:
            raise ConfigError(
                f"{told.path} gives its regions no class, and [data].classes leaves {len(free)} for them besides "
                f"background and boundary ({', '.join(free) or 'none'}). Keep one, or name the attribute that holds "
                "the class with [data].attribute.",
                code="PW311",
            )
        index[""] = classes.names.index(free[0])
    return index


def _require_known(told: Annotations, index_of: Mapping[str, int], place: Path) -> None:
    strange = Counter(
        name for image in told.images for name in {region.name for region in image.regions} if name not in index_of
    )
    if strange:
        raise UnknownClassesError(dict(strange.most_common()), place, list(index_of))


def mask_table(data: DataConfig, classes: Classes, mask: MaskImage, index_of: Mapping[str, int]) -> MaskTable:
    """Return how the values of a mask become classes: by their names, where these are among the configuration's.

    Raises:
        ConfigError: as `make_mask_table` says.
    """
    names, listed = mask.names or {}, [each for values in (data.values or {}).values() for each in values]
    raw = any(not isinstance(each, str) or each.startswith("#") for each in listed)
    if raw or not names:
        return make_mask_table(classes, data.values, data.ignore, data.other_values)
    if not any(name in index_of for name in names.values()):
        return make_mask_table(classes, others=data.other_values)
    known = {value: index_of[name] for value, name in names.items() if name in index_of}
    pairs = tuple((value, index) for value, index in known.items() if index != IGNORE)
    ignored = [value for value, index in known.items() if index == IGNORE]
    ignored += [
        value for value in (*mask.ignored, *(data.ignore or [])) if isinstance(value, int) and value not in known
    ]
    return NamedTable(pairs, tuple(ignored), mask.colours, classes, data.other_values, names=dict(names))


@dataclass(frozen=True, kw_only=True)
class NamedTable(MaskTable):
    """A table whose raw values have names in a format of annotations."""

    names: Mapping[int, str]

    def to_indices(self, mask: np.ndarray, where: str, *, empty: np.ndarray | None = None) -> np.ndarray:
        """Map a raw mask, as `MaskTable` does; what is unknown is named.

        Raises:
            DataError: values that have a name and no class, or neither.
        """
        try:
            return super().to_indices(mask, where, empty=empty)
        except UnknownMaskValuesError as error:
            found = {self.names[value]: 1 for value in error.pixels[where] if value in self.names}
            if not found:
                raise
            mapped = {self.names[value]: 1 for value, _ in self.values if value in self.names}
            raise UnknownClassesError(found, Path(where), list(mapped)) from None


class BlockCache:
    """Blocks that were drawn, the latest used ones, up to so many bytes. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._blocks: OrderedDict[tuple[Path, int, int], Int16[np.ndarray, "h w"]] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def block(
        self, key: tuple[Path, int, int], draw: Callable[[], Int16[np.ndarray, "h w"]]
    ) -> Int16[np.ndarray, "h w"]:
        """Return a block, which is drawn if it is not there."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key]
        drawn = draw()
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = drawn
                self._bytes += drawn.nbytes
            while self._bytes > self.limit and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes
        return drawn


@dataclass(frozen=True, eq=False)
class DrawnLabels:
    """The labels that shapes give an image; any window of it is drawn when asked for, by any thread."""

    path: Path
    shapes: Sequence[tuple[Shape, int]]
    """In pixels of the image, with the index of each one's class; later ones lie on top."""
    height: int
    width: int
    outside: int
    """What pixels are on which nothing is drawn."""
    cache: BlockCache
    drawn_on: tuple[int, int] | None = None
    """Height and width of the image that people drew on, if it had another size."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE` in a window inside the image."""
        bottom, right = window.top + window.height, window.left + window.width
        tops = range(window.top // BLOCK * BLOCK, bottom, BLOCK)
        lefts = range(window.left // BLOCK * BLOCK, right, BLOCK)
        rows = [[self._block(top, left) for left in lefts] for top in tops]
        drawn = rows[0][0] if len(rows) == len(rows[0]) == 1 else np.block(rows)
        return drawn[window.top - tops[0] : bottom - tops[0], window.left - lefts[0] : right - lefts[0]].copy()

    def _block(self, top: int, left: int) -> Int16[np.ndarray, "h w"]:
        window = Window(top, left, min(BLOCK, self.height - top), min(BLOCK, self.width - left))
        return self.cache.block((self.path, top, left), lambda: paint_on(self.path, self.shapes, window, self.outside))
