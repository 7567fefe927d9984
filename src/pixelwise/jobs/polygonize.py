"""From a label map to land parcels."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from rasterio.warp import transform as transform_points

from pixelwise.errors import ConfigError, DataError
from pixelwise.files import replacing
from pixelwise.geo.label_map import CLASSES_TAG, CONFIDENCE_NODATA, confidence_path
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe, read_tags
from pixelwise.geo.vector import optional_module

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}


@dataclass(frozen=True)
class Parcel:
    """A connected piece of one class."""

    geometry: Any
    """A shapely Polygon in the map's coordinate system."""
    class_index: int
    area: float
    """In square metres."""
    perimeter: float
    """In metres, holes included."""
    confidence: float | None
    """Mean over its pixels, 0 to 1; None where the map has no confidence beside it."""


@dataclass(frozen=True)
class ParcelSummary:
    """What was written."""

    path: Path
    parcels: int
    removed: int
    """Parcels below the smallest area."""
    areas: dict[str, float]
    """Class -> square metres of the parcels that were written."""


def polygonize(
    label_map: str | Path,
    output: str | Path,
    *,
    minimum_area: float = 0.0,
    classes: Sequence[str] | None = None,
) -> ParcelSummary:
    """Turn a label map into parcels: one polygon for each connected piece of a class, holes kept.

    Pixels belong together where they share an edge. Areas are geodesic where the map's coordinate system is in
    degrees. A GeoJSON is in degrees, as RFC 7946 has it; the other formats keep the map's coordinate system.

    Args:
        label_map: a map that pixelwise wrote, or any georeferenced raster of one band of whole numbers.
        output: .gpkg, .geojson, .fgb or .shp.
        minimum_area: in square metres; smaller parcels are left out.
        classes: names of the classes to keep; None: all.

    Raises:
        DataError: no such map, or one without a coordinate system.
        ConfigError: an unknown format or class, or an output that cannot be written.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    output, label_map = Path(output), Path(label_map)
    if output.suffix.lower() not in DRIVERS:
        raise ConfigError(f"{output}: parcels are written as {', '.join(DRIVERS)}. Let the name end in one of them.")
    info = describe(label_map)
    names = _class_names(label_map)
    labels = _read_labels(info)
    names = names or [f"class {i}" for i in range(int(labels.max(initial=0)) + 1)]
    unknown = [name for name in classes or [] if name not in names]
    if unknown:
        raise ConfigError(f"{label_map} has no class {unknown[0]!r}; it has {', '.join(names)}.")
    wanted = {i for i, name in enumerate(names) if classes is None or name in classes}
    found = [parcel for parcel in find_parcels(info, labels, _read_confidence(info)) if parcel.class_index in wanted]
    kept = [parcel for parcel in found if parcel.area >= minimum_area]
    _write(kept, names, info, output)
    areas = {name: sum(p.area for p in kept if p.class_index == i) for i, name in enumerate(names) if i in wanted}
    return ParcelSummary(output, len(kept), len(found) - len(kept), areas)


def find_parcels(
    info: RasterInfo, labels: Integer[np.ndarray, "H W"], confidence: Integer[np.ndarray, "H W"] | None
) -> Iterator[Parcel]:
    """Yield the connected pieces of each class, in the order of their first pixel row.

    Args:
        labels: class indices; -1 is nowhere.
        confidence: 0 to 254 for 0 to 1.
    """
    shapely = optional_module("shapely")
    pieces = [(shapely.geometry.shape(shape), int(value)) for shape, value in shapes(labels, mask=labels >= 0)]
    if not pieces:
        return
    means: list[float | None] = [None] * len(pieces)
    if confidence is not None:
        # In pixel coordinates each piece covers exactly its own pixels, so burning numbers gives them back.
        burnt = ((geometry, i + 1) for i, (geometry, _) in enumerate(pieces))
        number = np.ravel(rasterize(burnt, out_shape=labels.shape, dtype="int32"))
        sums = np.bincount(number, confidence.ravel(), len(pieces) + 1)[1:]
        means = (sums / np.bincount(number, minlength=len(pieces) + 1)[1:] / 254).tolist()
    to_ground = np.array(info.transform[:6]).reshape(2, 3)
    for (geometry, value), mean in zip(pieces, means, strict=True):
        placed = shapely.transform(geometry, lambda xy: xy @ to_ground[:, :2].T + to_ground[:, 2])
        area, perimeter = _measure(placed, info.crs)
        yield Parcel(placed, value, area, perimeter, mean)


def _measure(geometry: Any, crs: CRS | None) -> tuple[float, float]:
    """Return square metres and metres: on the ellipsoid for degrees, on the plane otherwise."""
    assert crs is not None
    if crs.is_geographic:
        area, perimeter = optional_module("pyproj").Geod(ellps="WGS84").geometry_area_perimeter(geometry)
        return abs(area), perimeter
    metres = float(crs.linear_units_factor[1])
    return geometry.area * metres**2, geometry.length * metres


def _class_names(label_map: Path) -> list[str]:
    return json.loads(read_tags(label_map).get(CLASSES_TAG, "[]"))


def _read_labels(info: RasterInfo) -> Integer[np.ndarray, "H W"]:
    if info.crs is None:
        raise DataError(
            f"{info.path} has no coordinate system, so its parcels have no place or area. Map a georeferenced scene."
        )
    if info.count != 1 or np.dtype(info.dtype).kind not in "ui":
        raise DataError(
            f"{info.path} is no label map: it has {info.count} bands of {info.dtype}, not one of whole numbers. "
            "Name a map that `pixelwise predict` wrote."
        )
    values, valid = RasterReader(info.path).read(Window(0, 0, info.height, info.width))
    # shapes() knows few types; int32 holds every label.
    return np.where(valid, values[0].astype(np.int32), np.int32(-1))


def _read_confidence(info: RasterInfo) -> Integer[np.ndarray, "H W"] | None:
    path = confidence_path(info.path)
    if not path.exists():
        return None
    beside = describe(path)
    if (beside.height, beside.width) != (info.height, info.width):
        raise DataError(f"{path} has another size than {info.path}. Delete it, or map the scene again.")
    values, _ = RasterReader(path).read(Window(0, 0, info.height, info.width))
    return np.where(values[0] == CONFIDENCE_NODATA, 0, values[0])


def _write(parcels: Sequence[Parcel], names: Sequence[str], info: RasterInfo, output: Path) -> None:
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    driver = DRIVERS[output.suffix.lower()]
    geometries = np.array([parcel.geometry for parcel in parcels], object)
    crs = info.crs
    assert crs is not None
    if driver == "GeoJSON":
        geometries = shapely.transform(geometries, lambda xy: _to_degrees(xy, crs)) if len(parcels) else geometries
        crs = CRS.from_epsg(4326)
    columns = {
        "class": np.array([names[parcel.class_index] for parcel in parcels], object),
        "class_id": np.array([parcel.class_index for parcel in parcels], np.int32),
        "area_m2": np.array([parcel.area for parcel in parcels], np.float64),
        "perim_m": np.array([parcel.perimeter for parcel in parcels], np.float64),
        "confidence": np.array([np.nan if p.confidence is None else p.confidence for p in parcels], np.float64),
    }
    # A Shapefile is several files that only GDAL can name, and it has no atomic form: it is written in place.
    if driver == "ESRI Shapefile":
        _write_file(pyogrio, shapely, output, geometries, columns, crs, driver)
        return
    with replacing(output) as temporary:
        _write_file(pyogrio, shapely, temporary, geometries, columns, crs, driver, layer=output.stem)


def _write_file(
    pyogrio, shapely, path: Path, geometries, columns, crs: CRS, driver: str, layer: str | None = None
) -> None:
    pyogrio.raw.write(
        path,
        shapely.to_wkb(geometries) if len(geometries) else np.array([], object),
        list(columns.values()),
        list(columns),
        geometry_type="Polygon",
        crs=crs.to_wkt(),
        driver=driver,
        layer=layer,
    )


def _to_degrees(xy: Float64[np.ndarray, "n 2"], crs: CRS) -> Float64[np.ndarray, "n 2"]:
    return np.stack(transform_points(crs, CRS.from_epsg(4326), xy[:, 0], xy[:, 1]), axis=1)
