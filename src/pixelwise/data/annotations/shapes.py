"""What people draw: polygons, ellipses and bitmaps, in pixels.

A whole number is the corner of a pixel, so the centre of the first pixel is (0.5, 0.5). A pixel belongs to a shape that
holds its centre. Of a part of a polygon, that is what an odd number of its rings encloses (GDAL's rule).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float64, Int16
from rasterio.features import rasterize

from pixelwise.errors import DataError
from pixelwise.geo.raster import Window

Ring = Float64[np.ndarray, "_ 2"]
"""The corners (column, row) of a closed line; the last need not be the first again."""
Bounds = tuple[float, float, float, float]
"""Left, top, right, bottom."""

LARGEST_BITMAP = 1 << 31
"""Pixels; files that say more are damaged."""


@dataclass(frozen=True, eq=False)
class Polygon:
    """One or several parts, each an outer ring and its holes. Parts may overlap."""

    parts: tuple[tuple[Ring, ...], ...]

    @cached_property
    def bounds(self) -> Bounds:
        """The smallest rectangle around it."""
        xy = np.concatenate([part[0] for part in self.parts])
        return (*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist())

    @cached_property
    def area(self) -> float:
        """In pixels; overlapping parts count twice."""
        return sum(ring_area(part[0]) - sum(map(ring_area, part[1:])) for part in self.parts)

    def scaled(self, x: float, y: float) -> "Polygon":
        """Return it in an image that is ``x`` times as wide and ``y`` times as high."""
        return Polygon(tuple(tuple(ring * (x, y) for ring in part) for part in self.parts))

    def geometries(self) -> list[dict[str, Any]]:
        """Return each part as GeoJSON."""
        closed = [[np.concatenate([ring, ring[:1]]).tolist() for ring in part] for part in self.parts]
        return [{"type": "Polygon", "coordinates": rings} for rings in closed]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse, turned clockwise by ``degrees`` around its centre."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    degrees: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """A rectangle around it."""
        reach = max(self.radius_x, self.radius_y)
        return self.x - reach, self.y - reach, self.x + reach, self.y + reach

    @property
    def area(self) -> float:
        """In pixels."""
        return math.pi * self.radius_x * self.radius_y

    def scaled(self, x: float, y: float) -> "Ellipse":
        """Return it in an image that is ``x`` times as wide and high (``y`` is about ``x``)."""
        return replace(self, x=self.x * x, y=self.y * y, radius_x=self.radius_x * x, radius_y=self.radius_y * y)

    def inside(self, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window have their centres in it."""
        x = np.arange(window.left, window.left + window.width)[None, :] + 0.5 - self.x
        y = np.arange(window.top, window.top + window.height)[:, None] + 0.5 - self.y
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        along, across = x * cos + y * sin, y * cos - x * sin
        return (along / max(self.radius_x, 1e-9)) ** 2 + (across / max(self.radius_y, 1e-9)) ** 2 <= 1


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Pixels of a rectangle, decoded when they are asked for."""

    left: int
    top: int
    width: int
    height: int
    decode: Callable[[], Bool[np.ndarray, "height width"]]
    area: float = 0.0
    """In pixels, where the file tells it."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """The image is so many times as wide and high as what the bitmap was drawn on."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or self.width * self.height > LARGEST_BITMAP:
            raise ValueError(f"a bitmap has {self.width}x{self.height} pixels")

    @property
    def bounds(self) -> Bounds:
        """The rectangle."""
        (x, y), right, bottom = self.zoom, self.left + self.width, self.top + self.height
        return self.left * x, self.top * y, right * x, bottom * y

    def scaled(self, x: float, y: float) -> "Bitmap":
        """Return it in an image that is ``x`` times as wide and ``y`` times as high; the nearest pixels count."""
        return replace(self, zoom=(self.zoom[0] * x, self.zoom[1] * y))

    def inside(self, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window belong to it.

        Raises:
            DataError: it is damaged.
        """
        try:
            whole = self.decode()
        except DataError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"A bitmap that was drawn on it is damaged: {str(error)[:200]}. Export the annotations again.",
                code="PW430",
            ) from None
        columns = _nearest(window.left, window.width, self.zoom[0]) - self.left
        rows = _nearest(window.top, window.height, self.zoom[1]) - self.top
        within = np.outer((rows >= 0) & (rows < self.height), (columns >= 0) & (columns < self.width))
        return within & whole[np.ix_(rows.clip(0, self.height - 1), columns.clip(0, self.width - 1))]


def _nearest(first: int, count: int, zoom: float) -> np.ndarray:
    return np.floor((np.arange(first, first + count) + 0.5) / zoom).astype(np.int64)


Shape = Polygon | Ellipse | Bitmap


def rectangle(left: float, top: float, width: float, height: float, degrees: float = 0.0) -> Polygon:
    """Return a rectangle, turned clockwise by ``degrees`` around its upper left corner."""
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = corners if degrees == 0 else corners @ np.array([(cos, sin), (-sin, cos)])
    return Polygon(((turned + np.array([left, top]),),))


def ring_area(ring: Ring) -> float:
    """Return the area that a ring encloses, in pixels."""
    x, y = ring.T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1])) / 2


def paint(shapes: Sequence[tuple[Shape, int]], window: Window, outside: int) -> Int16[np.ndarray, "h w"]:
    """Return the values of shapes in a window, later ones on top, and ``outside`` where there is none."""
    out = np.full((window.height, window.width), outside, np.int16)
    right, bottom = window.left + window.width, window.top + window.height
    near = [
        (shape, value)
        for shape, value in shapes
        if shape.bounds[0] < right
        and shape.bounds[1] < bottom
        and shape.bounds[2] > window.left
        and shape.bounds[3] > window.top
    ]
    transform = Affine.translation(window.left, window.top)
    parts: list[tuple[dict[str, Any], int]] = []
    for shape, value in near:
        if isinstance(shape, Polygon):
            parts += [(part, value) for part in shape.geometries()]
            continue
        # Polygons are drawn together, which is faster, but below what comes after them.
        _draw(parts, out, transform)
        parts = []
        out[shape.inside(window)] = value
    _draw(parts, out, transform)
    return out


def _draw(parts: list[tuple[dict[str, Any], int]], out: Int16[np.ndarray, "h w"], transform: Affine) -> None:
    if parts:
        rasterize(parts, out=out, transform=transform)
