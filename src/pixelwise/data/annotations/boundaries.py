"""The zones along outlines, as a class of their own: for borders that a network is to learn."""

from collections.abc import Sequence

import numpy as np

from pixelwise.data.annotations.shapes import Polygon, Shape
from pixelwise.geo.polygon_labels import bands
from pixelwise.geo.raster import RasterInfo
from pixelwise.optional import optional_module


def boundary_zones(shapes: Sequence[Shape], info: RasterInfo, width: float) -> list[Polygon]:
    """Return a zone along the outline of each polygon, half of it on either side. Other shapes have none.

    Args:
        shapes: in the pixels of an image.
        info: its header.
        width: in metres on the ground; in pixels, where the image has no place on it.

    Raises:
        MissingExtraError: the extra ``geo`` is not installed.
    """
    shapely = optional_module("shapely")
    parts = [part for shape in shapes if isinstance(shape, Polygon) for part in shape.parts]
    if not parts:
        return []
    outlines = np.array([shapely.Polygon(outer, holes) for outer, *holes in parts], object)
    if info.crs is None:
        zones = shapely.buffer(shapely.boundary(outlines), width / 2, quad_segs=4)
    else:
        zones = bands(outlines, info, width)
    return [Polygon(tuple(_rings(shapely, zone))) for zone in zones if not zone.is_empty]


def _rings(shapely, zone) -> list[tuple[np.ndarray, ...]]:
    return [
        tuple(shapely.get_coordinates(ring)[:-1] for ring in (part.exterior, *part.interiors))
        for part in shapely.get_parts(zone)
    ]
