"""Polygons of any vector file and coordinate system, and the labels they give a scene, window by window."""

import importlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from affine import Affine
from jaxtyping import Float64, Int, Int16, Shaped
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform as transform_points

from pixelwise.errors import DataError, MissingExtraError
from pixelwise.geo.raster import RasterInfo, Window, clip_window

BLOCK = 256
"""Side in pixels of what is drawn at once."""


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
    """How many were empty or not finite, or had no area left when mended."""


def read_polygons(
    path: str | Path, *, attribute: str | None = None, named: tuple[str, str] = ("[data].labels", "[data].attribute")
) -> Polygons:
    """Read GeoPackage, GeoJSON, Shapefile, FlatGeobuf and all else that GDAL reads.

    Invalid polygons are mended; what is left of one besides areas is dropped.

    Args:
        attribute: the column whose values are kept.
        named: where the user named the file and the column, for messages.

    Raises:
        DataError: no such file, not a vector file, no polygons in it, no such column, or no coordinate system.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    path = Path(path)
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    if not path.exists():
        raise DataError(f"There is no file {path}. Mend {named[0]}.")
    try:
        layer = _polygon_layer(path)
        meta, _, wkb, columns = pyogrio.raw.read(path, layer=layer, columns=[attribute] if attribute else [])
        if attribute and attribute not in list(meta["fields"]):
            listed = ", ".join(pyogrio.read_info(path, layer=layer)["fields"]) or "none"
            raise DataError(f"{path} has no column {attribute!r}. Its columns: {listed}. Mend {named[1]}.")
        geometries = np.array([], object) if wkb is None else shapely.from_wkb(wkb)
    except (RuntimeError, shapely.errors.GEOSException) as error:  # all that pyogrio raises is a RuntimeError
        reason = str(error).splitlines()[0].split(";")[0].rstrip(".")
        raise DataError(f"{path} cannot be read as polygons: {reason}. It is corrupt, or not a vector file.") from None
    # GeoPackage names an undefined system where there is none.
    if not meta["crs"] or "undefined" in meta["crs"].lower():
        raise DataError(
            f"{path} does not say its coordinate system. Assign one in a GIS (for a Shapefile, the .prj file)."
        )
    crs = CRS.from_user_input(meta["crs"])
    check_on_earth(crs, path)
    xy, of = shapely.get_coordinates(geometries, return_index=True)
    geometries[of[~np.isfinite(xy).all(axis=1)]] = None
    filled = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    areal = np.isin(shapely.get_type_id(geometries), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    if (filled & ~areal).any():
        raise DataError(
            f"{path} holds a {geometries[filled & ~areal][0].geom_type} among its polygons. Keep polygons only; "
            "in a GIS, points and lines can be buffered and collections exploded."
        )
    invalid = filled & ~shapely.is_valid(geometries)
    geometries[invalid] = [areal_parts(geometry) for geometry in shapely.make_valid(geometries[invalid])]
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if not kept.any():
        raise DataError(f"{path} holds no polygon. Name the file that holds them in {named[0]}.")
    values = tuple(_plain(value) for value in columns[0][kept].tolist()) if attribute else None
    return Polygons(path, geometries[kept], values, crs, int(invalid.sum()), int((~kept).sum()))


def count_touching(polygons: Polygons, info: RasterInfo) -> int:
    """Return how many polygons touch a scene.

    Raises:
        DataError: the scene has no coordinate system.
    """
    return len(_in_pixels(polygons, info, 0)[0])


@dataclass(frozen=True)
class PolygonLabels:
    """The labels that polygons give a scene; any window of it is drawn when asked for, by any thread."""

    shapes: Shaped[np.ndarray, " n"]
    """Of shapely's Polygon and MultiPolygon, in the scene's pixel coordinates."""
    values: tuple[int, ...]
    tree: Any
    """Finds the shapes near a window."""
    background: int

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
            rasterize(shapes, out=out, transform=Affine.translation(left, top))
        return out


def area_of_interest(path: str | Path, info: RasterInfo) -> PolygonLabels:
    """Return 1 where the polygons of a file cover a scene, and 0 elsewhere.

    Raises:
        DataError: no such file, not a file of polygons, or none of them touches the scene.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    if not Path(path).exists():
        raise DataError(f"There is no file {path}, which should hold the area of interest.")
    polygons = read_polygons(path)
    inside = np.ones(len(polygons.geometries), np.int16)
    area = labels_for_scene(polygons, info, inside, background=0, boundary=None, boundary_width=0.0)
    if len(area.shapes) == 0:
        raise DataError(f"No polygon of {path} touches {info.path}. Give the area of interest of this scene.")
    return area


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
    reach = 0.0
    if boundary is not None and info.crs is not None:
        middle = np.array([[info.width / 2, info.height / 2]])
        reach = 2 * boundary_width * float(np.abs(np.linalg.inv(pixels_to_metres(info, middle))).max())
    near, shapes = _in_pixels(polygons, info, reach)
    values = [int(class_of[i]) for i in near]
    if boundary is not None:
        shapes = np.concatenate([shapes, _bands(shapes, info, boundary_width)])
        values += [boundary] * len(near)
    return PolygonLabels(shapes, tuple(values), shapely.STRtree(shapes), background)


def _bands(inside: Shaped[np.ndarray, " n"], info: RasterInfo, width: float) -> Shaped[np.ndarray, " n"]:
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
    if info.crs is None:
        raise DataError(
            f"{info.path} has no coordinate system, so the polygons of {polygons.path} cannot be laid on it. "
            "Georeference the scene, or give masks instead of polygons."
        )
    check_on_earth(info.crs, info.path)
    shapely, crs = optional_module("shapely"), info.crs

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        return placed(~info.transform, transformed(polygons.crs, crs, xy))

    # Only what lies around the scene is transformed: a file may cover a country, and coordinates far away may have no
    # place in the scene's system at all. Points inside the scene count too, since a pole is on no outline.
    columns = np.linspace(-reach, info.width + reach, 21)
    rows = np.linspace(-reach, info.height + reach, 21)
    grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    ground = transformed(crs, polygons.crs, placed(info.transform, grid))
    ground = ground[np.isfinite(ground).all(axis=1)]
    if len(ground) == 0:
        return np.array([], np.int64), np.array([], object)
    low, high = ground.min(axis=0), ground.max(axis=0)
    size = float((high - low).max())
    around = shapely.box(*low - 0.1 * size, *high + 0.1 * size)
    near = np.flatnonzero(shapely.intersects(polygons.geometries, around))
    inside = polygons.geometries[near]
    beyond = ~shapely.contains(around, inside)
    inside[beyond] = [areal_parts(part) for part in shapely.intersection(inside[beyond], around)]
    if polygons.crs != crs:
        # A long straight edge is not straight in another system.
        inside = shapely.segmentize(inside, size / 16)
    inside = shapely.transform(inside, to_pixels)
    touching = shapely.intersects(inside, shapely.box(-reach, -reach, info.width + reach, info.height + reach))
    return near[touching], inside[touching]


def placed(transform: Affine, xy: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Return where a transform puts points, such as pixel corners (column, row) on the ground.

    Equal points come to equal places, to the last bit, so that polygons that meet still do.
    """
    # A matrix product may round the last rows of an array otherwise than the rest.
    x, y = xy[:, 0], xy[:, 1]
    return np.stack(
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f], 1
    )


def transformed(source: CRS, target: CRS, xy: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Return points in another coordinate system; infinite where they have no place there."""
    if source == target or len(xy) == 0:
        return xy
    return np.stack(transform_points(source, target, xy[:, 0], xy[:, 1])[:2], axis=1)


def check_on_earth(crs: CRS, path: Path) -> None:
    """See that coordinates have a place on the ground.

    Raises:
        DataError: they are local, such as those of a drawing.
    """
    if not (crs.is_geographic or crs.is_projected):
        raise DataError(
            f"{path} has a local coordinate system, whose place on the ground is unknown. Georeference it in a GIS."
        )


def pixels_to_metres(info: RasterInfo, places: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2 2"]:
    """Return matrices from pixel steps to metres on the ground, at some places (column, row) of a scene.

    Measured on the ellipsoid: degrees, feet and the stretched metres of Web Mercator all come out as metres.
    """
    assert info.crs is not None
    check_on_earth(info.crs, info.path)
    geod = optional_module("pyproj").Geod(ellps="WGS84")
    corners = np.concatenate([places + offset for offset in ((0, 0), (1, 0), (0, 1))])
    degrees = transformed(info.crs, CRS.from_epsg(4326), placed(info.transform, corners))
    longitudes, latitudes = degrees.T.reshape(2, 3, -1)
    matrices = np.empty((len(places), 2, 2))
    for step in (0, 1):
        azimuth, _, distance = geod.inv(longitudes[0], latitudes[0], longitudes[step + 1], latitudes[step + 1])
        matrices[:, 0, step] = distance * np.sin(np.radians(azimuth))
        matrices[:, 1, step] = distance * np.cos(np.radians(azimuth))
    return matrices


def _polygon_layer(path: Path) -> str:
    layers = optional_module("pyogrio").list_layers(path)
    usable = [name for name, kind in layers if kind is not None and ("Polygon" in kind or kind == "Unknown")]
    if not usable and len(layers) == 1:
        return layers[0][0]
    if len(usable) != 1:
        listed = ", ".join(f"{name} of {kind or 'no geometry'}" for name, kind in layers) or "none"
        raise DataError(
            f"{path} has {len(usable)} layers of polygons, where one is expected (its layers: {listed}). "
            "Export the one that is meant to a file of its own."
        )
    return usable[0]


def areal_parts(geometry: Any) -> Any:
    """Return a mended geometry without its points and lines; None where nothing is left."""
    shapely = optional_module("shapely")
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else None


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


def _plain(value: Any) -> Any:
    # Whole numbers come as floats where the column has gaps, or where a Shapefile counts them as real.
    if isinstance(value, float) and np.isnan(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def optional_module(name: str) -> ModuleType:
    """Import a module of the extra ``geo``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingExtraError(f"Polygons need {name}. Install it with: pip install 'pixelwise[geo]'") from None
