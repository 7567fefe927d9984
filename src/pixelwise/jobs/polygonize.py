"""From a label map to land parcels."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Integer
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes

from pixelwise.errors import ConfigError, DataError
from pixelwise.files import ensure_folder, replacing
from pixelwise.geo.label_map import CLASSES_TAG, CONFIDENCE_NODATA, confidence_path
from pixelwise.geo.map_file import read_tags
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe
from pixelwise.geo.vector import areal_parts, check_on_earth, optional_module, pixels_to_metres, placed, transformed

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".json": "GeoJSON", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
DEGREES = CRS.from_epsg(4326)
TRUE_TO_GROUND = 0.01
"""A map is measured on its plane while its pixels are within this share of their area on the ground."""
EDGE_PIXELS = 16
"""Longest edge, in pixels, that is moved to another coordinate system by its ends alone."""


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
    degrees, or is in metres that are not those on the ground (Web Mercator). A GeoJSON is in degrees, as RFC 7946 has
    it; the other formats keep the map's coordinate system.

    Args:
        label_map: a map that pixelwise wrote, or any georeferenced raster of one band of whole numbers. Nodata and
            negative numbers give no parcel.
        output: .gpkg, .geojson, .fgb or .shp; an older file of that name is replaced.
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
    if output.is_dir():
        raise ConfigError(f"{output} is a folder, and no file can take its name. Choose another output.")
    ensure_folder(output.parent)
    info = describe(label_map)
    labels = _read_labels(info)
    names = _class_names(label_map, labels)
    unknown = [name for name in classes or [] if name not in names.values()]
    if unknown:
        raise ConfigError(f"{label_map} has no class {unknown[0]!r}; it has {', '.join(names.values())}.")
    wanted = {i: name for i, name in names.items() if classes is None or name in classes}
    found = [parcel for parcel in find_parcels(info, labels, _read_confidence(info)) if parcel.class_index in wanted]
    kept = [parcel for parcel in found if parcel.area >= minimum_area]
    _write(kept, wanted, info, output)
    areas = dict.fromkeys(wanted.values(), 0.0)
    for parcel in kept:
        areas[wanted[parcel.class_index]] += parcel.area
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
    geometries = shapely.transform([geometry for geometry, _ in pieces], lambda xy: placed(info.transform, xy))
    areas, perimeters = _measure(geometries, info)
    for i, (_, value) in enumerate(pieces):
        yield Parcel(geometries[i], value, float(areas[i]), float(perimeters[i]), means[i])


def _measure(geometries: np.ndarray, info: RasterInfo) -> tuple[np.ndarray, np.ndarray]:
    """Return square metres and metres: on the plane where it is true to the ground, else on the ellipsoid."""
    shapely, crs = optional_module("shapely"), info.crs
    assert crs is not None
    if crs.is_projected:
        metres = float(crs.linear_units_factor[1])
        middle = np.array([[info.width / 2, info.height / 2]])
        ground = abs(np.linalg.det(pixels_to_metres(info, middle))[0])
        if abs(abs(info.transform.determinant) * metres**2 / ground - 1) < TRUE_TO_GROUND:
            return shapely.area(geometries) * metres**2, shapely.length(geometries) * metres
    geod = optional_module("pyproj").Geod(ellps="WGS84")
    degrees = shapely.transform(geometries, lambda xy: transformed(crs, DEGREES, xy))
    measured = np.array([geod.geometry_area_perimeter(geometry) for geometry in degrees])
    return np.abs(measured[:, 0]), measured[:, 1]


def _class_names(label_map: Path, labels: Integer[np.ndarray, "H W"]) -> dict[int, str]:
    """Return the names in the map's tags, and one like 'class 3' for any other number in it."""
    tag = read_tags(label_map).get(CLASSES_TAG, "[]")
    try:
        names = dict(enumerate(map(str, json.loads(tag))))
    except (json.JSONDecodeError, TypeError):
        raise DataError(f"{label_map} has the tag {CLASSES_TAG} = {tag!r}, which is no list of names.") from None
    present = np.unique(labels[labels >= 0]).tolist()
    return dict(sorted(({i: f"class {i}" for i in present} | names).items()))


def _read_labels(info: RasterInfo) -> Integer[np.ndarray, "H W"]:
    if info.crs is None:
        raise DataError(
            f"{info.path} has no coordinate system, so its parcels have no place or area. Map a georeferenced scene."
        )
    check_on_earth(info.crs, info.path)
    if info.count != 1 or np.dtype(info.dtype).kind not in "ui":
        raise DataError(
            f"{info.path} is no label map: it has {info.count} bands of {info.dtype}, not one of whole numbers. "
            "Name a map that `pixelwise predict` wrote."
        )
    values, valid = RasterReader(info.path).read(Window(0, 0, info.height, info.width))
    if values.max(initial=0, where=valid) > np.iinfo(np.int32).max:
        raise DataError(f"{info.path} holds numbers above {np.iinfo(np.int32).max}, which are too large for labels.")
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


def _write(parcels: Sequence[Parcel], names: dict[int, str], info: RasterInfo, output: Path) -> None:
    driver = DRIVERS[output.suffix.lower()]
    geometries = np.array([parcel.geometry for parcel in parcels], object)
    crs = info.crs
    assert crs is not None
    if driver == "GeoJSON":
        geometries, crs = _in_degrees(geometries, info), DEGREES
    # Names of at most ten letters, which is all that a Shapefile keeps.
    columns = {
        "class": np.array([names[parcel.class_index] for parcel in parcels], object),
        "class_id": np.array([parcel.class_index for parcel in parcels], np.int32),
        "area_m2": np.array([parcel.area for parcel in parcels], np.float64),
        "perim_m": np.array([parcel.perimeter for parcel in parcels], np.float64),
        "confidence": np.array([np.nan if p.confidence is None else p.confidence for p in parcels], np.float64),
    }
    if driver != "ESRI Shapefile":
        with replacing(output) as temporary:
            _write_file(temporary, output, geometries, columns, crs)
        return
    # A Shapefile is several files, whose names belong together.
    with TemporaryDirectory(prefix=".", dir=output.parent) as folder:
        _write_file(Path(folder) / output.name, output, geometries, columns, crs)
        for index in (".qix", ".sbn", ".sbx"):
            output.with_suffix(index).unlink(missing_ok=True)
        for part in Path(folder).iterdir():
            os.replace(part, output.with_name(part.name))


def _write_file(path: Path, output: Path, geometries: np.ndarray, columns: dict[str, np.ndarray], crs: CRS) -> None:
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    driver = DRIVERS[output.suffix.lower()]
    precise = {"RFC7946": "YES", "COORDINATE_PRECISION": "10"} if driver == "GeoJSON" else None
    try:
        pyogrio.raw.write(
            path,
            shapely.to_wkb(geometries) if len(geometries) else geometries,
            list(columns.values()),
            list(columns),
            geometry_type="Unknown" if driver == "GeoJSON" else "Polygon",
            crs=crs.to_wkt(),
            driver=driver,
            layer=output.stem,
            layer_options=precise,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise ConfigError(f"{output} cannot be written: {error}. Make room, or choose another output.") from None


def _in_degrees(geometries: np.ndarray, info: RasterInfo) -> np.ndarray:
    """Return valid geometries in degrees. Long edges are bent with the ground, so that neighbours still meet."""
    shapely, crs = optional_module("shapely"), info.crs
    assert crs is not None
    if len(geometries) == 0:
        return geometries
    dense = shapely.segmentize(geometries, EDGE_PIXELS * abs(info.transform.determinant) ** 0.5)
    moved = shapely.transform(dense, lambda xy: transformed(crs, DEGREES, xy))
    invalid = ~shapely.is_valid(moved)
    moved[invalid] = [areal_parts(geometry) for geometry in shapely.make_valid(moved[invalid])]
    return moved
