"""Parts of rasters as pictures: windows at any zoom, read at the size they are shown in, so that the largest map opens
at once.

A map has smaller copies of itself. A scene may have none, so a job first makes one, an eighth of its size.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Shaped
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from pixelwise.files import replacing
from pixelwise.geo.opening import open_raster
from pixelwise.geo.raster import RasterInfo, describe

SIDE = 256
"""Of a tile of a picture, in pixels."""
SMALLER = 8
"""By how much the small copy of a scene is smaller along each side."""
LARGE = 4096
"""A scene of up to so many pixels along its longer side needs no small copy."""
NAME = "preview.tif"


def header(path: Path) -> RasterInfo:
    """Return a raster's header; it is kept until the file changes, since a page asks for many tiles."""
    status = path.stat()
    return _header(path, status.st_mtime_ns, status.st_size)


@lru_cache(256)
def _header(path: Path, *stamp: int) -> RasterInfo:
    return describe(path)


def levels(width: int, height: int) -> int:
    """Return the zoom at which a picture's pixels are the raster's own; at 0 all of it is in one tile."""
    return max(0, math.ceil(math.log2(max(width, height) / SIDE)))


def read_picture(path: Path, bands: Sequence[int], z: int, x: int, y: int, *, average: bool) -> np.ndarray | None:
    """Return a tile [n,256,256] of some bands; None where it lies beyond the raster.

    Args:
        average: take the mean of pixels that fall together; else one of them.
    """
    info = header(path)
    top_zoom = levels(info.width, info.height)
    if not 0 <= z <= top_zoom:
        return None
    step = 2 ** (top_zoom - z)
    left, top = x * SIDE * step, y * SIDE * step
    if x < 0 or y < 0 or left >= info.width or top >= info.height:
        return None
    width, height = min(SIDE * step, info.width - left), min(SIDE * step, info.height - top)
    across, down = -(-width // step), -(-height // step)
    read = read_window(path, bands, (top, left, height, width), (down, across), average=average)
    tile = np.zeros((len(read), SIDE, SIDE), read.dtype)
    tile[:, :down, :across] = read
    return tile


def read_window(
    path: Path,
    bands: Sequence[int],
    window: tuple[int, int, int, int],
    size: tuple[int, int],
    *,
    average: bool = False,
) -> Shaped[np.ndarray, "n h w"]:
    """Return a window (top, left, height, width) of the upright raster, at a size (height, width)."""
    info = header(path)
    rows, columns = info.turn.stored(*window, of=(info.height, info.width))
    shape = (size[1], size[0]) if info.turn.transposed else size
    with open_raster(path) as source:
        read = source.read(
            list(bands),
            window=RasterioWindow.from_slices(rows, columns),
            out_shape=(len(bands), *shape),
            resampling=Resampling.average if average else Resampling.nearest,
        )
    return info.turn.upright(read)


def shown_bands(bands: Sequence[int]) -> tuple[int, ...]:
    """Return which of a model's bands are shown as red, green and blue, or as grey."""
    return tuple(bands[:3]) if len(bands) >= 3 else tuple(bands[:1])


def make_preview(
    scene: Path, folder: Path, bands: Sequence[int], *, advance: Callable[[float], None]
) -> list[list[float]] | None:
    """Make a small copy of a large scene without copies of its own, unless it is there; return how values are shown.

    Returns:
        the value of each band that is black and that which is white; None for 8-bit values, shown as they are.
    """
    info, bands, target = header(scene), shown_bands(bands), folder / NAME
    large = max(info.width, info.height) > LARGE
    if large and not target.exists() and not _has_copies(scene):
        _shrink(scene, target, bands, advance)
    if info.dtype == "uint8":
        return None
    source = target if target.exists() else scene
    known = header(source)
    numbers = tuple(range(1, len(bands) + 1)) if source == target else bands
    smaller = max(1, max(known.width, known.height) // 1024)
    size = (max(1, known.height // smaller), max(1, known.width // smaller))
    values = read_window(source, numbers, (0, 0, known.height, known.width), size)
    return [_range(band, info.nodata) for band in values]


def _has_copies(path: Path) -> bool:
    with open_raster(path) as source:
        return max(source.overviews(1), default=1) >= SMALLER


def _shrink(scene: Path, target: Path, bands: Sequence[int], advance: Callable[[float], None]) -> None:
    """Write every eighth pixel's surroundings, strip by strip; memory does not grow with the scene's height."""
    info = header(scene)
    height, width = -(-info.height // SMALLER), -(-info.width // SMALLER)
    strip = 64 * SMALLER
    with replacing(target) as temporary:
        options = {"driver": "GTiff", "tiled": True, "compress": "deflate", "bigtiff": "if_safer"}
        shape = {"height": height, "width": width, "count": len(bands), "dtype": info.dtype}
        with rasterio.open(temporary, "w", **options, **shape) as out:
            for top in range(0, info.height, strip):
                rows = min(strip, info.height - top)
                size, first = (-(-rows // SMALLER), width), top // SMALLER
                values = read_window(scene, bands, (top, 0, rows, info.width), size, average=True)
                out.write(values, window=((first, first + size[0]), (0, width)))
                advance(min(1.0, (top + rows) / info.height))
            out.build_overviews([2, 4, 8, 16], Resampling.average)


def _range(band: np.ndarray, nodata: float | None) -> list[float]:
    values = band[np.isfinite(band)].astype(np.float64)
    values = values if nodata is None else values[values != nodata]
    if not len(values):
        return [0.0, 1.0]
    low, high = np.percentile(values, (2, 98))
    return [float(low), float(high if high > low else low + 1)]


def scene_tile(
    scene: Path, folder: Path, bands: Sequence[int], stretch: list[list[float]] | None, z: int, x: int, y: int
) -> np.ndarray | None:
    """Return a tile [256,256,3] of 8-bit colours of a scene; None where it lies beyond the scene."""
    info, bands, small = header(scene), shown_bands(bands), folder / NAME
    step = 2 ** max(0, levels(info.width, info.height) - z)
    if step >= SMALLER and small.exists():
        # Its pyramid is that of the scene, without the finest three levels.
        numbers = range(1, len(bands) + 1)
        tile = read_picture(small, numbers, z, x, y, average=True)
    else:
        tile = read_picture(scene, bands, z, x, y, average=step > 1)
    if tile is None:
        return None
    if stretch is not None:
        low, high = (np.array(each, np.float32)[:, None, None] for each in zip(*stretch, strict=True))
        tile = np.nan_to_num((tile.astype(np.float32) - low) / (high - low) * 255).clip(0, 255)
    return np.moveaxis(np.broadcast_to(tile.astype(np.uint8), (3, SIDE, SIDE)), 0, -1)
