"""What the user should know of scenes that work: things that people seldom mean."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from pixelwise.data.annotated import DrawnLabels
from pixelwise.data.masks import MaskFile
from pixelwise.data.scenes import Scene
from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo, RasterReader, Window
from pixelwise.labels import Classes

LOOKED_AT = 50
"""In how many scenes the alpha band is checked."""
WINDOW = 512
"""Side in pixels of the window that is checked."""
BETWEEN = 0.1
"""An alpha band is doubtful if more than this share of its pixels is neither transparent nor opaque."""


def notes_on(scenes: Sequence[Scene], classes: Classes, pixels: Int64[np.ndarray, " K"]) -> tuple[str, ...]:
    """Return a paragraph for each thing that the user should know.

    Args:
        pixels: of each class.
    """
    infos = [scene.info for scene in scenes]
    drawn = dict.fromkeys(note for scene in scenes for note in scene.notes)
    found = [*drawn, _resized(scenes), _absent(classes, pixels), _alpha(scenes), _scaled(infos), _lossy(scenes)]
    return tuple(note for note in found if note)


def _resized(scenes: Sequence[Scene]) -> str | None:
    found = [
        (scene.info, scene.labels.drawn_on)
        for scene in scenes
        if isinstance(scene.labels, DrawnLabels) and scene.labels.drawn_on is not None
    ]
    if not found:
        return None
    info, (height, width) = found[0]
    return (
        f"{len(found)} images have another size than their annotations say, so shapes were scaled: {info.path} has "
        f"{info.width}x{info.height} pixels, and was {width}x{height} when it was annotated."
    )


def _absent(classes: Classes, pixels: Int64[np.ndarray, " K"]) -> str | None:
    absent = [name for name, count in zip(classes.names, pixels.tolist(), strict=True) if not count]
    if not absent or not pixels.any():
        return None
    named = ", ".join(map(repr, absent[:10])) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
    return (
        f"No pixel is of the class {named}, so a network cannot learn it here. Check [data].values, and that the "
        "masks hold what you expect."
    )


def _alpha(scenes: Sequence[Scene]) -> str | None:
    doubtful = doubtful_alpha([scene.info for scene in scenes], scenes[0].reader.bands if scenes else None)
    if not doubtful:
        return None
    info, between = doubtful[0]
    more = f", as in {len(doubtful) - 1} other files" if len(doubtful) > 1 else ""
    return (
        f"{info.path} calls its band {info.alpha} alpha, so it is not read as data; but {between:.0%} of its pixels "
        f"are neither transparent nor opaque{more}. If it holds data, such as near infrared, list it: "
        f"bands = {sorted({*info.colour_bands, info.alpha})} below [data]."
    )


def doubtful_alpha(infos: Sequence[RasterInfo], bands: Sequence[int] | None) -> list[tuple[RasterInfo, float]]:
    """Return images whose alpha looks like data, and the share of its pixels that are neither clear nor opaque.

    Args:
        bands: that are read; None: all but alpha.
    """
    doubtful = []
    for info in infos[:LOOKED_AT]:
        if info.alpha is None or info.alpha in (bands or ()) or np.dtype(info.dtypes[info.alpha - 1]).kind != "u":
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
    return doubtful


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
