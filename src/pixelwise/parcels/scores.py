"""How well parcels agree with true ones: as objects, along their boundaries, in area."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped
from rasterio.crs import CRS

from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.antimeridian import box_around, joined, touches_seam
from pixelwise.geo.coordinates import around_globe, placed, placement, transformed
from pixelwise.geo.proj import degrees
from pixelwise.geo.raster import IMAGE_SUFFIXES, describe
from pixelwise.geo.vector import Polygons, areal_parts, read_polygons
from pixelwise.optional import optional_module

DRAWS = 2000
"""How often the blocks are drawn again for a confidence interval."""
SNAP = 1e-6
"""Corners of two halves of a parcel that are closer than this, in metres, are one."""


@dataclass(frozen=True)
class AreaError:
    """The area of a class, against the true one."""

    name: str
    area: float
    """In square metres, as all areas."""
    truth: float
    error: float | None
    """(area - truth) / truth; None where there is no true one."""
    low: float | None
    """The error's 95 % confidence interval, from the blocks; None with fewer than two."""
    high: float | None


@dataclass(frozen=True)
class ParcelScores:
    """Scores between 0 and 1. A score is None where it has nothing to count."""

    parcels: int
    truth: int
    matched: int
    """Pairs of a parcel and a true one whose intersection is more than half of their union."""
    precision: float | None
    """Matched, of the parcels."""
    recall: float | None
    """Matched, of the true ones."""
    f1: float | None
    f1_low: float | None
    """Its 95 % confidence interval, from the blocks; None with fewer than two."""
    f1_high: float | None
    matched_iou: float | None
    """Mean intersection over union of the matched pairs."""
    over_segmentation: float | None
    """Mean share of a true parcel that lies outside of the parcel that covers most of it; 0 is best."""
    under_segmentation: float | None
    """Mean share of that parcel that lies outside of the true one; 0 is best."""
    missed: int
    """True parcels that no parcel touches; they are in neither of the two means."""
    tolerance: float
    """In metres."""
    boundary_precision: float | None
    """Share of the parcels' boundaries within the tolerance of a true one."""
    boundary_recall: float | None
    """Share of the true boundaries within the tolerance of a parcel's."""
    boundary_f1: float | None
    areas: tuple[AreaError, ...]
    blocks: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class _Layer:
    """Polygons in metres of one equal-area plane."""

    shapes: np.ndarray
    names: Int[np.ndarray, " n"]
    """Of the class, as a position in the list of classes."""


def score_parcels(
    parcels: str | Path,
    truth: str | Path,
    *,
    tolerance: float,
    attribute: str = "class",
    truth_attribute: str | None = None,
    classes: Sequence[str] | None = None,
    within: str | Path | None = None,
    block: float = 500.0,
    seed: int = 0,
) -> ParcelScores:
    """Compare parcels with true ones.

    Everything is measured in an equal-area plane around the parcels (Lambert's azimuthal one), whatever the
    coordinate systems of the files.

    * Objects: a parcel and a true one of the same class match if their intersection over union is above 0.5, so that
      in a coverage each has one match at most (Kirillov et al., Panoptic Segmentation, 2019, section 4.1). Where true
      ones overlap, the best pair goes first.
    * Boundaries: by length, within a tolerance (Csurka et al., What is a good evaluation measure for semantic
      segmentation?, 2013). Those within the tolerance of the area's own edge are not counted.
    * Over- and under-segmentation: Clinton et al., Accuracy assessment measures for object-based image segmentation
      goodness, 2010, equations 2 and 3, with the parcel of largest intersection (Persello and Bruzzone, 2010).
    * Areas: the relative error of a class.
    * 95 % intervals, of the areas' errors and of the objects' F1: by drawing whole blocks with replacement (Efron and
      Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13), since neighbouring pixels and fields err
      together. A parcel counts in the block that a point inside of it lies in. Blocks should be larger than parcels.

    Args:
        parcels: a file of polygons, such as `polygonize` writes.
        truth: a file of the true ones.
        tolerance: of boundaries, in metres.
        attribute: the column of the parcels with their classes.
        truth_attribute: that of the true ones; None: all are of the one class in ``classes``.
        classes: those to score; None: all.
        within: a raster or a file of polygons; only what lies in its outline is scored, and polygons are cut at its
            edge. None: the rectangle around all parcels of the file.
        block: side of a block in metres.
        seed: of the draws.

    Raises:
        DataError: a file that is not there, holds no polygons or has no coordinate system, or no such column.
        ConfigError: an unknown class, more than one class for true parcels that have none, or a number out of range.
        MissingExtraError: the extra ``geo`` is not installed.
    """
    for name, value in (("tolerance", tolerance), ("block", block)):
        if not 0 < value < np.inf:
            raise ConfigError(f"{name} = {value} is no length in metres. Give a number above 0.")
    found = read_polygons(parcels, attribute=attribute, named=("PARCELS", "--attribute"))
    true = read_polygons(truth, attribute=truth_attribute, named=("TRUTH", "--truth-attribute"))
    names = _names_to_score(found, true, classes)
    values = [str(value) for value in found.values or ()]
    true_values = names * len(true.geometries) if true.values is None else [str(value) for value in true.values]
    around = box_around(found.geometries, found.crs)
    plane = _plane(np.array([around]), found.crs)
    area = _area(within, around, found.crs, plane)
    _require_near(parcels, found, area, plane, within or parcels)
    _require_near(truth, true, area, plane, within or parcels)
    own = _layer(found.geometries, values, found.crs, names, plane, area)
    theirs = _layer(true.geometries, true_values, true.crs, names, plane, area)
    cells = _cells(area, block)
    along = np.array([_boundary_lengths(own, theirs, cell, area, tolerance) for cell in cells]).reshape(-1, 4).sum(0)
    boundary_precision, boundary_recall = _ratio(along[0], along[1]), _ratio(along[2], along[3])
    pairs, over, under, missed = _compare(own, theirs)
    matched = len(pairs.ious)
    precision, recall = _ratio(matched, len(own.shapes)), _ratio(matched, len(theirs.shapes))
    measured = np.array([[_class_areas(layer, cell, len(names)) for layer in (own, theirs)] for cell in cells])
    draws = np.random.default_rng(seed).multinomial(len(cells), np.full(len(cells), 1 / len(cells)), DRAWS)
    # F1 is the share of matched objects among the parcels and the true ones together.
    objects = _per_cell(own.shapes, cells) + _per_cell(theirs.shapes, cells)
    in_pairs = _per_cell(own.shapes[pairs.own], cells) + _per_cell(theirs.shapes[pairs.theirs], cells)
    f1_low, f1_high = _interval(in_pairs, objects, draws)
    return ParcelScores(
        parcels=len(own.shapes),
        truth=len(theirs.shapes),
        matched=matched,
        precision=precision,
        recall=recall,
        f1=_harmonic(precision, recall),
        f1_low=f1_low,
        f1_high=f1_high,
        matched_iou=_mean(pairs.ious),
        over_segmentation=_mean(over),
        under_segmentation=_mean(under),
        missed=missed,
        tolerance=tolerance,
        boundary_precision=boundary_precision,
        boundary_recall=boundary_recall,
        boundary_f1=_harmonic(boundary_precision, boundary_recall),
        areas=tuple(_area_error(name, measured[:, 0, i], measured[:, 1, i], draws) for i, name in enumerate(names)),
        blocks=len(cells),
    )


def _names_to_score(found: Polygons, true: Polygons, classes: Sequence[str] | None) -> list[str]:
    """Return the classes that are scored: exactly one, if the true parcels have none.

    Raises:
        ConfigError: several for such true parcels, or an unknown one.
    """
    known = {str(value) for value in found.values or ()}
    names = list(classes) if classes is not None else sorted(known)
    if true.values is None and len(names) != 1:
        raise ConfigError(
            f"{true.path} says no classes, but {', '.join(names)} of {found.path} would be scored. Name one of them "
            "with --class, or the column of the true classes with --truth-attribute."
        )
    known |= {str(value) for value in true.values or ()}
    unknown = [name for name in names if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{found.path} has no class {unknown[0]!r}; it has {', '.join(sorted(known))}.{hint}")
    return names


def _plane(outline: np.ndarray, crs: CRS) -> CRS:
    left, bottom, right, top = optional_module("shapely").total_bounds(outline)
    middle = transformed(crs, degrees(), np.array([[(left + right) / 2, (bottom + top) / 2]]))[0]
    return CRS.from_proj4(f"+proj=laea +lat_0={middle[1]} +lon_0={middle[0]} +datum=WGS84 +units=m")


def _area(within: str | Path | None, around: Any, crs: CRS, plane: CRS) -> Any:
    shapely = optional_module("shapely")
    if within is None:
        outline = np.array([around])
    elif Path(within).suffix.lower() in IMAGE_SUFFIXES:
        info = describe(within)
        crs, transform = placement(info, "nothing lies within it")
        box = shapely.box(0, 0, info.width, info.height)
        outline = np.array([shapely.transform(box, lambda xy: placed(transform, xy))])
    else:
        read = read_polygons(within, named=("--within", ""))
        outline, crs = read.geometries, read.crs
    return shapely.union_all(_moved(outline, crs, plane))


def _require_near(path: str | Path, polygons: Polygons, area: Any, plane: CRS, where: str | Path) -> None:
    """See that some polygons lie no further from the area that is scored than that is large.

    That none lies in it may be so; that all are far from it is a mistake.
    """
    shapely = optional_module("shapely")
    left, bottom, right, top = shapely.bounds(area).tolist()
    around = shapely.box(left, bottom, right, top).buffer(np.hypot(right - left, top - bottom))
    bounds = shapely.bounds(shapely.transform(polygons.geometries, lambda xy: transformed(polygons.crs, plane, xy)))
    # What has no place in the plane is on the other side of the globe.
    bounds = bounds[np.isfinite(bounds).all(axis=1)]
    if len(bounds) and shapely.box(*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)).intersects(around):
        return
    longitude, latitude = transformed(polygons.crs, degrees(), shapely.get_coordinates(polygons.geometries[:1])[:1])[0]
    raise DataError(
        f"No polygon of {path} lies near the area that is scored, that of {where}: the first one is at longitude "
        f"{longitude:.3f}, latitude {latitude:.3f}. Name files of one place, and check their coordinate systems.",
        code="PW422",
    )


def _moved(geometries: np.ndarray, crs: CRS, plane: CRS) -> np.ndarray:
    shapely = optional_module("shapely")
    moved = shapely.transform(geometries, lambda xy: transformed(crs, plane, xy))
    # Two halves of a parcel that the antimeridian parts are one parcel, without a boundary between them.
    _, moved = joined(np.arange(len(moved)), moved, touches_seam(geometries, around_globe(crs)), SNAP)
    invalid = ~shapely.is_valid(moved)
    moved[invalid] = [areal_parts(each) for each in shapely.make_valid(moved[invalid])]
    return moved


def _layer(geometries: np.ndarray, values: list[str], crs: CRS, names: list[str], plane: CRS, area: Any) -> _Layer:
    shapely = optional_module("shapely")
    position = {name: i for i, name in enumerate(names)}
    number = np.array([position.get(value, -1) for value in values], np.int64)
    shapes, number = _moved(geometries[number >= 0], crs, plane), number[number >= 0]
    cut = ~shapely.contains_properly(area, shapes)
    shapes[cut] = [areal_parts(each) for each in shapely.intersection(shapes[cut], area)]
    left = shapely.area(shapes) > 0
    return _Layer(shapes[left], number[left])


def _cells(area: Any, block: float) -> list[Any]:
    """Return the parts of an area that lie in each block of a grid; scenes far apart have blocks of their own."""
    shapely, found = optional_module("shapely"), []
    for part in shapely.get_parts(area):
        left, bottom, right, top = (shapely.bounds(part) / block).tolist()
        columns, rows = np.arange(np.floor(left), np.ceil(right)), np.arange(np.floor(bottom), np.ceil(top))
        x, y = (each.ravel() * block for each in np.meshgrid(columns, rows))
        cells = shapely.intersection(shapely.box(x, y, x + block, y + block), part)
        found += cells[shapely.area(cells) > 0].tolist()
    return found


def _near(shapes: np.ndarray, place: Any, reach: float) -> np.ndarray:
    """Return the shapes whose bounds come close to a place."""
    shapely = optional_module("shapely")
    left, bottom, right, top = shapely.bounds(place) + np.array([-reach, -reach, reach, reach])
    bounds = shapely.bounds(shapes)
    return (bounds[:, 0] <= right) & (bounds[:, 2] >= left) & (bounds[:, 1] <= top) & (bounds[:, 3] >= bottom)


def _boundary_lengths(own: _Layer, theirs: _Layer, cell: Any, area: Any, tolerance: float) -> list[float]:
    """Return in a block: own boundary near a true one, own boundary, true boundary near an own one, true boundary."""
    shapely = optional_module("shapely")
    # Where the area ends, boundaries are its own.
    inner = shapely.intersection(cell, shapely.buffer(area, -tolerance))
    lines = []
    for layer in (own, theirs):
        near = shapely.boundary(layer.shapes[_near(layer.shapes, cell, 2 * tolerance)])
        around = shapely.buffer(cell, 2 * tolerance, join_style="mitre")
        # A border that two parcels share is one line.
        lines.append(shapely.union_all(shapely.intersection(near, around)))
    out = []
    for one, other in (lines, lines[::-1]):
        here = shapely.intersection(one, inner)
        out += [shapely.length(shapely.intersection(here, shapely.buffer(other, tolerance))), shapely.length(here)]
    return out


def _class_areas(layer: _Layer, cell: Any, count: int) -> Float64[np.ndarray, " classes"]:
    shapely = optional_module("shapely")
    near = _near(layer.shapes, cell, 0)
    parts, names = shapely.intersection(layer.shapes[near], cell), layer.names[near]
    # True parcels may overlap; ground counts once.
    return np.array([shapely.area(shapely.union_all(parts[names == i])) for i in range(count)])


def _per_cell(shapes: np.ndarray, cells: list[Any]) -> Int[np.ndarray, " cells"]:
    """Return how many shapes have a point inside in each cell; each shape counts once."""
    shapely = optional_module("shapely")
    return np.bincount(shapely.STRtree(cells).nearest(shapely.point_on_surface(shapes)), minlength=len(cells))


@dataclass(frozen=True)
class _Pairs:
    """Which parcels match which true ones, by position, and how well."""

    own: Int[np.ndarray, " m"]
    theirs: Int[np.ndarray, " m"]
    ious: list[float]


def _compare(own: _Layer, theirs: _Layer) -> tuple[_Pairs, np.ndarray, np.ndarray, int]:
    """Return what matches; the over- and under-segmentation of each true one touched; how many are not touched."""
    shapely = optional_module("shapely")
    true, at = shapely.STRtree(own.shapes).query(theirs.shapes, predicate="intersects")
    common = shapely.area(shapely.intersection(theirs.shapes[true], own.shapes[at]))
    real = (common > 0) & (theirs.names[true] == own.names[at])
    true, at, common = true[real], at[real], common[real]
    size, true_size = shapely.area(own.shapes)[at], shapely.area(theirs.shapes)[true]
    iou = common / (size + true_size - common)
    ious, pairs, used, true_used = [], [], set(), set()
    for i in np.argsort(-iou, kind="stable").tolist():
        if iou[i] > 0.5 and at[i] not in used and true[i] not in true_used:
            used.add(at[i])
            true_used.add(true[i])
            pairs.append((at[i], true[i]))
            ious.append(float(iou[i]))
    # The largest intersection of each true one comes first.
    order = np.lexsort((at, -common, true))
    touched, first = np.unique(true[order], return_index=True)
    largest = order[first]
    over, under = 1 - common[largest] / true_size[largest], 1 - common[largest] / size[largest]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return _Pairs(first, second, ious), over, under, len(theirs.shapes) - len(touched)


def _area_error(
    name: str, area: Float64[np.ndarray, " b"], truth: Float64[np.ndarray, " b"], draws: Int[np.ndarray, "d b"]
) -> AreaError:
    total, true = float(area.sum()), float(truth.sum())
    if true == 0:
        return AreaError(name, total, true, None, None, None)
    low, high = _interval(area - truth, truth, draws)
    return AreaError(name, total, true, total / true - 1, low, high)


def _interval(
    part: Shaped[np.ndarray, " b"], whole: Shaped[np.ndarray, " b"], draws: Int[np.ndarray, "d b"]
) -> tuple[float | None, float | None]:
    """Return the 95 % interval of sum(part) / sum(whole), from blocks that are drawn again; None for fewer than two."""
    drawn, drawn_whole = draws @ part, draws @ whole
    if len(part) < 2 or not (drawn_whole > 0).any():
        return None, None
    low, high = np.percentile(drawn[drawn_whole > 0] / drawn_whole[drawn_whole > 0], (2.5, 97.5)).tolist()
    return low, high


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _harmonic(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return None
    return 2 * one * other / (one + other) if one + other else 0.0
