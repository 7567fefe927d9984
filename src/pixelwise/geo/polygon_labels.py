"""The labels that polygons give a scene, window by window."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from affine import Affine
from jaxtyping import Float64, Int, Int16, Shaped
from rasterio.features import rasterize

from pixelwise.errors import DataError
from pixelwise.geo.antimeridian import copies_within, joined, touches_seam
from pixelwise.geo.coordinates import (
    around_globe,
    pixels_to_metres,
    placed,
    placement,
    poles_in,
    transformed,
    unwrapped,
)
from pixelwise.geo.raster import RasterInfo, Window, clip_window
from pixelwise.geo.vector import Polygons, areal_parts, read_polygons
from pixelwise.optional import optional_module

BLOCK = 256
"""Side in pixels of what is drawn at once."""
SNAP = 1e-6
"""Corners of two halves of a polygon that are closer than this share of a pixel are one."""


@dataclass(frozen=True)
class PolygonLabels:
    """The labels that polygons give a scene; any window of it is drawn when asked for, by any thread."""

    shapes: Shaped[np.ndarray, " n"]
    """Of shapely's Polygon and MultiPolygon, in the scene's pixel coordinates."""
    values: tuple[int, ...]
    tree: Any
    """Finds the shapes near a window."""
    background: int
    all_touched: bool = False
    """A pixel belongs to a shape that touches it; otherwise to the one that holds its centre."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE`; a pixel belongs to the shape that holds its centre, later ones on top."""
        # GDAL's rounding where an outline meets a pixel's centre depends on the window. Whole blocks of a fixed grid
        # are drawn, so that a pixel has the same class whichever window asks.
        shapely = optional_module("shapely")
        bottom, right = window.top + window.height, window.left + window.width
        tops = range(window.top // BLOCK * BLOCK, bottom, BLOCK)
        lefts = range(window.left // BLOCK * BLOCK, right, BLOCK)
        near = self.tree.query(shapely.box(lefts[0], tops[0], lefts[-1] + BLOCK, tops[-1] + BLOCK))
        lists = dict(zip(near.tolist(), _as_lists(self.shapes[near]), strict=True))
        drawn = np.block([[self._block(top, left, lists) for left in lefts] for top in tops])
        return drawn[window.top - tops[0] : bottom - tops[0], window.left - lefts[0] : right - lefts[0]].copy()

    def digest(self) -> str:
        """Return the SHA-256 of the shapes, wherever they were read from: a file, one of its layers, a folder."""
        whole = b"".join(optional_module("shapely").to_wkb(self.shapes))
        return hashlib.sha256(whole).hexdigest()

    def touches(self, window: Window, margin: int, height: int, width: int) -> bool:
        """Return whether a window of a scene, grown by a margin, has a pixel that is not of class 0."""
        side = (window.height + 2 * margin, window.width + 2 * margin)
        inside, _, _ = clip_window(Window(window.top - margin, window.left - margin, *side), height, width)
        return bool(self.read(inside).any())

    def _block(self, top: int, left: int, lists: dict[int, dict[str, Any]]) -> Int16[np.ndarray, "b b"]:
        shapely = optional_module("shapely")
        out = np.full((BLOCK, BLOCK), self.background, np.int16)
        near = np.sort(self.tree.query(shapely.box(left, top, left + BLOCK, top + BLOCK))).tolist()
        if near:
            shapes = [(lists[i], self.values[i]) for i in near]
            rasterize(shapes, out=out, transform=Affine.translation(left, top), all_touched=self.all_touched)
        return out


def labels_for_scene(
    polygons: Polygons,
    info: RasterInfo,
    class_of: Int16[np.ndarray, " n"],
    *,
    background: int,
    boundary: int | None,
    boundary_width: float,
    all_touched: bool = False,
) -> PolygonLabels:
    """Bring polygons into a scene's pixels, with a band along each outline if wanted.

    Args:
        class_of: the class of each polygon.
        background: the class outside of all of them, or `IGNORE`.
        boundary: the class of the bands; they lie on top of all interiors. None: no bands.
        boundary_width: of a band, in metres on the ground, half of it on either side of the outline.
        all_touched: a pixel belongs to a shape that touches it, not only to one that holds its centre.

    Raises:
        DataError: the scene has no coordinate system.
    """
    shapely = optional_module("shapely")
    reach = 0.0
    if boundary is not None:
        middle = np.array([[info.width / 2, info.height / 2]])
        reach = 2 * boundary_width * float(np.abs(np.linalg.inv(pixels_to_metres(info, middle))).max())
    near, shapes = _in_pixels(polygons, info, reach)
    values = [int(class_of[i]) for i in near]
    if boundary is not None:
        shapes = np.concatenate([shapes, bands(shapes, info, boundary_width)])
        values += [boundary] * len(near)
    return PolygonLabels(shapes, tuple(values), shapely.STRtree(shapes), background, all_touched)


def area_of_interest(path: str | Path, info: RasterInfo) -> PolygonLabels:
    """Return 1 where the polygons of a file cover a scene, and 0 elsewhere.

    Raises:
        DataError: no such file, not a file of polygons, or none of them touches the scene.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    polygons = read_polygons(path, named=("the area of interest", ""))
    inside = np.ones(len(polygons.geometries), np.int16)
    area = labels_for_scene(polygons, info, inside, background=0, boundary=None, boundary_width=0.0)
    if len(area.shapes) == 0:
        raise DataError(
            f"No polygon of {path} touches {info.path}. Give the area of interest of this scene.", code="PW422"
        )
    return area


def count_touching(polygons: Polygons, info: RasterInfo) -> int:
    """Return how many polygons touch a scene.

    Raises:
        DataError: the scene has no coordinate system.
    """
    return len(_in_pixels(polygons, info, 0)[0])


def bands(inside: Shaped[np.ndarray, " n"], info: RasterInfo, width: float) -> Shaped[np.ndarray, " n"]:
    """Return a band of ``width`` metres along the outline of each polygon, all in the scene's pixel coordinates."""
    shapely = optional_module("shapely")
    # A large scene in degrees has narrower pixels at one end, so each polygon is measured where it lies.
    places = shapely.get_coordinates(shapely.centroid(inside)).clip(0, (info.width, info.height))
    to_metres = pixels_to_metres(info, places)
    outlines = _mapped(shapely, shapely.boundary(inside), to_metres)
    return _mapped(shapely, shapely.buffer(outlines, width / 2, quad_segs=4), np.linalg.inv(to_metres))


def _mapped(
    shapely: ModuleType, geometries: Shaped[np.ndarray, " n"], matrices: Float64[np.ndarray, "n 2 2"]
) -> Shaped[np.ndarray, " n"]:
    xy, of = shapely.get_coordinates(geometries, return_index=True)
    return shapely.set_coordinates(geometries.copy(), np.einsum("nij,nj->ni", matrices[of], xy))


def _in_pixels(polygons: Polygons, info: RasterInfo, reach: float) -> tuple[Int[np.ndarray, " n"], np.ndarray]:
    """Return which polygons touch a scene grown by ``reach`` pixels, and those in its pixel coordinates."""
    crs, transform = placement(info, f"the polygons of {polygons.path} have no place on it")
    shapely = optional_module("shapely")
    circle, scene_circle = around_globe(polygons.crs), around_globe(crs)

    # Only what lies around the scene is transformed: a file may cover a country, and coordinates far away may have no
    # place in the scene's system at all. Points inside the scene count too, since a pole is on no outline.
    columns = np.linspace(-reach, info.width + reach, 21)
    rows = np.linspace(-reach, info.height + reach, 21)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    places = placed(transform, grid)
    ground = transformed(crs, polygons.crs, places)
    finite = np.isfinite(ground).all(axis=1)
    ground, middle = ground[finite], placed(transform, np.array([[info.width / 2, info.height / 2]]))
    if len(ground) == 0:
        return np.array([], np.int64), np.array([], object)
    centre = float(transformed(crs, polygons.crs, middle)[0, 0])
    centre = centre if np.isfinite(centre) else float(ground[0, 0])
    ground[:, 0] = unwrapped(ground[:, 0], centre, circle)
    low, high = ground.min(axis=0), ground.max(axis=0)
    size = float((high - low).max())
    margin = 0.1 * size
    if circle is not None and scene_circle is None and len(poles_in(crs, transform, info.height, info.width, reach)):
        # All around a pole, x is anything, and a turn around the globe changes nothing.
        size = float(high[1] - low[1])
        low[0], high[0], margin = -2 * circle.length, 2 * circle.length, 0.1 * size
        near = np.flatnonzero(shapely.intersects(polygons.geometries, shapely.box(*low - margin, *high + margin)))
        inside = polygons.geometries[near]
    else:
        near, inside = copies_within(polygons.geometries, shapely.box(*low - margin, *high + margin), circle)
    around = shapely.box(*low - margin, *high + margin)
    beyond = ~shapely.contains(around, inside)
    inside[beyond] = [areal_parts(part) for part in shapely.intersection(inside[beyond], around)]
    if polygons.crs != crs:
        # A long straight edge is not straight in another system.
        inside = shapely.segmentize(inside, size / 16)

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        x, y = transformed(polygons.crs, crs, xy).T
        # Where x of the polygons is says which turn around the globe is meant.
        turns = (xy[:, 0] - centre) / circle.length if circle is not None else np.zeros(len(xy))
        turned = unwrapped(x, middle[0, 0] + turns * scene_circle.length, scene_circle) if scene_circle else x
        return placed(~transform, np.stack([turned, y], axis=1))

    cut = touches_seam(inside, circle)
    near, inside = joined(near, shapely.transform(inside, to_pixels), cut, SNAP)
    touching = shapely.intersects(inside, shapely.box(-reach, -reach, info.width + reach, info.height + reach))
    return near[touching], inside[touching]


def _as_lists(geometries: Shaped[np.ndarray, " n"]) -> list[dict[str, Any]]:
    # What shapely's own mapping gives, ten times faster.
    if len(geometries) == 0:
        return []
    _, xy, offsets = optional_module("shapely").to_ragged_array(geometries)
    nested = xy.tolist()
    for level in offsets:
        nested = [nested[first:end] for first, end in pairwise(level.tolist())]
    kind = "MultiPolygon" if len(offsets) == 3 else "Polygon"
    return [{"type": kind, "coordinates": coordinates} for coordinates in nested]
