"""Images that are read in colours though they hold none: palettes looked up, grey photos with three equal bands."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from pixelwise.errors import ConfigError
from pixelwise.geo.raster import RasterInfo, RasterReader, Window


class ColourReader:
    """An image of one band, read as red, green and blue."""

    def __init__(self, info: RasterInfo, *, bands: Sequence[int] | None = None, nodata: float | None = None) -> None:
        """Open an image with a palette, whose colours are looked up, or a grey one.

        Args:
            bands: of the colours, counted from 1; None: all three.
            nodata: the raw value of pixels without data; None: as the file says.

        Raises:
            DataError: as `RasterReader` says.
            ConfigError: a band that there is not among three.
        """
        self._reader = RasterReader(info, nodata=nodata)
        self.bands, self.nodata = tuple(bands) if bands is not None else (1, 2, 3), self._reader.nodata
        beyond = [band for band in self.bands if band not in (1, 2, 3)]
        if beyond:
            raise ConfigError(
                f"{info.path} has 3 colours, so there is no band {beyond[0]}. Fix [data].bands.", code="PW406"
            )
        info = self._reader.info
        self.grey = not info.paletted
        self._palette = _palette(self._reader.colour_table()) if info.paletted else None
        self.info: RasterInfo = replace(
            info,
            count=3,
            alpha=None,
            paletted=False,
            dtype="uint8" if info.paletted else info.dtype,
            dtypes=(("uint8" if info.paletted else info.dtype),) * 3,
            nodatas=(info.nodata,) * 3,
        )

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return the colours of a window inside the image, and which pixels hold data and are not transparent.

        Raises:
            DataError: the file is corrupt or truncated there.
        """
        values, valid = self._reader.read(window)
        if self._palette is None:
            return np.repeat(values[:1], len(self.bands), axis=0), valid
        colours = self._palette[np.minimum(values[0], len(self._palette) - 1)]
        chosen = np.stack([colours[..., band - 1] for band in self.bands])
        return chosen, valid & (colours[..., 3] != 0)

    def close(self) -> None:
        """Close what is open; a later read opens the file again."""
        self._reader.close()


def _palette(table: dict[int, tuple[int, int, int, int]]) -> UInt8[np.ndarray, "n 4"]:
    palette = np.zeros((max(table) + 1, 4), np.uint8)
    for index, colour in table.items():
        palette[index] = colour
    return palette


ImageReader = RasterReader | ColourReader
"""What an image is read with."""


def open_image(
    info: RasterInfo, *, bands: Sequence[int] | None = None, nodata: float | None = None, colours: bool = False
) -> ImageReader:
    """Open an image whose header was read; one with a palette in its colours.

    Args:
        bands, nodata: as `RasterReader` takes them.
        colours: read a grey 8-bit image in colours, too.

    Raises:
        DataError, ConfigError: as `RasterReader` says.
    """
    if info.paletted or (colours and is_grey(info)):
        return ColourReader(info, bands=bands, nodata=nodata)
    return RasterReader(info, bands=bands, nodata=nodata)


def is_grey(info: RasterInfo) -> bool:
    """Return whether an image is a grey photo: 8 bits, one band besides alpha, no place on the ground."""
    return info.crs is None and info.dtype == "uint8" and len(info.colour_bands) == 1 and not info.paletted
