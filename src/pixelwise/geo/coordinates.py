"""Places: from pixels to the ground, from one coordinate system to another, and steps in metres."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Float64
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points

from pixelwise.errors import DataError
from pixelwise.geo.proj import check_proj, degrees
from pixelwise.geo.raster import RasterInfo
from pixelwise.optional import optional_module

PERIODIC = (
    r'PROJECTION\["(Mercator|Mercator_1SP|Mercator_2SP|Mercator_Auxiliary_Sphere|Popular_Visualisation_Pseudo_Mercator|'
    r'Equirectangular|Equidistant_Cylindrical|Plate_Carree|Cylindrical_Equal_Area|Miller_Cylindrical)"'
)
"""Projections in which x is longitude times a constant, as WKT calls them."""


@dataclass(frozen=True)
class Circle:
    """A coordinate system in which x goes around the globe and begins again."""

    length: float
    """Of the way around, in units of the system."""
    seam: float
    """Where x jumps back by the length: at 180 degrees in most systems."""


def around_globe(crs: CRS) -> Circle | None:
    """Return how x goes around the globe; None in systems where it does not."""
    return _around_globe(crs.to_wkt())


@cache
def _around_globe(wkt: str) -> Circle | None:
    crs = CRS.from_wkt(wkt)
    if crs.is_geographic:
        length = round(2 * np.pi / crs.units_factor[1], 9)
        return Circle(length, length / 2)
    middle = re.search(r'PARAMETER\["central_meridian",([^\]]+)\]', wkt)
    if not re.search(PERIODIC, wkt) or middle is None:
        return None
    meridians = np.array([[float(middle[1]) + step, 0.0] for step in (-90, 90)])
    low, high = transformed(degrees(), crs, meridians)[:, 0].tolist()
    return Circle(2 * (high - low), (low + high) / 2 + (high - low))


def unwrapped(
    x: Float64[np.ndarray, "*n"], around: float | Float64[np.ndarray, "*n"], circle: Circle | None
) -> Float64[np.ndarray, "*n"]:
    """Return x, turned around the globe until it is at most half of the way around from some place."""
    if circle is None:
        return x
    return x + circle.length * np.rint((around - x) / circle.length)


def placement(info: RasterInfo, needed_for: str) -> tuple[CRS, Affine]:
    """Return a raster's coordinate system and the transform from its pixels, from its control points if need be.

    Args:
        needed_for: what cannot be done without, for the message.

    Raises:
        DataError: no coordinate system or a local one, pixels without area, camera models (RPCs), or control points
            that no transform meets to half a pixel.
    """
    crs, transform = info.crs, info.transform
    if crs is None and info.gcps_crs is not None:
        found = transform_of_points(info)
        if found is None:
            raise DataError(
                f"{info.path} is placed by control points that no straight grid meets to half a pixel, so {needed_for}."
                " Warp it first: gdalwarp -tps IN OUT.",
                code="PW409",
            )
        crs, transform = info.gcps_crs, found
    if crs is None and info.rpcs is not None:
        raise DataError(
            f"{info.path} is placed by a camera model (RPCs), so {needed_for}. Orthorectify it first: gdalwarp -rpc IN "
            "OUT, with the heights of the ground where there are any.",
            code="PW409",
        )
    if crs is None:
        raise DataError(f"{info.path} has no coordinate system, so {needed_for}. Georeference it.", code="PW409")
    check_on_earth(crs, info.path)
    if not np.isfinite(transform[:6]).all() or transform.determinant == 0:
        raise DataError(f"{info.path} has pixels of size 0, so {needed_for}. Georeference it again.", code="PW409")
    return crs, transform


def transform_of_points(info: RasterInfo) -> Affine | None:
    """Return the transform that control points tell, or None where it misses one of them by half a pixel or more."""
    if len(info.gcps) < 3:
        return None
    places = np.array([(point.col, point.row, 1.0) for point in info.gcps])
    ground = np.array([(point.x, point.y) for point in info.gcps])
    middle = ground.mean(axis=0)
    solution, _, rank, _ = np.linalg.lstsq(places, ground - middle, rcond=None)
    (a, d), (b, e), (c, f) = solution
    transform = Affine(a, b, c + middle[0], d, e, f + middle[1])
    if rank < 3 or transform.determinant == 0:
        return None
    missed = placed(~transform, ground) - places[:, :2]
    return transform if np.hypot(*missed.T).max() < 0.5 else None


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
    check_proj()
    try:
        return np.stack(transform_points(source, target, xy[:, 0], xy[:, 1])[:2], axis=1)
    except CPLE_BaseError:
        # rasterio gives up if one point has no place; pyproj goes on with the others.
        pyproj = optional_module("pyproj")
        between = pyproj.Transformer.from_crs(source.to_wkt(), target.to_wkt(), always_xy=True)
        return np.stack(between.transform(xy[:, 0], xy[:, 1]), axis=1)
    except (CRSError, RasterioError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"There is no way from {_name(source)} to {_name(target)}: {reason}.", code="PW424") from None


def _name(crs: CRS) -> str:
    return crs.to_string()[:80]


def check_on_earth(crs: CRS, path: Path) -> None:
    """See that coordinates have a place on the ground.

    Raises:
        DataError: they are local, such as those of a drawing.
    """
    if not (crs.is_geographic or crs.is_projected):
        raise DataError(
            f"{path} has a local coordinate system, whose place on the ground is unknown. Georeference it in a GIS.",
            code="PW424",
        )


def pixels_to_metres(info: RasterInfo, places: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2 2"]:
    """Return matrices from pixel steps to metres on the ground, at some places (column, row) of a scene.

    Measured on the ellipsoid: degrees, feet and the stretched metres of Web Mercator all come out as metres.
    """
    crs, transform = placement(info, "its pixels have no size on the ground")
    geod = optional_module("pyproj").Geod(ellps="WGS84")
    corners = np.concatenate([places + offset for offset in ((0, 0), (1, 0), (0, 1))])
    places_in_degrees = transformed(crs, degrees(), placed(transform, corners))
    longitudes, latitudes = places_in_degrees.T.reshape(2, 3, -1)
    matrices = np.empty((len(places), 2, 2))
    for step in (0, 1):
        azimuth, _, distance = geod.inv(longitudes[0], latitudes[0], longitudes[step + 1], latitudes[step + 1])
        matrices[:, 0, step] = distance * np.sin(np.radians(azimuth))
        matrices[:, 1, step] = distance * np.cos(np.radians(azimuth))
    return matrices


def poles_in(crs: CRS, transform: Affine, height: int, width: int, margin: float = 0.0) -> Float64[np.ndarray, "p 2"]:
    """Return (column, row) of the poles that a raster holds: none, one, or two."""
    if crs.is_geographic or around_globe(crs) is not None:
        return np.empty((0, 2))
    found = placed(~transform, transformed(degrees(), crs, np.array([[0.0, 90.0], [0.0, -90.0]])))
    found = found[np.isfinite(found).all(axis=1)]
    size = np.array([width, height])
    found = found[((found >= -margin) & (found <= size + margin)).all(axis=1)]
    # What PROJ puts there may be no pole: a projection has its own limits.
    back = transformed(crs, degrees(), placed(transform, found))
    return found[np.abs(back[:, 1]) > 90 - 1e-9] if len(found) else found
