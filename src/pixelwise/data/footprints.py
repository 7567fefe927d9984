"""Which scenes share ground, and how large their pixels are on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from jaxtyping import Float64
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import RPCTransformer

from pixelwise.geo.coordinates import around_globe, placed, transform_of_points, transformed, unwrapped
from pixelwise.geo.proj import degrees
from pixelwise.geo.raster import RasterInfo

SIDE_POINTS = 9
"""Of a footprint's outline, on each side: sides are not straight in another coordinate system."""
EARTH = 6_371_000.0
"""Mean radius in metres."""
RESOLUTIONS = 1.5
"""The user is told if the largest pixel is at least so many times the smallest."""


def exact_place(info: RasterInfo) -> tuple[CRS, Affine] | None:
    """Return a scene's coordinate system and transform, from its control points if they tell one to half a pixel."""
    found = (info.crs, info.transform) if info.crs is not None else (info.gcps_crs, transform_of_points(info))
    crs, transform = found
    if crs is None or transform is None or not np.isfinite(transform[:6]).all() or transform.determinant == 0:
        return None
    return crs, transform


@dataclass(frozen=True)
class _Footprint:
    crs: CRS
    outline: Float64[np.ndarray, "n 2"]
    """In the coordinate system, around the scene; the first point of each quarter is a corner."""
    exact: bool
    """Pixels lie on a straight grid in the coordinate system."""
    directions: Float64[np.ndarray, "n 3"]
    """The outline's points, as seen from the middle of the earth; none where the system has no place on it."""

    @property
    def middle(self) -> Float64[np.ndarray, " 3"]:
        """Between the directions."""
        return self.directions.mean(axis=0) if len(self.directions) else np.zeros(3)

    @property
    def reach(self) -> float:
        """How far the directions are from their middle at most; infinite where there are none."""
        away = np.linalg.norm(self.directions - self.middle, axis=1)
        return float(away.max()) if len(away) else np.inf


def overlapping_groups(scenes: Sequence[RasterInfo]) -> list[list[int]]:
    """Join scenes that share ground, directly or through others, into groups of their indices.

    A scene without a place on the ground shares it with none. Scenes of one coordinate system are compared in it,
    others in an equal-area plane around one of them, so that neither zones nor the antimeridian nor a pole part a place
    from itself. Scenes placed by control points or a camera model (RPCs, at their mean height) are compared as those
    say.
    """
    group = list(range(len(scenes)))
    footprints = [_footprint(scene) for scene in scenes]
    middles = np.array([f.middle if f else np.zeros(3) for f in footprints]).reshape(-1, 3)
    reaches = np.array([f.reach if f else -np.inf for f in footprints])
    for i, mine in enumerate(footprints):
        # Most pairs are far apart, which one look at all of them tells.
        near = np.linalg.norm(middles[:i] - middles[i], axis=1) <= 1.1 * (reaches[:i] + reaches[i])
        for j in np.flatnonzero(near).tolist():
            other = footprints[j]
            if mine and other and group[i] != group[j] and _overlap(mine, other):
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    members: dict[int, list[int]] = {}
    for i, name in enumerate(group):
        members.setdefault(name, []).append(i)
    return list(members.values())


def _footprint(info: RasterInfo) -> _Footprint | None:
    along = np.arange(SIDE_POINTS - 1) / (SIDE_POINTS - 1)
    zero, one = np.zeros_like(along), np.ones_like(along)
    x, y = np.concatenate([along, one, 1 - along, zero]), np.concatenate([zero, along, one, 1 - along])
    pixels = np.stack([x * info.width, y * info.height], axis=1)
    place = exact_place(info)
    if place is not None:
        crs, outline = place[0], placed(place[1], pixels)
    elif info.gcps_crs is not None and info.gcps:
        # Between the points the scene may bend; beyond them it goes on for about as long as it is.
        crs, points = info.gcps_crs, np.array([(point.x, point.y) for point in info.gcps])
        low, high = points.min(axis=0), points.max(axis=0)
        outline = low + np.stack([x, y], axis=1) * (high - low)
    elif info.rpcs is not None:
        crs, outline = degrees(), _seen(info, pixels)
    else:
        return None
    outline = outline[np.isfinite(outline).all(axis=1)]
    if len(outline) < 3:
        return None
    return _Footprint(crs, outline, place is not None, _directions(crs, outline))


def _seen(info: RasterInfo, pixels: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    assert info.rpcs is not None
    try:
        with RPCTransformer(info.rpcs, RPC_HEIGHT=info.rpcs.height_off) as camera:
            longitude, latitude = camera.xy(pixels[:, 1], pixels[:, 0], offset="ul")
    except (RasterioError, ValueError):
        return np.empty((0, 2))
    return np.stack([np.asarray(longitude), np.asarray(latitude)], axis=1).astype(np.float64)


def _directions(crs: CRS, outline: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "m 3"]:
    if not (crs.is_geographic or crs.is_projected):
        return np.empty((0, 3))
    longitude, latitude = np.radians(transformed(crs, degrees(), outline)).T
    seen = np.isfinite(longitude) & np.isfinite(latitude)
    longitude, latitude = longitude[seen], latitude[seen]
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )


def _overlap(mine: _Footprint, other: _Footprint) -> bool:
    if mine.exact and other.exact and mine.crs == other.crs:
        theirs, circle = other.outline.copy(), around_globe(mine.crs)
        step = unwrapped(theirs[:1, 0], float(mine.outline[0, 0]), circle) - theirs[:1, 0]
        theirs[:, 0] += step
        if circle is None:
            return _meet(mine.outline, theirs)
        turns = (-circle.length, 0.0, circle.length)
        return any(_meet(mine.outline, theirs + np.array([turn, 0.0])) for turn in turns)
    if len(mine.directions) < 3 or len(other.directions) < 3:
        return False
    return _meet(*_on_plane(mine.directions, other.directions))


def _on_plane(
    mine: Float64[np.ndarray, "n 3"], other: Float64[np.ndarray, "m 3"]
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, "m 2"]]:
    """Return two outlines in Lambert's azimuthal equal-area plane (1772) around the first, in radii of the earth."""
    up = mine.mean(axis=0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-9 else np.array([0.0, 0.0, 1.0])
    east = np.cross([0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [1.0, 0.0, 0.0], up)
    east /= np.linalg.norm(east)
    frame = np.stack([east, np.cross(up, east), up], axis=1)
    a, b = (points @ frame for points in (mine, other))
    scale_a, scale_b = (np.sqrt(2 / np.maximum(1 + points[:, 2:], 1e-12)) for points in (a, b))
    return a[:, :2] * scale_a, b[:, :2] * scale_b


def _meet(one: Float64[np.ndarray, "n 2"], other: Float64[np.ndarray, "m 2"]) -> bool:
    """Return whether two outlines without dents overlap: no line along a side of either of them parts them."""
    # Neighbours that share an edge do not overlap; rounding in a georeference must not make them.
    slack = 1e-6 * float(np.ptp(one, axis=0).max())
    for outline in (one, other):
        sides = np.roll(outline, -1, axis=0) - outline
        lengths = np.hypot(*sides.T)
        normals = np.stack([-sides[:, 1], sides[:, 0]], axis=1)[lengths > 0] / lengths[lengths > 0, None]
        a, b = one @ normals.T, other @ normals.T
        shared = np.minimum(a.max(axis=0), b.max(axis=0)) - np.maximum(a.min(axis=0), b.min(axis=0))
        if (shared <= slack).any():
            return False
    return True


def pixel_metres(info: RasterInfo) -> float | None:
    """Return the side in metres of a pixel in the middle of a scene; None where it has no place on the ground."""
    place = exact_place(info)
    if place is None or not (place[0].is_geographic or place[0].is_projected):
        return None
    middle = np.array([info.width / 2, info.height / 2])
    seen = _directions(place[0], placed(place[1], middle + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))
    if len(seen) < 3:
        return None
    across, down = seen[1] - seen[0], seen[2] - seen[0]
    return float(EARTH * np.sqrt(np.linalg.norm(np.cross(across, down))))


def resolution_note(scenes: Sequence[RasterInfo]) -> str | None:
    """Return a sentence if pixels of some scenes are `RESOLUTIONS` times as wide on the ground as those of others."""
    sizes = [(size, info.path) for info in scenes if (size := pixel_metres(info)) is not None]
    if not sizes or max(sizes)[0] < RESOLUTIONS * min(sizes)[0]:
        return None
    (small, fine), (large, coarse) = min(sizes), max(sizes)
    return (
        f"Pixels are {small:.3g} m wide on the ground in {fine.name} and {large:.3g} m in {coarse.name}. A network "
        "learns and maps one size best: resample the scenes to one, or separate them."
    )
