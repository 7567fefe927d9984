"""A raster of whole numbers that is too large for memory, in a scratch file."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from pixelwise.geo.raster import Window


class RowFile:
    """Numbers [H,W] on disk, written and read window by window.

    The file is mapped only while a window is read, so that what was touched does not stay in memory.
    """

    def __init__(self, path: Path, height: int, width: int, dtype: type[np.integer[Any]]) -> None:
        """Make a file of zeros; it takes ``height * width`` numbers on disk."""
        self.path, self.shape, self.dtype = path, (height, width), dtype
        with path.open("wb") as file:
            file.truncate(height * width * np.dtype(dtype).itemsize)

    def write(self, window: Window, values: Integer[np.ndarray, "h w"]) -> None:
        """Put numbers into a window inside the raster."""
        values = np.ascontiguousarray(values, self.dtype)
        # Not through a mapping: on a full disk that would end the process without a word.
        with self.path.open("r+b") as file:
            for row, part in enumerate([values] if window.width == self.shape[1] else values):
                file.seek(((window.top + row) * self.shape[1] + window.left) * values.itemsize)
                file.write(part.data)

    def read(self, window: Window) -> Integer[np.ndarray, "h w"]:
        """Return the numbers of a window inside the raster."""
        mapped = np.memmap(self.path, self.dtype, "r", shape=self.shape)
        rows = mapped[window.top : window.top + window.height]
        return np.array(rows[:, window.left : window.left + window.width])
