"""An image with its labels, read window by window; and all those that a configuration names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int16, Shaped

from pixelwise.config import DataConfig, Places, as_places
from pixelwise.data.annotated import annotated_scenes
from pixelwise.data.drawing import Drawing
from pixelwise.data.folder import (
    Naming,
    NoMaskError,
    distinct_names,
    find_images,
    holds_masks,
    label_groups,
    pair_masks,
)
from pixelwise.data.masks import open_mask
from pixelwise.data.problems import Problem, grouped
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.colours import open_image
from pixelwise.geo.raster import RasterInfo, Readable, Window, clip_window, describe
from pixelwise.geo.vector_source import split_layer
from pixelwise.labels import IGNORE, Classes, MaskTable, make_classes, make_mask_table
from pixelwise.machine import free_memory, local_processes
from pixelwise.source_name import is_local

RESIDENT_BYTES = 1 << 30
"""Scenes stay in memory after they were read first, if all of them together need no more than this."""


@runtime_checkable
class Labels(Protocol):
    """Where the class of a pixel comes from: a mask, or polygons."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE`."""
        ...


OpenLabels = Callable[[RasterInfo], Labels]
"""Opens the labels of an image, given its header."""


@runtime_checkable
class Part(Protocol):
    """Which pixels of a scene belong to one side of a split."""

    def read(self, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return True where a pixel belongs to this side."""
        ...


@dataclass(frozen=True)
class Crop:
    """A window of a scene: raw values, where they are valid, and the class of each pixel."""

    values: Shaped[np.ndarray, "C h w"]
    valid: Bool[np.ndarray, "h w"]
    mask: Int16[np.ndarray, "h w"]


@runtime_checkable
class BandReader(Readable, Protocol):
    """An image that windows of some bands are read from."""

    @property
    def bands(self) -> tuple[int, ...]:
        """Their numbers in the file, counted from 1."""
        ...


class Scene:
    """An image and its labels. Pixels without data, or outside the scene's part of a split, are ignored."""

    def __init__(self, name: str, reader: BandReader, labels: Labels, *, part: Part | None = None) -> None:
        self.name = name
        self.reader = reader
        self.labels = labels
        self.part = part
        self.given: str | None = None
        """The part of a split that annotations say it is in."""
        self.notes: tuple[str, ...] = ()
        """What the user should know of its annotations."""
        self.resident = False
        self._whole: Crop | None = None

    @property
    def info(self) -> RasterInfo:
        """The header of the image."""
        return self.reader.info

    @property
    def whole(self) -> Window:
        """The window that covers the scene."""
        return Window(0, 0, self.info.height, self.info.width)

    def read(self, window: Window) -> Crop:
        """Return a window that lies inside the scene.

        Raises:
            DataError: a corrupt file, or a mask value that no class has.
        """
        if not self.resident:
            return self._read(window)
        if self._whole is None:
            self._whole = self._read(self.whole)
        rows, columns = _slices(window)
        whole = self._whole
        return Crop(whole.values[:, rows, columns], whole.valid[rows, columns], whole.mask[rows, columns])

    def read_padded(self, window: Window) -> Crop:
        """Return a window that may reach beyond the scene. Pixels outside mirror those inside, and are ignored."""
        inside, rows, columns = clip_window(window, self.info.height, self.info.width)
        crop = self.read(inside)
        if not any((*rows, *columns)):
            return crop
        return Crop(
            np.pad(crop.values, ((0, 0), rows, columns), mode="symmetric"),
            np.pad(crop.valid, (rows, columns), constant_values=False),
            np.pad(crop.mask, (rows, columns), constant_values=IGNORE),
        )

    def _read(self, window: Window) -> Crop:
        values, valid = self.reader.read(window)
        mask = self.labels.read(window)
        if self.part is not None:
            valid = valid & self.part.read(window)
        return Crop(values, valid, np.where(valid, mask, np.int16(IGNORE)))


def _slices(window: Window) -> tuple[slice, slice]:
    return slice(window.top, window.top + window.height), slice(window.left, window.left + window.width)


def open_scenes(
    data: DataConfig, images: Places | None = None, labels: Places | None = None
) -> tuple[Classes, list[Scene]]:
    """Open the images and labels of a configuration; only headers and polygons are read.

    Args:
        data: the ``[data]`` table.
        images, labels: other places than the table's, for validation.

    Raises:
        DataError: a file that is missing or does not fit.
        ConfigError: classes, values or bands that do not work, or a column of polygons beside masks.
    """
    classes = make_classes(data.classes, data.palette)
    image_places = as_places(images or data.images)
    label_places = data.label_places if labels is None else as_places(labels)
    wanted, drawings, problems = _images_with_labels(data, classes, image_places, label_places)
    headers: list[tuple[RasterInfo, _Wanted]] = []
    for each in wanted:
        with _collected(problems, each.image):
            headers.append((describe(each.image), each))
    # Among photos in colours, a grey one is read with three equal bands.
    colours = any(len(info.colour_bands) == 3 or info.paletted for info, _ in headers)
    scenes: list[Scene] = []
    for info, each in headers:
        with _collected(problems, info.path):
            reader = open_image(info, bands=data.bands, nodata=data.nodata, colours=colours)
            scenes.append(Scene("", reader, each.open_labels(reader.info)))
            scenes[-1].given, scenes[-1].notes = each.part, each.notes
    _raise(problems)
    if not scenes:
        raise DataError(f"No image in {', '.join(map(str, image_places))} has a mask.", code="PW411")
    for drawing in drawings:
        drawing.require_touching()
    require_same_kind(scenes)
    for scene, name in zip(scenes, distinct_names([scene.info.path for scene in scenes]), strict=True):
        scene.name = name
    keep_in_memory(scenes)
    return classes, scenes


@dataclass(frozen=True)
class _Wanted:
    """An image, what opens its labels, and what annotations say of it."""

    image: Path
    open_labels: OpenLabels
    part: str | None = None
    notes: tuple[str, ...] = ()


def _images_with_labels(
    data: DataConfig, classes: Classes, images: tuple[Path, ...], labels: tuple[Path, ...]
) -> tuple[list[_Wanted], list[Drawing], list[Problem]]:
    """Return each image with what opens its labels, the files of polygons, and what is wrong with some images."""
    wanted: list[_Wanted] = []
    drawings: list[Drawing] = []
    problems: list[Problem] = []
    for folders, place in label_groups(images, labels):
        if data.annotations is not None:
            found = annotated_scenes(data, classes, folders, place)
            wanted += [_Wanted(each.path, each.open_labels, each.part, found.notes) for each in found.scenes]
            problems += found.problems
        elif holds_masks(place):
            pairs, unpaired = _pairs(data, classes, folders, place)
            wanted += [_Wanted(*pair) for pair in pairs]
            problems += unpaired
        elif place.exists() or not is_local(place) or split_layer(place)[1] is not None:
            drawings.append(Drawing(data, classes, place, folders))
            wanted += [_Wanted(image, drawings[-1].labels) for folder in folders for image in _images(data, folder)]
        else:
            raise DataError(
                f"There is no {place}. Fix [data].labels: a folder of masks, or a file of polygons.", code="PW401"
            )
    return wanted, drawings, problems


def keep_in_memory(scenes: Sequence[Scene]) -> None:
    """Let scenes stay in memory after they were read, if all of them fit."""
    needed = local_processes() * sum(
        s.info.height * s.info.width * (len(s.reader.bands) * np.dtype(s.info.dtype).itemsize + 3) for s in scenes
    )
    room = free_memory()
    for scene in scenes:
        # Reading a scene takes at least twice the memory that it keeps.
        scene.resident = needed <= min(RESIDENT_BYTES, RESIDENT_BYTES if room is None else room // 4)


def _images(data: DataConfig, folder: Path) -> list[Path]:
    naming = Naming(image=data.image_pattern)
    return [image for image in find_images(folder) if naming.image_name(image) is not None]


def _pairs(
    data: DataConfig, classes: Classes, folders: Sequence[Path], place: Path
) -> tuple[list[tuple[Path, OpenLabels]], list[Problem]]:
    """Find the masks of all images in some folders; return what opens them, and what is wrong."""
    if data.attribute is not None and data.validation_labels is None:
        raise ConfigError(
            f"[data].attribute names {data.attribute!r}, a column of polygons, but {place} holds masks. Leave it "
            "out and map the masks' values with [data].values, or name a file of polygons in [data].labels."
        )
    opened, problems = list[tuple[Path, OpenLabels]](), list[Problem]()
    table = make_mask_table(classes, data.values, data.ignore, data.other_values)
    naming = Naming(data.image_pattern, data.mask_pattern)
    for folder in folders:
        pairs, unpaired = pair_masks(folder, place, naming)
        opened += [(image, partial(_mask_of, mask, table)) for image, mask in pairs]
        skipped = NoMaskError if data.missing_masks == "leave_out" else ()
        problems += [problem for problem in unpaired if not isinstance(problem.error, skipped)]
    return opened, problems


def _mask_of(mask: Path, table: MaskTable, image: RasterInfo) -> Labels:
    try:
        return open_mask(mask, image, table)
    except DataError as error:
        raise _OfMaskError(str(error), mask, error.code) from None


class _OfMaskError(DataError):
    """What is wrong with a mask, or with an image and its mask."""

    def __init__(self, text: str, mask: Path, code: str) -> None:
        super().__init__(text, code=code)
        self.mask = mask


@contextmanager
def _collected(problems: list[Problem], image: Path) -> Iterator[None]:
    """Go on after a file that does not work, so that one message names all of them."""
    try:
        yield
    except DataError as error:
        problems.append(Problem(error, (image, *([error.mask] if isinstance(error, _OfMaskError) else []))))


def _raise(problems: Sequence[Problem]) -> None:
    if len(problems) == 1:
        raise problems[0].error
    if problems:
        codes = {problem.error.code for problem in problems}
        raise DataError(" ".join(grouped(problems)), code=codes.pop() if len(codes) == 1 else "PW416")


def require_same_kind(scenes: Sequence[Scene]) -> None:
    """Check that all scenes have the bands and the type of the first.

    Raises:
        DataError: some have others.
    """
    first, problems = scenes[0], list[Problem]()

    def report(scene: Scene, text: str) -> None:
        problems.append(Problem(DataError(text), (scene.info.path, first.info.path)))

    for scene in scenes:
        if scene.reader.bands != first.reader.bands:
            report(
                scene,
                f"{scene.info.path} has the bands {list(scene.reader.bands)}, but {first.info.path} has "
                f"{list(first.reader.bands)}. Choose common ones with [data].bands, or separate the files.",
            )
        if scene.info.dtype != first.info.dtype:
            report(
                scene,
                f"{scene.info.path} is {scene.info.dtype}, but {first.info.path} is {first.info.dtype}. "
                "Their units differ; convert one, or separate the files.",
            )
    _raise(problems)
