"""How a photo was held: EXIF says how its rows and columns are to be turned for people."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Shaped
from PIL import Image
from rasterio import DatasetReader

from pixelwise.geo.drivers import is_local

TAG = 0x112
"""The number of EXIF's tag."""
WITH_EXIF = {"PNG": "PNG", "WEBP": "WEBP", "GTiff": "TIFF"}
"""GDAL's drivers that do not tell the orientation, and what Pillow calls their formats."""


@dataclass(frozen=True)
class Turn:
    """From the file to the upright photo: rows and columns change places, then rows, columns or both are reversed."""

    transposed: bool = False
    rows: bool = False
    columns: bool = False

    def stored(
        self, top: int, left: int, height: int, width: int, of: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows and columns, first and last + 1, where a window of the upright photo lies in the file.

        Args:
            of: height and width of the upright photo.
        """
        top = of[0] - top - height if self.rows else top
        left = of[1] - left - width if self.columns else left
        rows, columns = (top, top + height), (left, left + width)
        return (columns, rows) if self.transposed else (rows, columns)

    def upright(self, values: Shaped[np.ndarray, "*C h w"]) -> Shaped[np.ndarray, "*C H W"]:
        """Turn what was read from the file."""
        values = values.swapaxes(-1, -2) if self.transposed else values
        values = values[..., ::-1, :] if self.rows else values
        return np.ascontiguousarray(values[..., ::-1] if self.columns else values)


UPRIGHT = Turn()
TURNS = {
    **{1: UPRIGHT, 2: Turn(columns=True), 3: Turn(rows=True, columns=True), 4: Turn(rows=True)},
    **{5: Turn(True), 6: Turn(True, columns=True), 7: Turn(True, rows=True, columns=True), 8: Turn(True, rows=True)},
}
"""By the value of the tag (EXIF 2.3, section 4.6.4)."""


def turn_of(path: Path, source: DatasetReader) -> Turn:
    """Return how a photo is to be turned; not at all where nothing says so, or where its pixels have a place."""
    if source.crs is not None or not source.transform.almost_equals(Affine.identity()):
        return UPRIGHT
    found: object = 1
    if source.driver == "JPEG":
        found = source.tags().get("EXIF_Orientation", 1)
    elif source.driver in WITH_EXIF and is_local(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=[WITH_EXIF[source.driver]]) as image:
                    # Pillow would decode a PNG to look for EXIF behind the pixels.
                    if image.format != "PNG" or {"exif", "Raw profile type exif"} & set(image.info):
                        found = image.getexif().get(TAG, 1)
        except Exception:
            # Damaged metadata, of which Pillow raises many kinds; what GDAL opens is an image all the same.
            return UPRIGHT
    text = str(found).strip()
    return TURNS[int(text)] if text in tuple("12345678") else UPRIGHT
