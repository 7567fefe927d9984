"""A look at one raster: does it hold a picture, or areas of few values?"""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe

SIDE = 512
"""Of the window in the middle that is looked at."""
SKETCH = 64
"""Side of the coarse grid on which the looks of two files are compared."""
FLAT, FEW = 0.6, 64
"""Of a mask at least this share of neighbours is equal, or it has at most so many values."""
MASK_WORDS = re.compile(
    r"mask|label|lbl|(^|[^a-z])(gt|seg|ann|anno|annotation|annotations|y|target|targets|truth|reference|ref|class)"
    r"([^a-z]|$)|segmentation|groundtruth|gtfine|annot",
    re.IGNORECASE,
)
IMAGE_WORDS = re.compile(
    r"image|photo|jpeg|scene|leftimg|(^|[^a-z])(img|imgs|im|rgb|x|sat|raw|input|inputs|tile|frame|frames|ortho|src)"
    r"([^a-z]|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Look:
    """A raster's header, and what its middle holds."""

    info: RasterInfo
    flat: float
    """Share of pixels that are equal to their right neighbour."""
    values: int
    """Distinct values, or colours."""
    sketch: np.ndarray
    """Its first band on a coarse grid."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.info.height, self.info.width

    @cached_property
    def maskness(self) -> float:
        """How much it looks like a mask, by the data alone; photos are below 0, masks of few flat values above 1."""
        narrow = self.info.dtype in ("uint8", "uint16", "int16", "int32", "uint32") and len(self.info.colour_bands) == 1
        return 3 * (self.flat - 0.5) - math.log2(max(2, self.values)) / 8 + 0.4 * (self.info.paletted or narrow)

    @property
    def could_be_mask(self) -> bool:
        """Whether it can be a mask at all."""
        whole = np.dtype(self.info.dtype if "complex" not in self.info.dtype else "complex64").kind in "ui"
        return whole and len(self.info.colour_bands) in (1, 3) and (self.flat >= FLAT or self.values <= FEW)


def look_at(path: Path) -> Look | None:
    """Look at a raster; None if it cannot be read."""
    try:
        info = describe(path)
        reader = RasterReader(info, bands=info.colour_bands[:3] or (1,), nodata=math.nan)
        height, width = min(SIDE, info.height), min(SIDE, info.width)
        window = Window((info.height - height) // 2, (info.width - width) // 2, height, width)
        values, _ = reader.read(window)
        reader.close()
    except DataError:
        return None
    values = np.nan_to_num(values.astype(np.float64))
    same = (values[:, :, 1:] == values[:, :, :-1]).all(axis=0)
    mixed = values[0].copy()
    for band in values[1:]:
        mixed = mixed * 65537 + band
    sketch = values[0, :: max(1, height // SKETCH), :: max(1, width // SKETCH)]
    return Look(info, float(same.mean()) if same.size else 1.0, len(np.unique(mixed)), sketch)


def mask_word(text: str) -> int:
    """Return 1 if a name says mask, -1 if it says image, 0 if neither or both."""
    return int(MASK_WORDS.search(text) is not None) - int(IMAGE_WORDS.search(text) is not None)
