"""Logits of single pixels, before they are upsampled: what a calibration looks at while an image is predicted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Integer

from pixelwise.inference.tile_grid import Rect


@dataclass(frozen=True)
class Cells:
    """Logits on a coarse grid, and which pixels of an image they are enough for.

    A pixel's place among the cells is ``begin + pixel * pitch``, along each axis.
    """

    values: Float32[np.ndarray, "K h w"]
    pixels: Rect
    """Pixels of the image whose logits they give."""
    begin: tuple[float, float]
    pitch: tuple[float, float]

    @classmethod
    def whole(
        cls, values: Float32[np.ndarray, "K h w"], size: tuple[int, int], pixels: Rect, *, align_corners: bool
    ) -> "Cells":
        """Return the cells of an image that is, with what the network pads, ``size`` pixels high and wide."""
        axes = tuple(zip(values.shape[1:], size, strict=True))
        if align_corners:
            begin, pitch = (0.0, 0.0), tuple((cells - 1) / max(1, side - 1) for cells, side in axes)
        else:
            pitch = tuple(cells / side for cells, side in axes)
            begin = (0.5 * pitch[0] - 0.5, 0.5 * pitch[1] - 0.5)
        return cls(values, pixels, begin, (pitch[0], pitch[1]))

    @classmethod
    def blended(cls, values: Float32[np.ndarray, "K n w"], strip: Rect, stride: int, pixels: Rect) -> "Cells":
        """Return the cells of a strip of a blended map, with one more cell on each side."""
        begin = (0.5 / stride + 0.5 - strip.top, 0.5 / stride + 0.5 - strip.left)
        return cls(values, pixels, begin, (1 / stride, 1 / stride))

    def at(self, rows: Integer[np.ndarray, " n"], columns: Integer[np.ndarray, " n"]) -> Float32[np.ndarray, "n K"]:
        """Return the logits of pixels of the image, bilinear between the cells around."""
        (top, bottom, down), (left, right, across) = (
            _between(begin + places * pitch, cells)
            for begin, places, pitch, cells in zip(
                self.begin, (rows, columns), self.pitch, self.values.shape[1:], strict=True
            )
        )
        upper = _mixed(self.values[:, top, left], self.values[:, top, right], across)
        lower = _mixed(self.values[:, bottom, left], self.values[:, bottom, right], across)
        return np.ascontiguousarray(_mixed(upper, lower, down).T)


Watch = Callable[[Cells], None]
"""Is shown all logits of an image, strip by strip from the top."""


def _between(places: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two cells that each place lies between, and the share of the second."""
    places = places.clip(0, cells - 1)
    first = places.astype(np.int64)
    return first, np.minimum(first + 1, cells - 1), (places - first).astype(np.float32)


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + (second - first) * share
