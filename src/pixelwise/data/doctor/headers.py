"""A raster's header as JSON can hold it, so that a second look need not open the file."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from pixelwise.geo.orientation import Turn
from pixelwise.geo.raster import RasterInfo

_TUPLES = ("dtypes", "nodatas", "scales", "offsets")
_SHARED = ("height", "width", "dtype", "transform", "turn", *_TUPLES)


def header_to_dict(info: RasterInfo) -> dict | None:
    """Return a header as JSON can hold it; None where control points or a camera model place the raster."""
    if info.gcps or info.rpcs is not None:
        return None
    try:
        text = info.crs.to_wkt() if info.crs is not None else None
    except CRSError:
        return None
    plain = ("height", "width", "count", "alpha", "dtype", "nodata", "paletted", "masked", "lossy", *_TUPLES)
    return {name: getattr(info, name) for name in plain} | {
        "crs": text,
        "transform": list(info.transform[:6]),
        "turn": asdict(info.turn),
    }


def header_from_dict(path: Path, kept: dict, systems: dict[str, CRS]) -> RasterInfo:
    """Return the header that `header_to_dict` kept.

    Args:
        systems: coordinate systems by their text, to which new ones are added: reading one takes a while.
    """
    given: dict[str, Any] = {key: tuple(value) if key in _TUPLES else value for key, value in kept.items()}
    text = given.pop("crs")
    if text is not None and text not in systems:
        systems[text] = CRS.from_wkt(text)
    return RasterInfo(
        path=path,
        crs=systems[text] if text is not None else None,
        transform=Affine(*given.pop("transform")),
        turn=Turn(**given.pop("turn")),
        **given,
    )


def with_shared_values(info: RasterInfo, known: dict[tuple, object]) -> RasterInfo:
    """Return an equal header that shares its values with others, so that thousands of equal ones take little memory.

    Args:
        known: values of other headers, to which new ones are added.
    """
    values: dict[str, Any] = {name: getattr(info, name) for name in _SHARED}
    return replace(info, **{name: known.setdefault((name, value), value) for name, value in values.items()})
