"""How a raster is stored: its files, and what GDAL decodes at once when any pixel is asked for."""

from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.geo.opening import open_raster

PARTS = 16
"""Files of a mosaic that are looked at."""


def largest_block(path: str | Path) -> tuple[int, int]:
    """Return the height and width in pixels of a raster's blocks, or the largest of a mosaic's first parts.

    Parts that cannot be opened are left out.
    """
    try:
        with open_raster(Path(path)) as source:
            if source.driver != "VRT":
                return source.block_shapes[0]
            parts = source.files[1 : PARTS + 1]
    except DataError:
        return 1, 1
    shapes = [(1, 1), *map(largest_block, parts)]
    return max(down for down, _ in shapes), max(across for _, across in shapes)


def files_of(path: str | Path) -> list[str]:
    """Return all files that a raster is read from: its own, a mask beside it, the parts of a mosaic and theirs.

    What cannot be opened names no others.
    """
    files = [str(path)]
    # The list grows meanwhile.
    for name in files:
        if name == files[0] or name.lower().endswith(".vrt"):
            files += [each for each in _named_by(name) if each not in files]
    return files


def _named_by(path: str) -> list[str]:
    try:
        with open_raster(Path(path)) as source:
            return list(source.files)
    except DataError:
        return []
