"""Polygons where longitude begins again: at 180 degrees, and around the poles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped
from rasterio.crs import CRS

from pixelwise.geo.coordinates import Circle, around_globe, unwrapped
from pixelwise.optional import optional_module

LONG_WAY = 0.75
"""An edge that is longer than this share of the way around the globe is meant to cross the antimeridian instead."""
SHORT_WAY = 0.25
"""Its polygon then has to be smaller than this share, in width and in height."""
NEAR = 1e-6
"""Points of a plane closer than this, in its units, are one."""
DECIMALS = 10
"""Of degrees in a GeoJSON: a hundredth of a millimetre."""


def across_antimeridian(geometries: Shaped[np.ndarray, " n"], crs: CRS) -> Shaped[np.ndarray, " n"]:
    """Return polygons whose edges go the short way over the antimeridian, so that x runs on beyond 180 degrees.

    RFC 7946, section 3.1.9, wants polygons cut there, but many programs write 179.9 and then -179.9. A polygon is
    taken for such if that makes it small.
    """
    circle, shapely = around_globe(crs), optional_module("shapely")
    if circle is None:
        return geometries
    bounds = shapely.bounds(geometries)
    wide = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > LONG_WAY * circle.length)
    if len(wide):
        geometries = geometries.copy()
        geometries[wide] = [_short_way(geometry, circle) for geometry in geometries[wide]]
    return geometries


def _short_way(geometry: Any, circle: Circle) -> Any:
    shapely = optional_module("shapely")
    parts = []
    for part in shapely.get_parts(geometry):
        rings = [shapely.get_coordinates(ring) for ring in (part.exterior, *part.interiors)]
        shell = np.unwrap(rings[0][:, 0], period=circle.length)
        crosses = np.abs(np.diff(rings[0][:, 0])).max(initial=0.0) > LONG_WAY * circle.length
        size = np.array([np.ptp(shell), np.ptp(rings[0][:, 1])]) / circle.length
        small = 1e-12 < size[0] < SHORT_WAY and size[1] < SHORT_WAY and abs(shell[0] - shell[-1]) < 1e-9 * circle.length
        if not (crosses and small):
            parts.append(part)
            continue
        for ring in rings:
            ring[:, 0] = unwrapped(ring[:, 0], float(shell[0]), circle)
        parts.append(shapely.Polygon(rings[0], rings[1:]))
    return shapely.multipolygons(parts) if len(parts) > 1 else parts[0]


def _shifted(geometry: Any, step: float) -> Any:
    return optional_module("shapely").transform(geometry, lambda xy: xy + np.array([step, 0.0]))


def _on_seam(x: Float64[np.ndarray, "*n"], circle: Circle) -> Shaped[np.ndarray, "*n"]:
    turns = (x - circle.seam) / circle.length
    return np.abs(turns - np.rint(turns)) < 1e-12


def copies_within(
    geometries: Shaped[np.ndarray, " n"], around: Any, circle: Circle | None
) -> tuple[Int[np.ndarray, " m"], Shaped[np.ndarray, " m"]]:
    """Return which polygons meet a place, and those, turned around the globe to where the place is.

    A polygon that meets it twice, from both sides of the antimeridian, is there twice.
    """
    shapely = optional_module("shapely")
    found, pieces = [], []
    left, _, right, _ = shapely.total_bounds(geometries)
    low, _, high, _ = shapely.bounds(around)
    turns = [0]
    if circle is not None:
        turns = range(int(np.floor((low - right) / circle.length)), int(np.ceil((high - left) / circle.length)) + 1)
    for turn in turns:
        step = turn * circle.length if circle is not None else 0.0
        at = np.flatnonzero(shapely.intersects(geometries, _shifted(around, -step)))
        moved = geometries[at]
        found.append(at)
        pieces.append(_shifted(moved, step) if turn else moved)
    which, placed = np.concatenate(found), np.concatenate(pieces)
    order = np.argsort(which, kind="stable")
    return which[order], placed[order]


def touches_seam(geometries: Shaped[np.ndarray, " n"], circle: Circle | None) -> Shaped[np.ndarray, " n"]:
    """Return which polygons have a corner on the antimeridian, where their other half may be a polygon of its own."""
    shapely = optional_module("shapely")
    out = np.zeros(len(geometries), bool)
    if circle is not None:
        xy, of = shapely.get_coordinates(geometries, return_index=True)
        out[of[_on_seam(xy[:, 0], circle)]] = True
    return out


def joined(
    which: Int[np.ndarray, " m"], pieces: Shaped[np.ndarray, " m"], cut: Shaped[np.ndarray, " m"], grid: float
) -> tuple[Int[np.ndarray, " k"], Shaped[np.ndarray, " k"]]:
    """Return each polygon once, its pieces joined where the antimeridian had cut it.

    Args:
        which: of which polygon each piece is, in order.
        cut: the pieces that the antimeridian may have cut.
        grid: corners closer than this are one.
    """
    shapely = optional_module("shapely")
    twice = np.isin(which, which[1:][np.diff(which) == 0]) | np.isin(which, which[cut])
    if not twice.any():
        return which, pieces
    out = dict(zip(which[~twice].tolist(), pieces[~twice], strict=True))
    for each in np.unique(which[twice]).tolist():
        # A union leaves a lone polygon as it is, also one that touches itself where it was cut around a pole.
        out[each] = shapely.union_all(shapely.set_precision(pieces[which == each], grid), grid_size=grid)
    order = np.array(sorted(out), np.int64)
    kept = np.empty(len(order), object)
    kept[:] = [out[each] for each in order.tolist()]
    return order, kept


def box_around(geometries: Shaped[np.ndarray, " n"], crs: CRS) -> Any:
    """Return the rectangle around polygons: the narrowest one, where they may lie on both sides of the antimeridian."""
    shapely, circle = optional_module("shapely"), around_globe(crs)
    if circle is None:
        return shapely.box(*shapely.total_bounds(geometries))
    left, bottom, right, top = shapely.bounds(shapely.get_parts(geometries)).T
    order = np.argsort(left)
    reach = np.maximum.accumulate(right[order])
    # The widest gap that nothing lies in, on the way around the globe, is where the rectangle is open.
    gaps = np.append(left[order][1:], left[order][0] + circle.length) - reach
    last = int(np.argmax(gaps))
    west = left[order][(last + 1) % len(order)]
    east = reach[last] if last == len(order) - 1 else reach[last] + circle.length
    return shapely.box(west, bottom.min(), east, top.max())


@dataclass(frozen=True)
class Plane:
    """A plane that is mapped to degrees, and where the poles are in it."""

    to_degrees: Callable[[Float64[np.ndarray, "n 2"]], Float64[np.ndarray, "n 2"]]
    """To longitude and latitude, rounded to so many decimals that they are the same after a turn around the globe."""
    poles: Float64[np.ndarray, "p 2"]
    """Points of the plane, none to two."""


def cut_at_antimeridian(polygons: Shaped[np.ndarray, " n"], plane: Plane) -> Shaped[np.ndarray, " n"]:
    """Return polygons of a plane in degrees, cut at 180 degrees (RFC 7946, section 3.1.9).

    Neighbours get the same new corners, so a coverage stays one. A polygon around a pole reaches up to it.

    Args:
        polygons: with short edges.
        plane: that they lie in.
    """
    shapely = optional_module("shapely")
    moved = shapely.transform(polygons, plane.to_degrees)
    if len(polygons) == 0:
        return moved
    _, xy, (rings, parts) = shapely.to_ragged_array(moved)
    jumps = np.abs(np.diff(xy[:, 0])) > 180
    jumps[rings[1:-1] - 1] = False
    ring_of = np.repeat(np.arange(len(rings) - 1), np.diff(rings))
    polygon_of = np.repeat(np.arange(len(parts) - 1), np.diff(parts))
    strange = set(polygon_of[ring_of[:-1][jumps]].tolist())
    for pole in plane.poles:
        strange |= set(
            np.flatnonzero(shapely.distance(shapely.boundary(polygons), shapely.Point(pole)) < NEAR).tolist()
        )
    for each in sorted(strange):
        moved[each] = _cut(polygons[each], plane)
    return moved


def _cut(polygon: Any, plane: Plane) -> Any:
    """Return a polygon or multipolygon in degrees, each part between -180 and 180."""
    shapely = optional_module("shapely")
    shell, *holes = (_unrolled(shapely.get_coordinates(ring), plane) for ring in (polygon.exterior, *polygon.interiors))
    for hole in holes:
        for turn in (-360.0, 0.0, 360.0):
            shell = shapely.difference(shell, _shifted(hole, turn))
    left, _, right, _ = shapely.bounds(shell).tolist()
    parts = []
    for turn in range(int(np.floor((left + 180) / 360)), int(np.ceil((right + 180) / 360))):
        middle = 360.0 * turn
        piece = shapely.intersection(shell, shapely.box(middle - 180, -90, middle + 180, 90))
        piece = shapely.transform(_shifted(piece, -middle), lambda xy: np.round(xy, DECIMALS))
        parts += [part for part in shapely.get_parts(piece) if part.geom_type == "Polygon" and part.area > 0]
    return shapely.multipolygons(parts) if len(parts) > 1 else parts[0]


def _unrolled(ring: Float64[np.ndarray, "n 2"], plane: Plane) -> Any:
    """Return what a ring encloses, with longitudes that run on beyond 180 degrees; up to the pole if it has that."""
    shapely = optional_module("shapely")
    corners = _with_poles(ring[:-1], plane)
    degrees = plane.to_degrees(corners)
    at_pole = np.zeros(len(corners), bool)
    for pole in plane.poles:
        at_pole |= np.hypot(*(corners - pole).T) < NEAR
    degrees, at_pole = _with_crossings(corners, degrees, at_pole, plane)
    pole = float(np.copysign(90.0, degrees[:, 1].sum()))
    if at_pole.any():
        # Along the other corners longitude is continuous; the way through the pole is what closes the ring.
        start = int(np.flatnonzero(at_pole)[0])
        degrees = np.delete(np.roll(degrees, -start, axis=0), 0, axis=0)
    else:
        # A ring around the pole is opened where it crosses the antimeridian closest to the pole, to be cut there.
        crossing = np.where(np.abs(degrees[:, 0]) == 180, np.abs(degrees[:, 1]), -1)
        degrees = np.roll(degrees, -int(np.argmax(crossing)), axis=0)
        degrees = np.concatenate([degrees, degrees[:1]])
    degrees[:, 0] = np.unwrap(degrees[:, 0], period=360)
    if at_pole.any() or abs(degrees[-1, 0] - degrees[0, 0]) > 180:
        over = np.array([[degrees[-1, 0], pole], [degrees[0, 0], pole]])
        degrees = np.concatenate([degrees, over])
    unrolled = shapely.Polygon(degrees)
    return unrolled if unrolled.is_valid else shapely.make_valid(unrolled)


def _with_poles(corners: Float64[np.ndarray, "n 2"], plane: Plane) -> Float64[np.ndarray, "m 2"]:
    """Return the corners of a ring, with a pole among them where an edge passes through it."""
    for pole in plane.poles:
        start, step = corners, np.roll(corners, -1, axis=0) - corners
        share = ((pole - start) * step).sum(axis=1) / (step**2).sum(axis=1)
        beside = np.hypot(*(start + share[:, None] * step - pole).T)
        inner = share * np.hypot(*step.T)
        on = (beside < NEAR) & (inner > NEAR) & (np.hypot(*step.T) - inner > NEAR)
        corners = np.insert(corners, np.flatnonzero(on) + 1, pole, axis=0)
    return corners


def _with_crossings(
    corners: Float64[np.ndarray, "n 2"],
    degrees: Float64[np.ndarray, "n 2"],
    at_pole: Shaped[np.ndarray, " n"],
    plane: Plane,
) -> tuple[Float64[np.ndarray, "m 2"], Shaped[np.ndarray, " m"]]:
    """Return a ring in degrees, with a corner at 180 where an edge crosses it, and which corners are poles."""
    after = np.roll(np.arange(len(corners)), -1)
    apart = np.abs(degrees[after, 0] - degrees[:, 0]) > 180
    inner = (np.abs(degrees[:, 0]) < 180) & (np.abs(degrees[after, 0]) < 180) & ~at_pole & ~at_pole[after]
    edges = np.flatnonzero(apart & inner)
    one, other = corners[edges], corners[after[edges]]
    # Halved from the same end whichever way the edge runs, so that the neighbour finds the same point.
    turned = (one[:, 0] > other[:, 0]) | ((one[:, 0] == other[:, 0]) & (one[:, 1] > other[:, 1]))
    low, high = np.where(turned[:, None], other, one), np.where(turned[:, None], one, other)
    east = plane.to_degrees(low)[:, 0] > 0
    for _ in range(60 if len(edges) else 0):
        middle = (low + high) / 2
        beyond = (plane.to_degrees(middle)[:, 0] > 0) != east
        low, high = np.where(beyond[:, None], low, middle), np.where(beyond[:, None], middle, high)
    crossings = np.stack([np.full(len(edges), 180.0), plane.to_degrees(high)[:, 1]], axis=1)
    return np.insert(degrees, edges + 1, crossings, axis=0), np.insert(at_pole, edges + 1, False)
