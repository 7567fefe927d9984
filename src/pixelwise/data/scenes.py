"""An image with its labels, read window by window; and the list of them that a configuration names."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int16, Shaped

from pixelwise.config import DataConfig
from pixelwise.data.folder import find_images, open_mask, pair_masks
from pixelwise.data.problems import Problem, grouped
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, clip_window
from pixelwise.geo.vector import Polygons, count_touching, labels_for_scene, read_polygons
from pixelwise.labels import IGNORE, Classes, make_classes, make_mask_table

RESIDENT_BYTES = 1 << 30
"""Scenes are kept in memory after their first reading when all of them together need no more than this."""

Source = TypeVar("Source", Path, tuple[Path, Path])
Opened = TypeVar("Opened")


@runtime_checkable
class Labels(Protocol):
    """Where the class of a pixel comes from: a mask, or polygons."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE`."""
        ...


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


class Scene:
    """An image and its labels. Pixels without data, or outside of the scene's part of a split, are ignored."""

    def __init__(self, name: str, reader: RasterReader, labels: Labels, *, part: Part | None = None) -> None:
        self.name = name
        self.reader = reader
        self.labels = labels
        self.part = part
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
        """Return a window that may reach beyond the scene; pixels outside mirror the inside and are ignored."""
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
    data: DataConfig, images: Path | None = None, labels: Path | None = None
) -> tuple[Classes, list[Scene]]:
    """Open the images and labels of a configuration; only headers and polygons are read.

    Args:
        data: the ``[data]`` table.
        images, labels: other places than the table's, for validation.

    Raises:
        DataError: a missing or unfitting file.
        ConfigError: classes, values or bands that cannot be, or a column of polygons beside masks.
    """
    images, labels = images or data.images, labels or data.labels
    classes = make_classes(data.classes, data.palette)
    if labels.is_dir() or (
        labels.is_file() and images.is_file() and labels.suffix.lower() in (".png", ".tif", ".tiff")
    ):
        if data.attribute is not None and data.validation_labels is None:
            raise ConfigError(
                f"[data].attribute names {data.attribute!r}, a column of polygons, but {labels} holds masks. Leave it "
                "out and map the masks' values with [data].values, or name a file of polygons in [data].labels."
            )
        table = make_mask_table(classes, data.values, data.ignore)

        def open_pair(pair: tuple[Path, Path]) -> Scene:
            reader = RasterReader(pair[0], bands=data.bands, nodata=data.nodata)
            return Scene(reader.info.path.stem, reader, open_mask(pair[1], reader.info, table))

        scenes = _open_each(pair_masks(images, labels), open_pair)
    elif labels.exists():
        scenes = _scenes_with_polygons(data, classes, find_images(images), labels)
    else:
        raise DataError(f"There is no {labels}. Mend [data].labels: a folder of masks, or a file of polygons.")
    require_same_kind(scenes)
    needed = sum(
        s.info.height * s.info.width * (len(s.reader.bands) * np.dtype(s.info.dtype).itemsize + 3) for s in scenes
    )
    for scene in scenes:
        scene.resident = needed <= RESIDENT_BYTES
    return classes, scenes


def _scenes_with_polygons(data: DataConfig, classes: Classes, images: Sequence[Path], labels: Path) -> list[Scene]:
    polygons = read_polygons(labels, attribute=data.attribute)
    background = classes.names.index(data.background) if data.background in classes.names else IGNORE
    boundary = classes.names.index(data.boundary) if data.boundary in classes.names else None
    class_of = _class_of_polygons(data, classes, polygons, {background, boundary})
    scenes, touched = [], 0
    for reader in _open_each(images, lambda image: RasterReader(image, bands=data.bands, nodata=data.nodata)):
        drawn = labels_for_scene(
            polygons,
            reader.info,
            class_of,
            background=background,
            boundary=boundary,
            boundary_width=data.boundary_width,
        )
        scenes.append(Scene(reader.info.path.stem, reader, drawn))
        touched += count_touching(polygons, reader.info)
    if not touched:
        raise DataError(
            f"None of the {len(polygons.geometries)} polygons in {labels} touches any of the {len(scenes)} scenes in "
            f"{images[0].parent}. Check that both lie in the same place and that their coordinate systems are right."
        )
    return scenes


def _class_of_polygons(
    data: DataConfig, classes: Classes, polygons: Polygons, taken: set[int | None]
) -> Int16[np.ndarray, " n"]:
    free = [index for index in range(len(classes)) if index not in taken]
    if data.attribute is None or polygons.values is None:
        if len(free) != 1:
            raise ConfigError(
                f"[data].classes leaves {len(free)} classes for the polygons of {data.labels} besides background "
                f"and boundary ({', '.join(classes.names[i] for i in free) or 'none'}). Name the column that tells "
                "them apart with [data].attribute, or keep one."
            )
        return np.full(len(polygons.geometries), free[0], np.int16)
    listed = data.values or {name: [name] for name in classes.names}
    index = {str(value): classes.index(name) for name, values in listed.items() for value in values}
    index |= {str(value): IGNORE for value in data.ignore or []}
    strange = sorted({str(value) for value in polygons.values} - set(index))
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise DataError(
            f"{data.labels} has {', '.join(map(repr, strange[:5]))}{more} in the column {data.attribute!r}, which no "
            f"class has. Map it with [data].values, or mark it ignored with ignore = [{strange[0]!r}]."
        )
    return np.array([index[str(value)] for value in polygons.values], np.int16)


def _open_each(sources: Iterable[Source], open_one: Callable[[Source], Opened]) -> list[Opened]:
    """Open all, so that one message names every file that cannot be used."""
    opened: list[Opened] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            opened.append(open_one(source))
        except DataError as problem:
            problems.append(Problem(problem, source if isinstance(source, tuple) else (source,)))
    if problems:
        raise problems[0].error if len(problems) == 1 else DataError(" ".join(grouped(problems)))
    return opened


def require_same_kind(scenes: Sequence[Scene]) -> None:
    """See that all scenes have the bands and the type of the first.

    Raises:
        DataError: one has others.
    """
    first = scenes[0]
    for scene in scenes:
        if scene.reader.bands != first.reader.bands:
            raise DataError(
                f"{scene.info.path} has the bands {list(scene.reader.bands)}, but {first.info.path} has "
                f"{list(first.reader.bands)}. Choose common ones with [data].bands, or separate the files."
            )
        if scene.info.dtype != first.info.dtype:
            raise DataError(
                f"{scene.info.path} is {scene.info.dtype}, but {first.info.path} is {first.info.dtype}. "
                "Their units differ; convert one, or separate the files."
            )
