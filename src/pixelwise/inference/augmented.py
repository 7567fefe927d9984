"""A network's answer to a batch of tiles, averaged over mirrored and zoomed copies, and the stride it comes at."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from pixelwise.errors import enough_memory
from pixelwise.inference.tile_grid import GRID
from pixelwise.models import Segmenter
from pixelwise.upsampling import upsample


@torch.no_grad()
def averaged_logits(
    model: Segmenter, images: Float32[np.ndarray, "B C H W"], *, stride: int, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "B K h w"]:
    """Return logits at the network's stride, averaged over mirrored and zoomed copies of normalised images.

    The network must not have to pad the images (see `Segmenter.padded_size`), unless its `output_stride` is 1. Zoomed
    copies have sides that are multiples of 32; their logits are resized to the grid of the unzoomed image.

    Raises:
        NotEnoughMemoryError: the batch does not fit.
    """
    with enough_memory(lambda: _smaller_tile(images.shape, scales)):
        return _averaged(model, torch.from_numpy(images).to(next(model.parameters()).device), stride, flips, scales)


def _averaged(
    model: Segmenter, batch: Float[Tensor, "B C H W"], stride: int, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "B K h w"]:
    coarse = (-(-batch.shape[2] // stride), -(-batch.shape[3] // stride))
    copies = []
    for scale in scales:
        sides = [max(GRID, round(side * scale / GRID) * GRID) for side in batch.shape[2:]]
        zoomed = batch if scale == 1 else F.interpolate(batch, size=sides, mode="bilinear", align_corners=False)
        logits = _logits(model, zoomed)
        if flips:
            logits = (logits + _logits(model, zoomed.flip(-1)).flip(-1)) / 2
        copies.append(logits if scale == 1 else upsample(logits, coarse, align_corners=model.align_corners))
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)


def _logits(model: Segmenter, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
    """Return a network's logits; at full size if its cells do not fit the grid of tiles (patches of 14 pixels)."""
    logits, (height, width) = model.decode(image).logits.float(), image.shape[-2:]
    if GRID % model.multiple == 0:
        return logits
    return upsample(logits, model.padded_size((height, width)), align_corners=model.align_corners)[..., :height, :width]


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


@torch.no_grad()
def output_stride(model: Segmenter) -> int:
    """Return how many pixels one logit covers along each axis, measured on a small empty image."""
    if GRID % model.multiple:
        return 1
    device = next(model.parameters()).device
    probe = torch.zeros(1, model.architecture.bands, 2 * GRID, 2 * GRID, device=device)
    stride = 2 * GRID // model.decode(probe).logits.shape[-1]
    assert GRID % stride == 0, "tiles start at multiples of GRID, so their logits must too"
    return stride
