"""What GDAL decodes at once when any pixel of a raster is asked for."""

import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

PARTS = 16
"""Files of a mosaic that are looked at."""


def largest_block(path: str | Path) -> tuple[int, int]:
    """Return the height and width in pixels of a raster's blocks, or the largest of a mosaic's first parts.

    Parts that cannot be opened are left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as source:
                if source.driver != "VRT":
                    return source.block_shapes[0]
                parts = source.files[1 : PARTS + 1]
        except RasterioError:
            return 1, 1
    shapes = [(1, 1), *map(largest_block, parts)]
    return max(down for down, _ in shapes), max(across for _, across in shapes)
