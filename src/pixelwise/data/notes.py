"""What should be said of scenes that can be used: things that people seldom mean."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from pixelwise.data.masks import MaskFile
from pixelwise.data.scenes import Scene
from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo, RasterReader, Window
from pixelwise.labels import Classes

LOOKED_AT = 50
"""Scenes whose alpha is looked at."""
WINDOW = 512
"""Side in pixels of what is looked at."""
BETWEEN = 0.1
"""An alpha band is doubtful from this share of pixels on that are neither transparent nor opaque."""
RATIO = 1.5
"""Pixel sizes whose largest and smallest differ by more are told."""


def notes_on(scenes: Sequence[Scene], classes: Classes, pixels: Int64[np.ndarray, " K"]) -> tuple[str, ...]:
    """Return a paragraph for each thing that the user should know.

    Args:
        pixels: of each class.
    """
    infos = [scene.info for scene in scenes]
    found = [_absent(classes, pixels), _alpha(scenes), _pixel_sizes(infos), _scaled(infos), _lossy(scenes)]
    return tuple(note for note in found if note)


def _absent(classes: Classes, pixels: Int64[np.ndarray, " K"]) -> str | None:
    absent = [name for name, count in zip(classes.names, pixels.tolist(), strict=True) if not count]
    if not absent or not pixels.any():
        return None
    named = ", ".join(map(repr, absent[:10])) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return (
        f"No pixel is of the class {named}, so it cannot be learned or scored here. Check [data].values, or that the "
        "masks hold what you expect."
    )


def _alpha(scenes: Sequence[Scene]) -> str | None:
    doubtful = []
    for scene in scenes[:LOOKED_AT]:
        info = scene.info
        if info.alpha is None or info.alpha in scene.reader.bands or np.dtype(info.dtypes[info.alpha - 1]).kind != "u":
            continue
        height, width = min(WINDOW, info.height), min(WINDOW, info.width)
        middle = Window((info.height - height) // 2, (info.width - width) // 2, height, width)
        try:
            values, _ = RasterReader(info, bands=[info.alpha], nodata=math.nan).read(middle)
        except DataError:
            # The survey names it.
            continue
        between = float(((values > 0) & (values < np.iinfo(values.dtype).max)).mean())
        if between > BETWEEN:
            doubtful.append((info, between))
    if not doubtful:
        return None
    info, between = doubtful[0]
    more = f", as in {len(doubtful) - 1} other files" if len(doubtful) > 1 else ""
    return (
        f"{info.path} calls its band {info.alpha} alpha, so it is not read as data; but {between:.0%} of its pixels "
        f"are neither transparent nor opaque{more}. If it holds data, such as near infrared, list it: "
        f"bands = {sorted({*info.colour_bands, info.alpha})} below [data]."
    )


def _pixel_sizes(infos: Sequence[RasterInfo]) -> str | None:
    sizes = sorted(((_metres(info), info) for info in infos if info.crs is not None), key=lambda pair: pair[0])
    if not sizes or sizes[-1][0] <= RATIO * sizes[0][0]:
        return None
    (small, fine), (large, coarse) = sizes[0], sizes[-1]
    return (
        f"Pixels are of different sizes on the ground: {small:.3g} m in {fine.path}, {large:.3g} m in {coarse.path}. "
        "Things have other sizes in them; resample the scenes to one pixel size (gdalwarp -tr), if that is not meant."
    )


def _metres(info: RasterInfo) -> float:
    """Return the side of a pixel, about."""
    assert info.crs is not None
    side = math.sqrt(abs(info.transform.determinant))
    if info.crs.is_geographic:
        _, latitude = info.transform @ (info.width / 2, info.height / 2)
        return side * 111_320 * math.sqrt(max(1e-6, math.cos(math.radians(latitude))))
    return side * info.crs.linear_units_factor[1]


def _scaled(infos: Sequence[RasterInfo]) -> str | None:
    # A tag that all bands share is one, however many bands a file has.
    tags = {
        tuple(dict.fromkeys(zip(info.scales, info.offsets, strict=True))): info
        for info in reversed(infos)
        if info.scales
    }
    if len(tags) < 2:
        return None
    first, other = list(tags.values())[::-1][:2]
    return (
        f"{other.path} says that its values are to be multiplied by {_few(other.scales)} and added to "
        f"{_few(other.offsets)}, {first.path} by {_few(first.scales)} and {_few(first.offsets)}. Values are read as "
        "they are stored, so one number means different things in them. Convert the files to common units "
        "(gdal_translate -unscale -ot Float32)."
    )


def _few(numbers: Sequence[float]) -> str:
    distinct = list(dict.fromkeys(f"{number:g}" for number in numbers))
    return ", ".join(distinct[:3]) + (", ..." if len(distinct) > 3 else "")


def _lossy(scenes: Sequence[Scene]) -> str | None:
    masks = [scene.labels.reader.info for scene in scenes if isinstance(scene.labels, MaskFile)]
    lossy = [info for info in masks if info.lossy]
    if not lossy:
        return None
    return (
        f"{len(lossy)} masks, such as {lossy[0].path}, are compressed with losses (JPEG), which changes the values "
        "along edges. Save masks as PNG or TIFF."
    )
