"""An image at another ground resolution: each window is resampled from the windows of the file that it needs."""

from copy import copy
from dataclasses import replace

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float64, Int16, Int64, Shaped

from pixelwise.data.scenes import Labels
from pixelwise.geo.raster import RasterInfo, Readable, Window

SOURCE_PIXELS = 1 << 24
"""Of the file, that are read at once."""


class ResampledReader:
    """An image whose pixels are a factor larger than the file's, over the same ground.

    Larger pixels are means of what they cover; smaller ones are interpolated between the centres of the file's. A pixel
    has data where most of what it is made from has.
    """

    def __init__(self, reader: Readable, factor: float) -> None:
        """Wrap a reader.

        Args:
            factor: side of a new pixel over that of the file's.
        """
        self._reader, self._factor = reader, factor
        self.bands: tuple[int, ...] = getattr(reader, "bands", ())
        info = reader.info
        height, width = (max(1, round(side / factor)) for side in (info.height, info.width))
        # The outer edges stay where they are.
        self._steps = info.height / height, info.width / width
        transform = info.transform @ Affine.scale(self._steps[1], self._steps[0])
        self.info: RasterInfo = replace(info, height=height, width=width, transform=transform)

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return the resampled values of a window, and which pixels hold data."""
        source = self._reader.info
        left, across = weights(window.left, window.width, self._steps[1], source.width)
        rows = max(1, int(SOURCE_PIXELS / across.shape[1] / max(1.0, self._steps[0])))
        parts = []
        for first in range(window.top, window.top + window.height, rows):
            count = min(rows, window.top + window.height - first)
            top, down = weights(first, count, self._steps[0], source.height)
            values, valid = self._reader.read(Window(top, left, down.shape[1], across.shape[1]))
            parts.append(_weighted(values, valid, down, across))
        values = np.concatenate([part for part, _ in parts], axis=1)
        return values, np.concatenate([part for _, part in parts])

    def __copy__(self) -> "ResampledReader":
        return ResampledReader(copy(self._reader), self._factor)


def weights(first: int, count: int, step: float, length: int) -> tuple[int, Float64[np.ndarray, "n m"]]:
    """Return how new pixels along a side are made of old ones.

    Args:
        first, count: the new pixels.
        step: side of a new pixel in old ones.
        length: how many old ones there are.

    Returns:
        the first old pixel, and the weight of each old one for each new one; they add up to 1.
    """
    new = np.arange(first, first + count)
    if step >= 1:
        begin, end = new * step, (new + 1) * step
        low, high = int(begin[0] + 1e-9), min(length, int(np.ceil(end[-1] - 1e-9)))
        old = np.arange(low, high)
        share = np.minimum(end[:, None], old + 1) - np.maximum(begin[:, None], old)
    else:
        centre = ((new + 0.5) * step - 0.5).clip(0, length - 1)
        low, high = int(centre[0]), min(length, int(centre[-1]) + 2)
        share = 1 - np.abs(centre[:, None] - np.arange(low, high))
    share = share.clip(0)
    return low, share / share.sum(axis=1, keepdims=True)


def _weighted(
    values: Shaped[np.ndarray, "C h w"],
    valid: Bool[np.ndarray, "h w"],
    down: Float64[np.ndarray, "n h"],
    across: Float64[np.ndarray, "m w"],
) -> tuple[Shaped[np.ndarray, "C n m"], Bool[np.ndarray, "n m"]]:
    share = down @ valid.astype(np.float64) @ across.T
    filled = np.where(valid, values.astype(np.float64), 0.0)
    mean = (down @ filled @ across.T) / np.where(share > 0, share, 1.0)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        mean = np.rint(mean).clip(limits.min, limits.max)
    return mean.astype(values.dtype), share >= 0.5


class ResampledLabels:
    """Labels at the resolution of a `ResampledReader`: the class at the centre of each pixel."""

    def __init__(self, labels: Labels, original: RasterInfo, resampled: RasterInfo) -> None:
        self._labels, self._original = labels, original
        self._steps = original.height / resampled.height, original.width / resampled.width

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return class indices and `IGNORE` in a window."""
        rows = _centres(window.top, window.height, self._steps[0], self._original.height)
        columns = _centres(window.left, window.width, self._steps[1], self._original.width)
        left, width = int(columns[0]), int(columns[-1] - columns[0]) + 1
        out = np.empty((window.height, window.width), np.int16)
        chunk = max(1, int(SOURCE_PIXELS / width / max(1.0, self._steps[0])))
        for first in range(0, window.height, chunk):
            some = rows[first : first + chunk]
            source = Window(int(some[0]), left, int(some[-1] - some[0]) + 1, width)
            out[first : first + chunk] = self._labels.read(source)[np.ix_(some - some[0], columns - left)]
        return out


def _centres(first: int, count: int, step: float, length: int) -> Int64[np.ndarray, " n"]:
    return ((np.arange(first, first + count) + 0.5) * step).astype(np.int64).clip(0, length - 1)
