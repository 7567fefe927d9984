"""A label map as polygons that people correct: the outline of each region, exact to the pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer

from pixelwise.data.annotations.shapes import Polygon, Ring, paint, ring_area
from pixelwise.geo.raster import Window
from pixelwise.labels import Classes
from pixelwise.optional import optional_module
from pixelwise.parcels.coverage import simplified
from pixelwise.parcels.outlines import outline

IGNORED = "ignore"
"""The name of regions without data; readers take it for no class."""


@dataclass(frozen=True, eq=False)
class TracedRegion:
    """A 4-connected region of one class."""

    name: str
    outer: Ring
    """Pixel corners (column, row), which are whole numbers; the first is not repeated."""
    holes: tuple[Ring, ...]

    @property
    def area(self) -> int:
        """In pixels."""
        return round(ring_area(self.outer) - sum(map(ring_area, self.holes)))

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        (left, top), (right, bottom) = self.outer.min(axis=0).astype(int), self.outer.max(axis=0).astype(int)
        return int(left), int(top), int(right - left), int(bottom - top)

    def pixels(self) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of its box belong to it, for formats that draw holes as bitmaps."""
        left, top, width, height = self.box
        return paint([(Polygon(((self.outer, *self.holes),)), 1)], Window(top, left, height, width), 0) == 1


@dataclass(frozen=True)
class TracedImage:
    """An image and the regions that were predicted on it."""

    path: Path
    place: str
    """Its path in the folder of images, with / between folders."""
    height: int
    width: int
    regions: tuple[TracedRegion, ...]


def trace(
    labels: Integer[np.ndarray, "H W"],
    valid: Bool[np.ndarray, "H W"],
    classes: Classes,
    *,
    background: str | None = "background",
    simplify: float = 0.0,
) -> tuple[TracedRegion, ...]:
    """Return the regions of a label map, in the order of their first pixels.

    Args:
        valid: elsewhere regions are called `IGNORED`.
        background: the class that is not drawn, because readers take what is not drawn for it.
        simplify: pixels by which outlines that regions share may leave those of the pixels; 0: exact.

    Raises:
        MissingExtraError: the extra ``geo`` is not installed.
    """
    names: Mapping[int, str] = {**dict(enumerate(classes.names)), len(classes): IGNORED}
    wanted = np.where(valid, labels.astype(np.int64), len(classes))
    number = optional_module("skimage.measure").label(wanted, background=-1, connectivity=1).astype(np.int64) - 1
    count, (height, width) = int(number.max()) + 1, labels.shape
    _, first = np.unique(number, return_index=True)
    of = wanted.ravel()[first]
    polygons, _ = simplified(_outlines(number, height, width, count), simplify, np.eye(2))
    shapely = optional_module("shapely")
    regions = []
    for polygon, label in zip(polygons, of.tolist(), strict=True):
        if names[label] == background:
            continue
        outer = shapely.get_coordinates(polygon.exterior)[:-1]
        holes = tuple(shapely.get_coordinates(ring)[:-1] for ring in polygon.interiors)
        regions.append(TracedRegion(names[label], outer, holes))
    return tuple(regions)


def _outlines(number: Int[np.ndarray, "H W"], height: int, width: int, count: int) -> np.ndarray:
    def read(window: Window) -> Int[np.ndarray, "h w"]:
        return number[window.top : window.top + window.height, window.left : window.left + window.width]

    return outline(read, height, width, count)
