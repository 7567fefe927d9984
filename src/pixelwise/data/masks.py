"""A mask: the class of each pixel of one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int16, Integer, Shaped
from rasterio.warp import transform

from pixelwise.errors import DataError
from pixelwise.geo.opening import GDAL_ERRORS
from pixelwise.geo.orientation import UPRIGHT
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe, holds_data
from pixelwise.labels import IGNORE, MaskTable, UnknownMaskValuesError, pack_colours


@dataclass(frozen=True)
class MaskFile:
    """The labels of one image, in a raster of the same size."""

    reader: RasterReader
    """Of the bands that hold values or colours. `read` handles nodata."""
    table: MaskTable
    palette: Int16[np.ndarray, "n 3"] | None
    """Colours of a paletted mask, if the table is of colours."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE` in a window.

        A value or colour that the configuration names has its class, even if the file calls it transparent or nodata.
        Other values that the file calls so are ignored.

        Raises:
            DataError: a corrupt file, a value that no class has, or colours where numbers are expected.
        """
        values, shown = self.reader.read(window)
        path = self.reader.info.path
        raw = self._colours(values) if self.table.colours else self._numbers(values)
        empty = ~shown | ~holds_data(values, self.reader.info.nodata_of(self.reader.bands))
        try:
            indices = self.table.to_indices(raw, str(path), empty=empty)
        except UnknownMaskValuesError as error:
            if not self.reader.info.lossy:
                raise
            raise DataError(
                f"{path} is compressed with losses (JPEG), which changes a mask's values: it holds "
                f"{len(error.pixels[str(path)])} that no class has. Make it again, as PNG or TIFF.",
                code="PW414",
            ) from None
        if not self.table.colours:
            # Alpha or a mask in the file may say that a number is not a label.
            indices[~shown] = IGNORE
        return indices

    def _colours(self, values: Shaped[np.ndarray, "C h w"]) -> Integer[np.ndarray, "h w"]:
        if self.palette is not None:
            values = np.moveaxis(self.palette[np.minimum(values[0], len(self.palette) - 1)], -1, 0)
        return pack_colours(np.broadcast_to(values[:3], (3, *values.shape[1:])))

    def _numbers(self, values: Shaped[np.ndarray, "C h w"]) -> Integer[np.ndarray, "h w"]:
        if len(values) == 1:
            return values[0]
        coloured: Bool[np.ndarray, "h w"] = (values[:3] != values[0]).any(axis=0)
        if coloured.any():
            r, g, b = values[:3, *np.argwhere(coloured)[0]]
            raise DataError(
                f"{self.reader.info.path} holds colours such as #{r:02x}{g:02x}{b:02x}, but nothing says what they "
                "mean. Map them with [data].values, such as values = {class = '#rrggbb'}.",
                code="PW414",
            )
        return values[0]


def open_mask(path: Path, image: RasterInfo, table: MaskTable) -> MaskFile:
    """Open the mask of an image, and check that the two fit.

    Raises:
        DataError: other sizes, other places on the ground, not whole numbers, or two bands.
    """
    mask = describe(path)
    if (mask.height, mask.width) != (image.height, image.width):
        raise DataError(_other_size(path, mask, image), code="PW413")
    if not _same_place(mask, image):
        raise DataError(
            f"{path} is elsewhere on the ground than its image {image.path}: their corners differ. Align the "
            "mask with the image (gdalwarp -te ... -tr ... -t_srs ...).",
            code="PW413",
        )
    bands = len(mask.colour_bands)
    if np.dtype(mask.dtype if "complex" not in mask.dtype else "complex64").kind not in "ui":
        raise DataError(
            f"{path} holds {mask.dtype} values, but a mask holds whole numbers. Save it as uint8 or uint16.",
            code="PW414",
        )
    if bands not in (1, 3, 4):
        raise DataError(
            f"{path} has {bands} bands besides alpha, but a mask has one with numbers, or three with colours.",
            code="PW414",
        )
    if table.colours and mask.dtype != "uint8":
        raise DataError(
            f"{path} holds {mask.dtype} values, but colours ([data].values) have 8 bits. Save it as uint8.",
            code="PW414",
        )
    # NaN is no whole number, so that no value counts as nodata here.
    reader = RasterReader(mask, nodata=np.nan)
    return MaskFile(reader, table, _palette(reader) if table.colours and mask.paletted else None)


def _other_size(path: Path, mask: RasterInfo, image: RasterInfo) -> str:
    sizes = f"{path} is {mask.width}x{mask.height} pixels, but its image {image.path} is {image.width}x{image.height}"
    if image.turn != UPRIGHT and (mask.width, mask.height) == (image.height, image.width):
        return (
            f"{sizes} as people see it: its EXIF orientation turns it, and the mask fits the pixels before they are "
            "turned. Turn the mask, or take the orientation out of the image (exiftool -Orientation= FILE)."
        )
    return f"{sizes}. Export the mask again at the size of the image."


def _same_place(mask: RasterInfo, image: RasterInfo) -> bool:
    """Return whether the corners of both agree to half a pixel; True if one of them has no place on the ground."""
    if not (mask.crs and image.crs):
        return True
    corners = [(0, 0), (image.width, 0), (0, image.height), (image.width, image.height)]
    xs, ys = zip(*(mask.transform @ corner for corner in corners), strict=True)
    try:
        if mask.crs != image.crs:
            xs, ys = transform(mask.crs, image.crs, xs, ys)[:2]
    except GDAL_ERRORS:
        # PROJ, too, where a corner has no place in the image's system.
        return False
    found = np.array([~image.transform @ place for place in zip(xs, ys, strict=True)])
    return bool((np.abs(found - np.array(corners)) <= 0.5).all())


def _palette(reader: RasterReader) -> Int16[np.ndarray, "n 3"]:
    colours = reader.colour_table()
    table = np.zeros((max(colours, default=0) + 1, 3), np.int16)
    for index, colour in colours.items():
        table[index] = colour[:3]
    return table
