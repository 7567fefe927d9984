"""A network's answer to a batch of tiles, averaged over mirrored and zoomed copies, and the stride it comes at."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from pixelwise.device import upload
from pixelwise.errors import enough_memory
from pixelwise.inference.tile_grid import GRID
from pixelwise.models import Segmenter
from pixelwise.upsampling import resampled_part


@torch.no_grad()
def averaged_logits(
    model: Segmenter,
    images: Float32[np.ndarray, "B C H W"],
    *,
    stride: int | None,
    flips: bool,
    scales: Sequence[float],
) -> Float[Tensor, "B K h w"]:
    """Return logits of normalised images, averaged over mirrored and zoomed copies.

    Zoomed copies have sides that are multiples of 32. Where the network pads a copy (see `Segmenter.padded_size`), what
    it says of the padding is left out.

    Args:
        stride: pixels of a cell of the answer, as `output_stride` gives; None: the cells are the network's own.

    Raises:
        NotEnoughMemoryError: the batch does not fit.
    """
    with enough_memory(lambda: _smaller_tile(images.shape, scales)):
        (batch,) = upload([torch.from_numpy(images)], next(model.parameters()).device).arrived()
        return _averaged(model, batch, stride, flips, scales)


def _averaged(
    model: Segmenter, batch: Float[Tensor, "B C H W"], stride: int | None, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "B K h w"]:
    height, width = batch.shape[2:]
    if stride is None and all(scale == 1 for scale in scales):
        cells = None
    else:
        cell = Fraction(stride) if stride else cell_size(model)
        cells = (math.ceil(height / cell), math.ceil(width / cell))
    copies = []
    for scale in scales:
        sides = [max(GRID, round(side * scale / GRID) * GRID) for side in (height, width)]
        zoomed = batch if scale == 1 else F.interpolate(batch, size=sides, mode="bilinear", align_corners=False)
        logits = _on_cells(model, zoomed, cells)
        if flips:
            logits = (logits + _on_cells(model, zoomed.flip(-1), cells).flip(-1)) / 2
        copies.append(logits)
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)


def _on_cells(
    model: Segmenter, image: Float[Tensor, "B C H W"], cells: tuple[int, int] | None
) -> Float[Tensor, "B K h w"]:
    """Return the logits of images on a grid of ``cells``, without those of what the network pads; None: all of them."""
    size = (image.shape[2], image.shape[3])
    logits = model.decode(image).logits.float()
    if cells is None:
        return logits
    return resampled_part(logits, model.padded_size(size), size, cells, align_corners=model.align_corners)


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


def output_stride(model: Segmenter) -> int:
    """Return how many pixels a cell of the grid covers that tiles are blended on.

    It is the network's own stride or, where tiles cannot start at multiples of that, the largest below it where they
    can: 8 for patches of 14 pixels.
    """
    largest = math.floor(cell_size(model))
    return next(stride for stride in range(min(GRID, largest), 0, -1) if GRID % stride == 0)


@torch.no_grad()
def cell_size(model: Segmenter) -> Fraction:
    """Return how many pixels one logit covers along each axis, measured on a small empty image."""
    device = next(model.parameters()).device
    probe = torch.zeros(1, model.architecture.bands, 2 * GRID, 2 * GRID, device=device)
    return Fraction(model.padded_size((2 * GRID, 2 * GRID))[1], model.decode(probe).logits.shape[-1])
