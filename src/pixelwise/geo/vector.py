"""Polygons of any vector file and coordinate system, and the labels they give a scene, window by window."""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from affine import Affine
from jaxtyping import Int16, Shaped
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform as transform_points

from pixelwise.errors import DataError, MissingExtraError
from pixelwise.geo.raster import RasterInfo, Window


@dataclass(frozen=True)
class Polygons:
    """The polygons of a file, mended, in its own coordinate system."""

    path: Path
    geometries: Shaped[np.ndarray, " n"]
    """Of shapely's Polygon and MultiPolygon, all valid."""
    values: tuple[object, ...] | None
    """Of the attribute that was asked for."""
    crs: CRS
    mended: int
    """How many were invalid as drawn."""
    dropped: int
    """How many were empty, or had no area left when mended."""


def read_polygons(path: str | Path, *, attribute: str | None = None) -> Polygons:
    """Read GeoPackage, GeoJSON, Shapefile, FlatGeobuf and all else that GDAL reads.

    Invalid polygons are mended; what is left of one besides areas is dropped.

    Args:
        attribute: the column whose values are kept.

    Raises:
        DataError: no such file, not a vector file, no polygons in it, no such column, or no coordinate system.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    path = Path(path)
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    if not path.exists():
        raise DataError(f"There is no file {path}. Mend [data].labels.")
    try:
        meta, _, wkb, columns = pyogrio.raw.read(
            path, layer=_polygon_layer(path), columns=[attribute] if attribute else []
        )
    except pyogrio.errors.DataSourceError as error:
        raise DataError(f"{path} cannot be read as polygons: {str(error).splitlines()[0]}.") from None
    if attribute and attribute not in list(meta["fields"]):
        listed = ", ".join(pyogrio.read_info(path, layer=_polygon_layer(path))["fields"]) or "none"
        raise DataError(f"{path} has no column {attribute!r}. Its columns: {listed}. Mend [data].attribute.")
    if not meta["crs"]:
        raise DataError(
            f"{path} does not say its coordinate system. Assign one in a GIS (for a Shapefile, the .prj file)."
        )
    geometries = shapely.from_wkb(wkb) if wkb is not None else np.array([], object)
    invalid = ~(shapely.is_valid(geometries) | shapely.is_missing(geometries))
    geometries[invalid] = [_areas(shapely, g) for g in shapely.make_valid(geometries[invalid])]
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    types = {kind for kind in map(str, shapely.get_type_id(geometries[kept]))}
    if types - {"3", "6"}:
        kind = next(g for g in geometries[kept] if g.geom_type not in ("Polygon", "MultiPolygon")).geom_type
        raise DataError(
            f"{path} holds a {kind} among its polygons. Keep polygons only, or buffer the {kind.lower()}s in a GIS."
        )
    if not kept.any():
        raise DataError(f"{path} holds no polygon. Name the file that holds them in [data].labels.")
    values = tuple(np.asarray(columns[0], object)[kept].tolist()) if attribute else None
    return Polygons(
        path, geometries[kept], values, CRS.from_user_input(meta["crs"]), int(invalid.sum()), int((~kept).sum())
    )


def count_touching(polygons: Polygons, info: RasterInfo) -> int:
    """Return how many polygons touch a scene.

    Raises:
        DataError: the scene has no coordinate system.
    """
    shapely = optional_module("shapely")
    footprint = shapely.box(0, 0, info.width, info.height)
    return int(shapely.intersects(_in_pixels(polygons, info), footprint).sum())


@dataclass(frozen=True)
class PolygonLabels:
    """The labels that polygons give a scene; any window of it is drawn when asked for.

    Shapes are kept in the scene's pixel coordinates, so a window is drawn the same whatever surrounds it.
    """

    shapes: tuple[Any, ...]
    values: tuple[int, ...]
    tree: Any
    """Finds the shapes near a window."""
    background: int

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE`; a pixel belongs to the shape that holds its centre, later ones on top."""
        shapely = optional_module("shapely")
        box = shapely.box(window.left, window.top, window.left + window.width, window.top + window.height)
        near = np.sort(self.tree.query(box))
        out = np.full((window.height, window.width), self.background, np.int16)
        if len(near) == 0:
            return out
        return rasterize(
            [(self.shapes[i], self.values[i]) for i in near],
            out=out,
            transform=Affine.translation(window.left, window.top),
        )


def labels_for_scene(
    polygons: Polygons,
    info: RasterInfo,
    class_of: Int16[np.ndarray, " n"],
    *,
    background: int,
    boundary: int | None,
    boundary_width: float,
) -> PolygonLabels:
    """Bring polygons into a scene's pixels, with a band along each outline if wanted.

    Args:
        class_of: the class of each polygon.
        background: the class outside of all of them, or `IGNORE`.
        boundary: the class of the bands; they lie on top of all interiors. None: no bands.
        boundary_width: of a band, in metres on the ground, half of it on either side of the outline.

    Raises:
        DataError: the scene has no coordinate system.
    """
    shapely = optional_module("shapely")
    inside = _in_pixels(polygons, info)
    near = np.flatnonzero(shapely.intersects(inside, shapely.box(0, 0, info.width, info.height).buffer(256)))
    shapes = list(inside[near])
    values = [int(class_of[i]) for i in near]
    if boundary is not None and len(near):
        to_metres = _pixels_to_metres(info)
        outlines = shapely.boundary(inside[near])
        outlines = shapely.transform(outlines, lambda xy: xy @ to_metres.T)
        bands = shapely.buffer(outlines, boundary_width / 2, quad_segs=4)
        back = np.linalg.inv(to_metres)
        bands = shapely.transform(bands, lambda xy: xy @ back.T)
        shapes += list(bands)
        values += [boundary] * len(bands)
    return PolygonLabels(tuple(shapes), tuple(values), shapely.STRtree(shapes), background)


def _in_pixels(polygons: Polygons, info: RasterInfo) -> Shaped[np.ndarray, " n"]:
    if info.crs is None:
        raise DataError(
            f"{info.path} has no coordinate system, so the polygons of {polygons.path} cannot be laid on it. "
            "Georeference the scene, or give masks instead of polygons."
        )
    shapely = optional_module("shapely")
    inverse = ~info.transform

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        xs, ys = xy[:, 0], xy[:, 1]
        if polygons.crs != info.crs:
            xs, ys = map(np.asarray, transform_points(polygons.crs, info.crs, xs, ys))
        a, b, c, d, e, f = inverse[:6]
        columns, rows = a * xs + b * ys + c, d * xs + e * ys + f
        return np.stack([columns, rows], axis=1)

    return shapely.transform(polygons.geometries, to_pixels)


def _pixels_to_metres(info: RasterInfo) -> np.ndarray:
    """Return the 2x2 matrix from pixel steps to metres on the ground, at the scene's centre.

    Measured on the ellipsoid: degrees, feet and the stretched metres of Web Mercator all come out as metres.
    """
    geod = optional_module("pyproj").Geod(ellps="WGS84")
    column, row = info.width / 2, info.height / 2
    corners = [info.transform * corner for corner in ((column, row), (column + 1, row), (column, row + 1))]
    assert info.crs is not None
    xs, ys = zip(*corners, strict=True)
    longitudes, latitudes = transform_points(info.crs, CRS.from_epsg(4326), xs, ys)[:2]
    steps = []
    for i in (1, 2):
        azimuth, _, distance = geod.inv(longitudes[0], latitudes[0], longitudes[i], latitudes[i])
        steps.append((distance * math.sin(math.radians(azimuth)), distance * math.cos(math.radians(azimuth))))
    return np.array(steps).T


def _polygon_layer(path: Path) -> str:
    pyogrio = optional_module("pyogrio")
    try:
        layers = pyogrio.list_layers(path)
    except pyogrio.errors.DataSourceError as error:
        raise DataError(f"{path} cannot be read as polygons: {str(error).splitlines()[0]}.") from None
    usable = [name for name, kind in layers if kind is not None and ("Polygon" in kind or kind == "Unknown")]
    usable = usable or [name for name, _ in layers]
    if len(usable) != 1:
        raise DataError(
            f"{path} has {len(usable)} layers of polygons ({', '.join(usable)}). Export the one that is meant."
        )
    return usable[0]


def _areas(shapely: ModuleType, geometry: Any) -> Any:
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else None


def optional_module(name: str) -> ModuleType:
    """Import a module of the extra ``geo``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingExtraError(f"Polygons need {name}. Install it with: pip install 'pixelwise[geo]'") from None
