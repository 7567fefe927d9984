"""From a label map to land parcels."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Bool, Float64, Int

from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, room_on_disk
from pixelwise.geo.antimeridian import DECIMALS, Plane, cut_at_antimeridian
from pixelwise.geo.coordinates import pixels_to_metres, placed, poles_in, transformed
from pixelwise.geo.map_file import BLOCK
from pixelwise.geo.outputs import keep_inputs
from pixelwise.geo.proj import degrees
from pixelwise.geo.qgis import write_parcel_style
from pixelwise.geo.raster import RasterInfo
from pixelwise.geo.sld import write_parcel_sld
from pixelwise.geo.stored_blocks import files_of
from pixelwise.geo.vector import areal_parts
from pixelwise.labels import make_classes
from pixelwise.optional import optional_module
from pixelwise.parcels.coverage import densify, simplified
from pixelwise.parcels.label_source import NUMBERS, LabelSource
from pixelwise.parcels.merging import merge_small
from pixelwise.parcels.outlines import outline
from pixelwise.parcels.regions import RegionConfidence, Regions, borders, keep_silent, label_regions, region_confidence
from pixelwise.parcels.scratch_folder import scratch_folder
from pixelwise.parcels.vector_file import check_vector_output, in_degrees, write_polygons, written_files
from pixelwise.parcels.watershed import watershed

TRUE_TO_GROUND = 0.01
"""A map is measured on its plane while its pixels are within this share of their area on the ground."""
EDGE_PIXELS = 16
"""Longest edge, in pixels, that is moved to another coordinate system by its ends alone."""


@dataclass(frozen=True)
class ParcelSummary:
    """What was written."""

    path: Path
    parcels: int
    removed: int
    """Parcels below the smallest area that became part of a neighbour, or were left out."""
    areas: dict[str, float]
    """Class -> square metres of the parcels that were written."""
    tolerance: float
    """In metres, by which outlines were simplified. Less than asked for only if parcels would have overlapped."""


def polygonize(
    label_map: str | Path,
    output: str | Path,
    *,
    minimum_area: float = 0.0,
    merge: bool = True,
    simplify: float = 0.0,
    instances: tuple[str, str] | None = None,
    core: float | None = None,
    classes: Sequence[str] | None = None,
    advance: Callable[[str, float], None] = keep_silent,
) -> ParcelSummary:
    """Turn a label map of any size into parcels: one polygon for each connected piece of a class, holes kept.

    Pixels belong together where they share an edge. The parcels of all classes are a coverage: no gap, no overlap,
    the same vertices on both sides of a border. Areas are geodesic where the map's coordinate system is in degrees, or
    is in metres that are not those on the ground (Web Mercator). A GeoJSON is in degrees, as RFC 7946 has it; the
    other formats keep the map's coordinate system. The map is read in strips: memory grows with the parcels and their
    vertices, not with the pixels. Scratch files in ``.NAME.scratch`` beside the output take 4 bytes per pixel (20 with
    ``instances``); the next process for the same output removes what a killed one leaves.

    Args:
        label_map: a map that pixelwise wrote, or any georeferenced raster of one band of whole numbers. Nodata and
            negative numbers give no parcel.
        output: .gpkg, .parquet, .geojson, .fgb or .shp; an older file of that name is replaced, but other layers of a
            GeoPackage are kept. NAME.qml and NAME.sld beside it give a GIS the map's colours; a style that someone
            else made is kept.
        minimum_area: in square metres; smaller parcels become part of the neighbour with the longest shared border.
            One without any neighbour, amid nodata, stays. A pixel has the size that it has on the ground at the
            parcel's centre.
        merge: False: leave smaller parcels out instead, which leaves gaps.
        simplify: in metres; vertices whose triangles are at most its square go, for both neighbours alike. The edge
            towards nodata and the map's edge stay, so areas add up to the same sum.
        instances: the classes inside fields and along their boundaries. The boundaries become part of the fields on
            either side, and fields are parted where they only leak into each other (`pixelwise.parcels.watershed`).
        core: with ``instances``: the radius in pixels of the disc that has to fit into a field so that a leak into
            another one parts them; None: a fifth of the mean radius of the map's fields (`fitting_radius`). Smaller:
            more and smaller fields; 0: only what the boundaries part.
        classes: names of the classes to keep; None: all.
        advance: called with what is being done, such as "Drawing outlines", and the share of it that is done, 0 to 1.

    Raises:
        DataError: no such map, or one without a coordinate system.
        ConfigError: an unknown format or class, a negative number, or an output that cannot be written or that another
            process is making.
        MissingExtraError: the extra ``geo`` is not installed, or ``parquet`` for GeoParquet.
    """
    output = Path(output)
    for name, value in (("minimum_area", minimum_area), ("simplify", simplify), ("core", core)):
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"{name} = {value} is no size. Give 0 or more.")
    check_vector_output(output)
    ensure_folder(output.parent)
    source = LabelSource(Path(label_map))
    keep_inputs(written_files(output), [*files_of(label_map), *source.files], "map")
    with scratch_folder(output) as folder, room_on_disk(output), rasterio.Env(GDAL_CACHEMAX=_cache(source)):
        regions, labels = _find_regions(source, instances, core, folder, advance)
        names = _class_names(source, labels)
        wanted = {i: name for i, name in names.items() if classes is None or name in classes}
        unknown = [name for name in classes or [] if name not in names.values()]
        if unknown:
            raise ConfigError(
                f"{label_map} has no class {unknown[0]!r}; it has {', '.join(names.values())}.", code="PW311"
            )
        small = _ground_areas(regions, source.info) < minimum_area
        if merge:
            standing = _merged(regions, source.info, small, minimum_area, advance)
        else:
            standing = np.where(small, -1, np.arange(len(small)))
        stays, parcel_of = np.unique(standing[standing >= 0], return_inverse=True)
        # The last entry is that of the region -1, which is nowhere.
        final = np.full(len(standing) + 1, -1)
        final[:-1][standing >= 0] = parcel_of
        confidence = _confidence(source, regions, final, len(stays), advance)
        outlines = outline(
            lambda window: final[regions.read(window)],
            *regions.pieces.shape,
            len(stays),
            advance=partial(advance, "Drawing outlines"),
        )
        if simplify:
            advance("Simplifying outlines", 0.0)
        outlines, used = simplified(outlines, simplify, _pixel_size(source.info))
        if simplify:
            advance("Simplifying outlines", 1.0)
        chosen = np.isin(labels[stays], list(wanted))
        advance("Writing parcels", 0.0)
        columns = _attributes(source, outlines[chosen], labels[stays][chosen], names)
        columns["confidence"], columns["conf_min"] = confidence.mean[chosen], confidence.lowest[chosen]
        _write(output, source, outlines[chosen], columns, folder)
        advance("Writing parcels", 1.0)
    write_parcel_style(output, _colours(source, wanted), column="class")
    write_parcel_sld(output, _colours(source, wanted), column="class")
    areas = {name: math.fsum(columns["area_m2"][columns["class_id"] == i]) for i, name in wanted.items()}
    removed = small & (standing != np.arange(len(small))) & np.isin(labels, list(wanted))
    return ParcelSummary(output, int(chosen.sum()), int(removed.sum()), areas, used)


def _cache(source: LabelSource) -> int:
    # GDAL would fill a twentieth of the memory. Two rows of blocks of map and confidence: no block is read twice.
    return max(64 << 20, 2 * BLOCK * source.info.width * (np.dtype(source.info.dtype).itemsize + 1))


def _find_regions(
    source: LabelSource,
    instances: tuple[str, str] | None,
    core: float | None,
    folder: Path,
    advance: Callable[[str, float], None],
) -> tuple[Regions, Int[np.ndarray, " n"]]:
    """Return the regions of a map, and the label of each."""
    info, step = source.info, partial(advance, "Finding regions")
    if instances is None:
        regions = label_regions(source.labels, info.height, info.width, folder / "pieces", advance=step)
        return regions, regions.keys
    interior, boundary = (_label_of(name, source) for name in instances)
    if interior == boundary:
        raise ConfigError(f"instances names {instances[0]!r} twice. Name the class inside fields, then their boundary.")
    fields = watershed(source, interior, boundary, core, folder, advance=advance)
    regions = label_regions(fields.read, info.height, info.width, folder / "pieces", advance=step)
    return regions, np.where(regions.keys >= NUMBERS, interior, regions.keys)


def _confidence(
    source: LabelSource,
    regions: Regions,
    final: Int[np.ndarray, " n"],
    count: int,
    advance: Callable[[str, float], None],
) -> RegionConfidence:
    """Return the confidence of each parcel; NaN where the map has none beside it."""
    if not source.has_confidence:
        return RegionConfidence(np.full(count, np.nan), np.full(count, np.nan))
    step = partial(advance, "Reading confidence")
    return region_confidence(regions, final, count, source.confidence, advance=step)


def _label_of(name: str, source: LabelSource) -> int:
    for label, known in source.names.items():
        if known == name:
            return label
    if match := re.fullmatch(r"class (\d+)", name):
        return int(match[1])
    listed = ", ".join(source.names.values()) or "no names, so a class is called by its number, such as 'class 1'"
    raise ConfigError(f"{source.info.path} has no class {name!r} for instances; it has {listed}.", code="PW311")


def _class_names(source: LabelSource, labels: Int[np.ndarray, " n"]) -> dict[int, str]:
    """Return the names in the map's tags, and one like 'class 3' for any other number in it."""
    return dict(sorted(({i: f"class {i}" for i in np.unique(labels).tolist()} | source.names).items()))


def _merged(
    regions: Regions,
    info: RasterInfo,
    small: Bool[np.ndarray, " n"],
    minimum: float,
    advance: Callable[[str, float], None],
) -> Int[np.ndarray, " n"]:
    """Return for each region the one that it has become part of."""
    if not small.any():
        return np.arange(len(small))
    shared = borders(regions, small, advance=partial(advance, "Finding neighbours of small regions"))
    step = np.hypot(*_pixel_size(info))
    lengths = shared.across * step[0] + shared.upright * step[1]
    return merge_small(regions.keys, _ground_areas(regions, info), shared, lengths, minimum)


def _pixel_size(info: RasterInfo) -> Float64[np.ndarray, "2 2"]:
    """Return the matrix from pixel steps to metres, as it is in the middle of the map."""
    scale = _plane_scale(info)
    if scale is not None:
        return np.array(info.transform[:6]).reshape(2, 3)[:, :2] * scale
    return pixels_to_metres(info, np.array([[info.width / 2, info.height / 2]]))[0]


def _ground_areas(regions: Regions, info: RasterInfo) -> Float64[np.ndarray, " n"]:
    """Return square metres, with pixels of the size that they have at each region's centre."""
    if _plane_scale(info) is not None or len(regions.keys) == 0:
        return regions.pixels * abs(np.linalg.det(_pixel_size(info)))
    return regions.pixels * np.abs(np.linalg.det(pixels_to_metres(info, regions.centres)))


def _plane_scale(info: RasterInfo) -> float | None:
    """Return how many metres a unit of the map's plane has; None where the plane is not true to the ground."""
    crs = info.crs
    assert crs is not None
    if not crs.is_projected:
        return None
    metres = float(crs.linear_units_factor[1])
    ground = abs(np.linalg.det(pixels_to_metres(info, np.array([[info.width / 2, info.height / 2]])))[0])
    return metres if abs(abs(info.transform.determinant) * metres**2 / ground - 1) < TRUE_TO_GROUND else None


def _attributes(
    source: LabelSource, outlines: np.ndarray, labels: Int[np.ndarray, " n"], names: dict[int, str]
) -> dict[str, np.ndarray]:
    """Return the columns that a shape gives; names of at most ten letters, which is all that a Shapefile keeps."""
    shapely, info = optional_module("shapely"), source.info
    if (metres := _plane_scale(info)) is not None:
        # In pixels areas are whole or half numbers, and exact; so they add up.
        areas = shapely.area(outlines) * abs(info.transform.determinant) * metres**2
        perimeters = shapely.length(shapely.transform(outlines, lambda xy: placed(info.transform, xy))) * metres
    else:
        geod = optional_module("pyproj").Geod(ellps="WGS84")
        on_ellipsoid = shapely.transform(
            outlines, lambda xy: transformed(source.crs, degrees(), placed(info.transform, xy))
        )
        measured = np.array([geod.geometry_area_perimeter(each) for each in on_ellipsoid]).reshape(-1, 2)
        areas, perimeters = np.abs(measured[:, 0]), measured[:, 1]
    return {
        "class": np.array([names[label] for label in labels.tolist()], object),
        "class_id": labels.astype(np.int32),
        "area_m2": areas,
        "perim_m": perimeters,
        "compact": 4 * math.pi * areas / perimeters**2,
    }


def _write(
    output: Path, source: LabelSource, outlines: np.ndarray, columns: dict[str, np.ndarray], scratch: Path
) -> None:
    shapely, transform = optional_module("shapely"), source.info.transform
    if not in_degrees(output):
        placed_outlines = shapely.transform(outlines, lambda xy: placed(transform, xy))
        write_polygons(output, placed_outlines, columns, source.crs, scratch=scratch)
        return
    # Long edges are bent with the ground, so that neighbours still meet.
    info = source.info
    moved = cut_at_antimeridian(
        densify(outlines, EDGE_PIXELS),
        Plane(
            lambda xy: np.round(transformed(source.crs, degrees(), placed(transform, xy)), DECIMALS),
            poles_in(source.crs, transform, info.height, info.width, margin=1.0),
        ),
    )
    invalid = ~shapely.is_valid(moved)
    moved[invalid] = [areal_parts(geometry) for geometry in shapely.make_valid(moved[invalid])]
    write_polygons(output, moved, columns, degrees(), scratch=scratch)


def _colours(source: LabelSource, wanted: dict[int, str]) -> dict[str, tuple[int, int, int]]:
    """Return the map's colour of each class, and hues of our own where it has none."""
    spare = make_classes(list(wanted.values())).palette
    # A colour table is black beyond the classes that the tags name.
    own = {i: colour for i, colour in source.colours.items() if i in source.names or not source.names}
    return {name: own.get(i, colour) for (i, name), colour in zip(wanted.items(), spare, strict=True)}
