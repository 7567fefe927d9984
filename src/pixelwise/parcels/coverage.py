"""Polygons that fill a surface without gap or overlap, simplified so that they still do."""

import numpy as np
from jaxtyping import Float64

from pixelwise.optional import optional_module


def is_coverage(polygons: np.ndarray) -> bool:
    """Return whether no two polygons overlap, and whether neighbours have the same vertices on their border."""
    return bool(optional_module("shapely").coverage_is_valid(polygons))


def simplified(
    polygons: np.ndarray, tolerance: float, to_metres: Float64[np.ndarray, "2 2"]
) -> tuple[np.ndarray, float]:
    """Return a coverage with fewer vertices, and the tolerance that was used, in metres.

    Visvalingam and Whyatt's method (1993) on the whole coverage, as GEOS has it: of the vertices where only two
    polygons meet, that with the smallest triangle goes first, while triangles are at most ``tolerance`` squared. A
    shared border stays shared. The outer edge of the coverage stays as it is, so the areas still add up to the same
    sum; each vertex that goes changes the area of its two polygons by ``tolerance`` squared at most.

    Args:
        polygons: a coverage whose vertices are whole numbers (pixel corners), which they stay.
        tolerance: in metres. Halved while the simplified coverage is not valid, three times at most; then it is 0.
        to_metres: a step in pixels to metres on the ground.
    """
    shapely = optional_module("shapely")
    if tolerance == 0 or len(polygons) == 0:
        return polygons, tolerance
    back = np.linalg.inv(to_metres)
    ground = shapely.transform(polygons, lambda xy: linear(to_metres, xy))
    for halvings in range(4):
        used = tolerance / 2**halvings
        simpler = shapely.coverage_simplify(ground, used, simplify_boundary=False)
        # Vertices only go, and none moves. So each is a pixel's corner, which rounding finds again.
        simpler = shapely.transform(simpler, lambda xy: np.rint(linear(back, xy)))
        if shapely.is_valid(simpler).all() and is_coverage(simpler):
            return simpler, used
    return polygons, 0.0


def linear(matrix: Float64[np.ndarray, "2 2"], xy: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Return points times a matrix. Equal points give equal results to the last bit; a matrix product gives others."""
    return np.stack([xy[:, 0] * row[0] + xy[:, 1] * row[1] for row in matrix], axis=1)


def densify(polygons: np.ndarray, longest: float) -> np.ndarray:
    """Return polygons whose edges are at most ``longest``; the points that are put in are the same for both neighbours.

    shapely.segmentize divides an edge from its beginning on, and so by other roundings for the neighbour, whose edge
    runs the other way.
    """
    shapely = optional_module("shapely")
    if len(polygons) == 0:
        return polygons
    kind, xy, (rings, parts) = shapely.to_ragged_array(polygons)
    last = np.zeros(len(xy), bool)
    last[rings[1:] - 1] = True
    start, end = xy, xy[np.minimum(np.arange(1, len(xy) + 1), len(xy) - 1)]
    steps = np.ceil(np.hypot(*(end - start).T) / longest).astype(np.int64).clip(min=1)
    steps[last] = 1
    backwards = (start[:, 0] > end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] > end[:, 1]))
    low, high = (np.where(backwards[:, None], one, other) for one, other in ((end, start), (start, end)))
    first = np.cumsum(steps) - steps
    edge = np.repeat(np.arange(len(xy)), steps)
    step = np.arange(steps.sum()) - first[edge]
    # Counted from the low end, whichever way the edge runs.
    share = np.where(backwards[edge], steps[edge] - step, step) / steps[edge]
    dense = low[edge] + (high - low)[edge] * share[:, None]
    dense[first] = xy
    return shapely.from_ragged_array(kind, dense, (np.append(first, len(dense))[rings], parts))
