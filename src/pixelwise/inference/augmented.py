"""A network's answer to a batch of tiles, averaged over mirrored and zoomed copies, and the stride it comes at."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float32

from pixelwise.errors import enough_memory
from pixelwise.inference.networks import Arithmetic, Network, arithmetic_of
from pixelwise.inference.tile_grid import GRID


def averaged_logits(
    model: Network,
    images: Float32[np.ndarray, "B C H W"],
    *,
    stride: int | None,
    flips: bool,
    scales: Sequence[float],
) -> Any:
    """Return logits [B,K,h,w] of normalised images, averaged over mirrored and zoomed copies.

    They are a tensor or, of an exported file, an array. Zoomed copies have sides that are multiples of 32. Where the
    network pads a copy (see `Segmenter.padded_size`), what it says of the padding is left out.

    Args:
        stride: pixels of a cell of the answer, as `output_stride` gives; None: the cells are the network's own.

    Raises:
        NotEnoughMemoryError: the batch does not fit.
    """
    with enough_memory(lambda: _smaller_tile(images.shape, scales)):
        return _averaged(model, images, stride, flips, scales)


def _averaged(
    model: Network, images: Float32[np.ndarray, "B C H W"], stride: int | None, flips: bool, scales: Sequence[float]
) -> Any:
    ops, (height, width) = arithmetic_of(model), images.shape[2:]
    batch = ops.given(model, images)
    if stride is None and all(scale == 1 for scale in scales):
        cells = None
    else:
        cell = Fraction(stride) if stride else cell_size(model)
        cells = (math.ceil(height / cell), math.ceil(width / cell))
    copies = []
    for scale in scales:
        tall, wide = (max(GRID, round(side * scale / GRID) * GRID) for side in (height, width))
        zoomed = batch if scale == 1 else ops.zoomed(batch, (tall, wide))
        logits = _on_cells(ops, model, zoomed, cells)
        if flips:
            logits = (logits + ops.mirrored(_on_cells(ops, model, ops.mirrored(zoomed), cells))) / 2
        copies.append(logits)
    return copies[0] if len(copies) == 1 else ops.mean(copies)


def _on_cells(ops: Arithmetic, model: Network, image: Any, cells: tuple[int, int] | None) -> Any:
    """Return the logits of images on a grid of ``cells``, without those of what the network pads; None: all of them."""
    size = (image.shape[2], image.shape[3])
    logits = ops.decode(model, image)
    if cells is None:
        return logits
    return ops.resampled_part(logits, model.padded_size(size), size, cells, align_corners=model.align_corners)


def _smaller_tile(shape: tuple[int, ...], scales: Sequence[float]) -> str:
    """Say what did not fit into memory, and what would."""
    count, _, height, width = shape
    side = max(64, max(height, width) // 64 * 32)
    together = f"{count} tiles" if count > 1 else "A tile"
    zoomed = f", zoomed by {max(scales):g}," if max(scales) > 1 else ""
    fewer = f"a batch of {max(1, count // 2)} or " if count > 1 else ""
    return (
        f"There is not enough memory to predict: {together} of {height} x {width} pixels{zoomed} did not fit. Take "
        f"{fewer}a tile of {side} pixels, which needs about a quarter (--tile {side}; in a configuration "
        f"[predict].tile = {side})."
    )


def output_stride(model: Network) -> int:
    """Return how many pixels a cell of the grid covers that tiles are blended on.

    It is the network's own stride or, where tiles cannot start at multiples of that, the largest below it where they
    can: 8 for patches of 14 pixels.
    """
    largest = math.floor(cell_size(model))
    return next(stride for stride in range(min(GRID, largest), 0, -1) if GRID % stride == 0)


def cell_size(model: Network) -> Fraction:
    """Return how many pixels one logit covers along each axis, measured on a small empty image."""
    ops, probe = arithmetic_of(model), np.zeros((1, model.architecture.bands, 2 * GRID, 2 * GRID), np.float32)
    logits = ops.decode(model, ops.given(model, probe))
    return Fraction(model.padded_size((2 * GRID, 2 * GRID))[1], logits.shape[-1])
