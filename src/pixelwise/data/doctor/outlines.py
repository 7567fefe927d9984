"""Polygons as labels: invalid ones, and those that lie where no scene is."""

from collections.abc import Sequence

import numpy as np
from rasterio.crs import CRS

from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.leaks import footprints
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.errors import DataError
from pixelwise.geo.coordinates import transformed
from pixelwise.geo.polygon_labels import count_touching
from pixelwise.geo.proj import degrees
from pixelwise.geo.vector import Mended, Polygons
from pixelwise.optional import optional_module


def check_polygons(polygons: Polygons, samples: Sequence[Sample]) -> list[Finding]:
    """Find polygons that are invalid, or lie outside of the scenes that they are drawn on.

    Args:
        samples: the scenes.
    """
    findings = [_invalid(polygons, mended, samples) for mended in polygons.mended]
    placed = [sample for sample in samples if sample.info is not None and _touching(polygons, sample) is not None]
    if not placed:
        return findings
    touched = sum(_touching(polygons, sample) or 0 for sample in placed)
    if not touched:
        return [*findings, _elsewhere(polygons, samples)]
    try:
        return findings + _strays(polygons, placed)
    except DataError:
        # Some polygon has no place in degrees.
        return findings


def _touching(polygons: Polygons, sample: Sample) -> int | None:
    assert sample.info is not None
    try:
        return count_touching(polygons, sample.info)
    except DataError:
        return None


def _invalid(polygons: Polygons, mended: Mended, samples: Sequence[Sample]) -> Finding:
    file, lost = str(polygons.path), mended.share > LIMITS.fixed_area
    said = f"Polygon {mended.row + 1} of {file} is invalid: {mended.reason}."
    if lost:
        said += f" {mended.share:.0%} of its area changes when it is fixed, so its inside is a guess."
    value = {"row": mended.row, "reason": mended.reason, "changed": round(mended.share, 6)}
    return Finding("PW160" if lost else "PW222", file, said, value=value, picture=_spot_of(mended, polygons, samples))


def _spot_of(mended: Mended, polygons: Polygons, samples: Sequence[Sample]) -> Spot | None:
    """Return the scene that a polygon lies on."""
    shapely = optional_module("shapely")
    try:
        middle = np.array(mended.geometry.representative_point().coords, float)[:, :2]
        point = shapely.Point(transformed(polygons.crs, degrees(), middle)[0])
    except (DataError, shapely.errors.ShapelyError, ValueError):
        return None
    for each in footprints(samples):
        if shapely.Polygon(each.ring).contains(point):
            return Spot(each.sample.image)
    return None


def _elsewhere(polygons: Polygons, samples: Sequence[Sample]) -> Finding:
    """Say why no polygon touches any scene: swapped axes, another system, or another place."""
    file, shapely = str(polygons.path), optional_module("shapely")
    system, count = polygons.crs.to_string()[:60], len(polygons.geometries)
    scenes = [sample.info for sample in samples if sample.info is not None]
    where = [shapely.Polygon(each.ring) for each in footprints(samples)]
    head = f"None of the {count} polygons in {file} touches any of the {len(samples)} scenes"
    middles = shapely.get_coordinates(shapely.centroid(polygons.geometries))
    if _hit(middles[:, ::-1], polygons.crs, where):
        said = f"{head}; with their axes swapped they do."
        return Finding("PW163", file, said, value={"system": system})
    others = [CRS.from_epsg(4326), *(info.crs for info in scenes if info.crs is not None), *_zones(middles, where)]
    for other in dict.fromkeys(others):
        if other == polygons.crs:
            continue
        for swapped in (False, True):
            if _hit(middles[:, ::-1] if swapped else middles, other, where):
                axes = ", with their axes swapped," if swapped else ""
                said = (
                    f"{head}. The file says {system}, but its coordinates fit the scenes in {other.to_string()}{axes}."
                )
                return Finding(
                    "PW162", file, said, value={"system": system, "fits": other.to_string(), "swapped": swapped}
                )
    said = f"{head}: they lie around {_place(middles, polygons.crs)}."
    return Finding("PW161", file, said, value={"system": system})


def _hit(points: np.ndarray, crs: CRS, where: Sequence) -> bool:
    """Return whether most points lie near some scene."""
    shapely = optional_module("shapely")
    if crs.is_geographic and (np.abs(points) > 361).any():
        return False
    try:
        ground = transformed(crs, degrees(), points.astype(float))
    except DataError:
        return False
    ground = ground[np.isfinite(ground).all(axis=1)]
    if not len(ground) or not where:
        return False
    area = shapely.union_all(where)
    near = shapely.buffer(area, 0.2 * max(1e-9, float(np.sqrt(area.area))))
    return bool(shapely.contains_xy(near, ground[:, 0], ground[:, 1]).mean() > 0.3)


def _zones(points: np.ndarray, where: Sequence) -> list[CRS]:
    """Return the UTM zones around the scenes, and Web Mercator, where coordinates are of that size."""
    if not where or np.abs(points).max() < 1000:
        return []
    longitude, latitude = (float(value) for value in np.array(where[0].centroid.coords)[0])
    zone = int((longitude + 180) // 6) + 1
    first = 32700 if latitude < 0 else 32600
    return [CRS.from_epsg(first + (zone + step - 1) % 60 + 1) for step in (0, 1, -1)] + [CRS.from_epsg(3857)]


def _place(points: np.ndarray, crs: CRS) -> str:
    try:
        longitude, latitude = np.median(transformed(crs, degrees(), points.astype(float)), axis=0)
    except DataError:
        return "an unknown place"
    if not np.isfinite([longitude, latitude]).all():
        return "no place on earth"
    return f"{latitude:.4f}, {longitude:.4f} (latitude, longitude)"


def _strays(polygons: Polygons, samples: Sequence[Sample]) -> list[Finding]:
    """Find the few polygons that touch no scene, where nearly all do."""
    shapely = optional_module("shapely")
    where = shapely.union_all([shapely.Polygon(each.ring) for each in footprints(samples)])
    # A margin, because sides are not straight in degrees.
    where = shapely.buffer(where, 0.01 * max(1e-9, float(np.sqrt(where.area))))
    points, owner = shapely.get_coordinates(polygons.geometries, return_index=True)
    ground = transformed(polygons.crs, degrees(), points)
    inside = np.isfinite(ground).all(axis=1) & shapely.contains_xy(where, ground[:, 0], ground[:, 1])
    outside = np.flatnonzero(np.bincount(owner[inside], minlength=len(polygons.geometries)) == 0)
    # A large polygon may cover a scene and have no corner in it.
    outside = [i for i in outside.tolist() if not _covers(polygons, i, where)]
    if not outside or len(outside) > LIMITS.few_outside * len(polygons.geometries):
        return []
    file = str(polygons.path)
    rows = ", ".join(str(i + 1) for i in outside[:10]) + (" ..." if len(outside) > 10 else "")
    said = f"{len(outside)} of the {len(polygons.geometries)} polygons in {file} touch no scene: {rows}."
    return [Finding("PW223", file, said, value={"rows": outside[:100]})]


def _covers(polygons: Polygons, i: int, where: object) -> bool:
    shapely = optional_module("shapely")
    ring = shapely.get_coordinates(shapely.boundary(polygons.geometries[i]))
    if len(ring) == 0:
        return False
    ground = transformed(polygons.crs, degrees(), ring)
    if not np.isfinite(ground).all() or len(ground) < 4:
        return False
    return bool(shapely.intersects(shapely.convex_hull(shapely.MultiPoint(ground)), where))
