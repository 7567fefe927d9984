"""Masks read as they are stored, and written again."""

from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Integer
from PIL import Image

from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe
from pixelwise.labels import pack_colours

MOST_PIXELS = 1 << 28
"""Larger masks are not read as a whole."""


def read_mask(path: Path, *, colours: bool) -> tuple[Integer[np.ndarray, "h w"], bool]:
    """Return a mask's values, or its colours packed as 0xRRGGBB, and whether they are colours.

    Args:
        colours: a palette is looked up.

    Raises:
        DataError: the mask cannot be read.
        ConfigError: it is too large to be read as a whole.
    """
    info = describe(path)
    if info.height * info.width > MOST_PIXELS:
        raise ConfigError("it is too large to be corrected as a whole.")
    reader = RasterReader(info, nodata=np.nan)
    values, _ = reader.read(Window(0, 0, info.height, info.width))
    if colours and info.paletted:
        table = np.zeros((max(reader.colour_table(), default=0) + 1, 3), np.int64)
        for index, colour in reader.colour_table().items():
            table[index] = colour[:3]
        values = np.moveaxis(table[np.minimum(values[0], len(table) - 1)], -1, 0)
    reader.close()
    if len(values) < 3:
        return values[0].astype(np.int64), False
    if not colours and bool((values[:3] == values[0]).all()):
        return values[0].astype(np.int64), False
    return pack_colours(values[:3].astype(np.int64)).astype(np.int64), True


def write_mask(
    target: Path, source: Path, raw: Integer[np.ndarray, "h w"], *, colours: bool, like: RasterInfo | None
) -> Path:
    """Write a mask: a GeoTIFF where the old one is a TIFF, else a PNG.

    Args:
        colours: values are packed colours.
        like: the image, whose place on the ground the mask has.

    Returns:
        the file that was written; its suffix may differ from ``target``'s.
    """
    planes = np.stack([raw >> 16, raw >> 8 & 255, raw & 255]).astype(np.uint8) if colours else raw[None]
    planes = planes.astype(np.uint8 if planes.max(initial=0) < 256 else np.uint16)
    if source.suffix.lower() in (".tif", ".tiff"):
        profile = {"driver": "GTiff", "compress": "deflate", "dtype": planes.dtype, "count": len(planes)}
        place = {"crs": like.crs, "transform": like.transform} if like is not None and like.crs is not None else {}
        size = {"height": raw.shape[0], "width": raw.shape[1]}
        with replacing(target) as temporary, rasterio.open(temporary, "w", **profile, **size, **place) as file:
            file.write(planes)
        return target
    target = target.with_suffix(".png")
    with replacing(target) as temporary:
        Image.fromarray(np.moveaxis(planes, 0, -1) if colours else planes[0]).save(temporary)
    return target
