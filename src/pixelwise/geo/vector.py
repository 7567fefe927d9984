"""Polygons of any vector file and coordinate system."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from rasterio.crs import CRS
from rasterio.errors import CRSError

from pixelwise.errors import DataError
from pixelwise.geo.antimeridian import across_antimeridian
from pixelwise.geo.coordinates import check_on_earth
from pixelwise.geo.geoparquet import Table, read_geoparquet
from pixelwise.geo.proj import check_proj
from pixelwise.geo.vector_source import LARGEST_INFLATION, is_parquet, require_driver, split_layer, vector_source
from pixelwise.optional import optional_module
from pixelwise.source_name import is_local, shown

AREAL = re.compile("Polygon|Surface|Collection")
"""Kinds of layers that may hold areas, as GDAL calls them."""


@dataclass(frozen=True)
class Mended:
    """A polygon that was invalid as drawn."""

    row: int
    """In the file, counted from 0."""
    reason: str
    """What is wrong with it, and where."""
    share: float
    """Of the fixed area, how much differs from the area as drawn; 1 where nothing is left."""
    geometry: Any
    """Of shapely: as it was fixed, or as drawn where nothing is left."""


@dataclass(frozen=True)
class Polygons:
    """The polygons of a file, made valid, in its own coordinate system."""

    path: Path
    geometries: Shaped[np.ndarray, " n"]
    """Of shapely's Polygon and MultiPolygon, all valid."""
    values: tuple[object, ...] | None
    """Of the attribute that was asked for."""
    crs: CRS
    fixed: int
    """How many were invalid as drawn."""
    dropped: int
    """How many were empty or not finite, or had no area left when they were fixed."""
    mended: tuple[Mended, ...] = ()
    """Those that were invalid as drawn."""


def read_polygons(
    path: str | Path,
    *,
    attribute: str | None = None,
    layer: str | None = None,
    named: tuple[str, str] = ("[data].labels", "[data].attribute"),
) -> Polygons:
    """Read a file of polygons: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, GeoParquet, KML, GML, File Geodatabase ...

    Open rings are closed and invalid polygons are fixed. A collection gives its polygons. What is left of a shape
    besides areas is dropped. A ring that runs once around the globe in one step crosses the antimeridian instead.

    Args:
        path: a file, a .gdb folder, a .zip or .kmz with one such file in it, or an address such as https://...;
            with the name of a layer behind it where there are several: ``county.gpkg:fields``.
        attribute: the column whose values are kept.
        layer: the layer to read, unless ``path`` names one; None: the only one of polygons.
        named: where the user named the file and the column, for messages.

    Raises:
        DataError: no such file, not a vector file, no polygons in it, no such layer or column, or no coordinate system.
        MissingExtraError: the extra ``geo`` is not installed, or ``parquet`` for GeoParquet.
    """
    optional_module("pyogrio")
    shapely = optional_module("shapely")
    path, inner = split_layer(path)
    if is_local(path) and not path.exists():
        raise DataError(f"There is no file {path}. Correct {named[0]}.", code="PW401")
    read = _read_parquet if is_parquet(path) else _read_gdal
    fields, wkb, column, system = read(path, inner or layer, attribute)
    if attribute and attribute not in fields:
        listed = ", ".join(fields) or "none"
        raise DataError(f"{path} has no column {attribute!r}. Its columns: {listed}. Correct {named[1]}.", code="PW421")
    crs = _system(system, path)
    try:
        # Open rings are closed; what has no ring at all becomes None.
        geometries = np.array([], object) if wkb is None else shapely.from_wkb(wkb, on_invalid="fix")
    except shapely.errors.ShapelyError as error:
        raise _unreadable(path, error) from None
    xy, of = shapely.get_coordinates(geometries, return_index=True)
    geometries[of[~np.isfinite(xy).all(axis=1)]] = None
    collected = shapely.get_type_id(geometries) == shapely.GeometryType.GEOMETRYCOLLECTION
    geometries[collected] = [areal_parts(geometry) for geometry in geometries[collected]]
    filled = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    areal = np.isin(shapely.get_type_id(geometries), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    if (filled & ~areal).any():
        raise DataError(
            f"{path} holds a {geometries[filled & ~areal][0].geom_type} among its polygons. Keep polygons only; "
            "in a GIS, points and lines can be buffered.",
            code="PW420",
        )
    geometries = across_antimeridian(geometries, crs)
    invalid = filled & ~shapely.is_valid(geometries)
    drawn = geometries[invalid]
    geometries[invalid] = [areal_parts(geometry) for geometry in shapely.make_valid(drawn)]
    mended = tuple(
        _mended(row, before, geometries[row])
        for row, before in zip(np.flatnonzero(invalid).tolist(), drawn, strict=True)
    )
    kept = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if not kept.any():
        raise DataError(f"{path} holds no polygon. Name the file that holds them in {named[0]}.", code="PW420")
    values = tuple(_plain(value) for value, keep in zip(column, kept, strict=True) if keep) if attribute else None
    return Polygons(path, geometries[kept], values, crs, int(invalid.sum()), int((~kept).sum()), mended)


def _mended(row: int, before: Any, after: Any) -> Mended:
    shapely = optional_module("shapely")
    area = 0.0 if after is None else after.area
    share = abs(area - before.area) / area if area else 1.0
    return Mended(row, shapely.is_valid_reason(before), min(1.0, share), before if after is None else after)


def _read_gdal(path: Path, layer: str | None, attribute: str | None) -> Table:
    pyogrio = optional_module("pyogrio")
    name = vector_source(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = _polygon_layer(pyogrio.list_layers(name), path, layer)
            about = pyogrio.read_info(name, layer=layer)
            require_driver(about["driver"], path)
            fields = list(about["fields"])
            _require_room(path, name, about["features"])
            columns = [attribute] if attribute in fields else []
            meta, _, wkb, columns = pyogrio.raw.read(name, layer=layer, columns=columns, force_2d=True)
    except DataError:
        raise
    except Exception as error:  # on damaged files pyogrio raises what it means to, and mistakes of its own
        raise _unreadable(path, error) from None
    return fields, wkb, columns[0].tolist() if columns else [], meta["crs"]


def _require_room(path: Path, name: str, shapes: int) -> None:
    """See that a file is large enough for the number of shapes that it declares, before any room is made for them."""
    if not is_local(path) or not path.is_file():
        return
    most = path.stat().st_size * (1 if name == str(path) else LARGEST_INFLATION)
    if shapes > most:
        raise DataError(f"{path} declares {shapes:,} shapes, which it is too small for. It is corrupt.", code="PW420")


def _read_parquet(path: Path, layer: str | None, attribute: str | None) -> Table:
    if layer is not None:
        raise DataError(
            f"{path} is a GeoParquet, which has no layers, so there is no layer {layer!r}. Leave it out.", code="PW421"
        )
    return read_geoparquet(path, attribute)


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(";")[0].rstrip(".")
    where = shown(path) if not is_local(path) else path
    return DataError(
        f"{where} cannot be read as polygons: {reason}. It is corrupt, or not a vector file.", code="PW420"
    )


def _system(named: str | None, path: Path) -> CRS:
    # GeoPackage names an undefined system where there is none.
    if not named or "undefined" in named.lower():
        check_proj()
        raise DataError(
            f"{path} does not say its coordinate system. Assign one in a GIS (for a Shapefile, the .prj file).",
            code="PW424",
        )
    try:
        if named.startswith("{"):
            named = optional_module("pyproj").CRS.from_json(named).to_wkt()
        crs = CRS.from_user_input(named)
    except (CRSError, ValueError, RuntimeError) as error:
        check_proj()
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(
            f"{path} has a coordinate system that is not known: {reason}. Assign one in a GIS.", code="PW424"
        ) from None
    check_on_earth(crs, path)
    return crs


def _polygon_layer(layers: Shaped[np.ndarray, "n 2"], path: Path, wanted: str | None) -> str:
    listed = ", ".join(f"{name} of {kind or 'no geometry'}" for name, kind in layers) or "none"
    if wanted is not None:
        if wanted not in [name for name, _ in layers]:
            raise DataError(f"{path} has no layer {wanted!r}. Its layers: {listed}.", code="PW421")
        return wanted
    usable = [name for name, kind in layers if kind is not None and (AREAL.search(kind) or kind == "Unknown")]
    if not usable and len(layers) == 1:
        return layers[0][0]
    if len(layers) == 0:
        raise DataError(f"{path} holds no layer. It is corrupt, or not a vector file.", code="PW420")
    if len(usable) != 1:
        raise DataError(
            f"{path} has {len(usable)} layers of polygons, where one is expected (its layers: {listed}). "
            f"Name the one that is meant with [data].layer, or behind the file's name: {path.name}:LAYER.",
            code="PW421",
        )
    return usable[0]


def areal_parts(geometry: Any) -> Any:
    """Return a collection's or a fixed geometry's areas; None where nothing is left of it."""
    shapely = optional_module("shapely")
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION).any():
        parts = shapely.get_parts(parts)
    parts = [part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else None


def _plain(value: Any) -> Any:
    # Whole numbers come as floats where the column has gaps, or where a Shapefile counts them as real.
    if isinstance(value, float) and np.isnan(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
