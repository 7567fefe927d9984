"""A convolution over maps that are resized to one size and joined, without resizing or joining them.

Bilinear resizing is linear in each channel, and so is a convolution in each of its taps. So the taps' products with
the channels, which are nearly all of the work, are taken at a map's own size; what they give is resized, each tap
shifted by its place, and added. Equal to rounding: for a map that is doubled, with a quarter of the products.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BLOCK = 32
"""Rows and columns that are made at once; a block needs only the few coarse ones next to it."""
WORTH = 100
"""Channels that must be saved for each output, by measurement; below, resizing the map itself is faster."""


def pays(convolution: nn.Conv2d, maps: Sequence[Float[Tensor, "B _ _ _"]], size: tuple[int, int]) -> bool:
    """Return True if `convolve_resized` is faster than to resize, join and convolve; only 1x1 and 3x3 are known."""
    kernel = convolution.kernel_size
    return (
        kernel in ((1, 1), (3, 3))
        and convolution.padding == (kernel[0] // 2, kernel[1] // 2)
        and (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
        and any(_saved(one, size) >= WORTH for one in maps)
    )


def convolve_resized(
    convolution: nn.Conv2d, maps: Sequence[Float[Tensor, "B _ _ _"]], size: tuple[int, int], *, align_corners: bool
) -> Float[Tensor, "B D H W"]:
    """Return the convolution of maps, resized to ``size`` and joined in their order.

    Args:
        convolution: 1x1 or 3x3, of stride 1, padded so that it keeps the size, undilated, ungrouped.
        size: height and width.
        align_corners: how maps are resized.
    """
    total: Tensor | None = None
    slices = convolution.weight.split([one.shape[1] for one in maps], dim=1)
    for one, weight in zip(maps, slices, strict=True):
        if _saved(one, size) >= WORTH:
            product = _by_taps(one, weight, size, align_corners)
        else:
            if tuple(one.shape[-2:]) != tuple(size):
                one = F.interpolate(one, size=tuple(size), mode="bilinear", align_corners=align_corners)
            product = F.conv2d(one, weight, padding=convolution.kernel_size[0] // 2)
        total = product if total is None else total.add_(product)
    assert total is not None
    return total if convolution.bias is None else total.add_(convolution.bias[:, None, None])


def _saved(one: Tensor, size: tuple[int, int]) -> float:
    if one.shape[2] > size[0] or one.shape[3] > size[1]:
        return 0.0
    return one.shape[1] * (1 - one.shape[2] * one.shape[3] / (size[0] * size[1]))


def _by_taps(one: Tensor, weight: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    outputs, kernel = weight.shape[0], weight.shape[2]
    height, width = one.shape[-2:]
    down = _shifted_weights(height, size[0], kernel, align_corners, one)
    across = _shifted_weights(width, size[1], kernel, align_corners, one)
    taps = weight.permute(2, 0, 3, 1).reshape(-1, weight.shape[1], 1, 1)
    # [B, row tap, row, output, column tap, column]: one product sums over rows, then one over columns.
    products = F.conv2d(one, taps).unflatten(1, (kernel, outputs, kernel)).permute(0, 1, 4, 2, 3, 5).contiguous()
    resized = one.new_empty(len(one), size[0], outputs, size[1])
    for rows, above in _blocks(down):
        tall = down[rows, :, above].flatten(1) @ products[:, :, above].flatten(1, 2).flatten(2)
        tall = tall.view(len(one), -1, outputs, kernel, width)
        for columns, left in _blocks(across):
            resized[:, rows, :, columns] = tall[..., left].flatten(3) @ across[columns, :, left].flatten(1).T
    return resized.transpose(1, 2)


def _shifted_weights(
    coarse: int, fine: int, kernel: int, align_corners: bool, like: Tensor
) -> Float[Tensor, "fine kernel coarse"]:
    """Return by how much each coarse place enters each fine one, seen through each tap; beyond the rim is 0."""
    identity = torch.eye(coarse, dtype=like.dtype, device=like.device)[None]
    weights = F.interpolate(identity, size=fine, mode="linear", align_corners=align_corners)[0].T
    reach = kernel // 2
    return F.pad(weights, (0, 0, reach, reach)).unfold(0, kernel, 1).transpose(1, 2)


def _blocks(weights: Float[Tensor, "fine kernel coarse"]) -> list[tuple[slice, slice]]:
    """Return the blocks of fine places, each with the coarse ones that enter it and at most three more on each side."""
    fine, _, coarse = weights.shape
    found = []
    for first in range(0, fine, BLOCK):
        last = min(first + BLOCK, fine)
        # Computed, not looked up, so that nothing depends on values: also a network without any can be counted.
        entering = slice(max(0, (first - 1) * coarse // fine - 2), min(coarse, (last + 1) * coarse // fine + 3))
        found.append((slice(first, last), entering))
    return found
