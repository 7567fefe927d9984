"""A convolution over maps that are resized to one size and joined, without resizing or joining them.

Bilinear resizing is linear in each channel, and so is a convolution in each of its taps. So the taps' products with
the channels, which are nearly all of the work, are taken at a map's own size; what they give is resized, each tap
shifted by its place, and added. Equal to rounding: for a map that is doubled, with a quarter of the products.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from pixelwise.fast.convolution import FusedConvolution

BLOCK = 32
"""Rows and columns that are made at once; a block needs only the few coarse ones next to it."""
WORTH = 100
"""Channels that must be saved for each output, by measurement; below, resizing the map itself is faster."""


def pays(convolution: nn.Conv2d, maps: Sequence[Float[Tensor, "B _ _ _"]], size: tuple[int, int]) -> bool:
    """Return True if `convolve_resized` is faster than to resize, join and convolve; only 1x1 and 3x3 are known.

    1x1 convolutions do without joining: each adds to what the one before left.
    """
    kernel = convolution.kernel_size
    return (
        kernel in ((1, 1), (3, 3))
        and convolution.padding == (kernel[0] // 2, kernel[1] // 2)
        and (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
        and (any(_saved(one, size) >= WORTH for one in maps) or (kernel == (1, 1) and len(maps) > 1))
    )


def convolve_resized(
    convolution: "FusedConvolution",
    maps: Sequence[Float[Tensor, "B _ _ _"]],
    size: tuple[int, int],
    *,
    align_corners: bool,
) -> Float[Tensor, "B D H W"]:
    """Return the convolution, with its activation, of maps that are resized to ``size`` and joined in their order.

    Args:
        convolution: 1x1 or 3x3, of stride 1, padded so that it keeps the size, undilated, ungrouped.
        size: height and width.
        align_corners: how maps are resized.
    """
    widths = tuple(int(one.shape[1]) for one in maps)
    early = [_saved(one, size) >= WORTH for one in maps]
    # Those that are resized first come first: a convolution adds what there is on its way.
    order = sorted(range(len(maps)), key=early.__getitem__)
    parts = convolution.derived(
        (widths, order[0]), lambda weight, bias: _parts(convolution, weight, bias, widths, order[0])
    )
    total: Tensor | None = None
    for i in order:
        one, part = maps[i], parts[i]
        if early[i]:
            total = _by_taps(one, part, size, align_corners, total)
            continue
        if tuple(one.shape[-2:]) != tuple(size):
            one = F.interpolate(one, size=tuple(size), mode="bilinear", align_corners=align_corners)
        total = part(one, total, overwrite=True)
    assert total is not None
    return F.relu_(total) if isinstance(convolution.activation, nn.ReLU) else convolution.activation(total)


def _parts(
    whole: "FusedConvolution", weight: Tensor, bias: Tensor | None, widths: tuple[int, ...], first: int
) -> list["FusedConvolution"]:
    """Return the convolution of each map alone; the first that is computed has the bias."""
    outputs, kernel = whole.out_channels, whole.kernel_size[0]
    parts = []
    for i, part in enumerate(weight.split(widths, dim=1)):
        biased = bias is not None and i == first
        one = nn.Conv2d(widths[i], outputs, kernel, padding=kernel // 2, bias=biased, device="meta")
        one.weight = nn.Parameter(part.contiguous(), requires_grad=False)
        if bias is not None and i == first:
            one.bias = nn.Parameter(bias, requires_grad=False)
        parts.append(type(whole)(one))
    return parts


def _saved(one: Tensor, size: tuple[int, int]) -> float:
    if one.shape[2] > size[0] or one.shape[3] > size[1]:
        return 0.0
    return one.shape[1] * (1 - one.shape[2] * one.shape[3] / (size[0] * size[1]))


def _by_taps(
    one: Tensor, part: "FusedConvolution", size: tuple[int, int], align_corners: bool, total: Tensor | None
) -> Tensor:
    """Return the sum of ``total``, which may be changed, and the convolution of one map, channels-last."""
    outputs, kernel = part.out_channels, part.kernel_size[0]
    height, width = one.shape[-2:]
    down = _shifted_weights(height, size[0], kernel, align_corners, one)
    across = _shifted_weights(width, size[1], kernel, align_corners, one)
    taps = part.derived("taps", lambda weight, bias: _taps(part, weight))
    # [B, row tap, row, column, column tap, output]: one product sums over rows, then one over columns.
    products = (
        taps(one).permute(0, 2, 3, 1).unflatten(3, (kernel, kernel * outputs)).permute(0, 3, 1, 2, 4).contiguous()
    )
    if total is None:
        total = one.new_zeros(len(one), *size, outputs).permute(0, 3, 1, 2)
        total = total if part.bias is None else total.add_(part.bias[:, None, None])
    result = total.permute(0, 2, 3, 1)
    for rows, above in _blocks(down):
        tall = down[rows, :, above].flatten(1) @ products[:, :, above].flatten(1, 2).flatten(2)
        tall = tall.view(len(one), -1, width * kernel, outputs)
        for columns, left in _blocks(across):
            weights = across[columns, :, left].transpose(1, 2).flatten(1)
            result[:, rows, columns] += weights @ tall[:, :, left.start * kernel : left.stop * kernel]
    return total


def _taps(part: "FusedConvolution", weight: Tensor) -> "FusedConvolution":
    """Return the products of each tap, as a 1x1 convolution; rows of taps, then columns, then outputs."""
    one = nn.Conv2d(part.in_channels, part.kernel_size[0] ** 2 * part.out_channels, 1, bias=False, device="meta")
    taps = weight.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None]
    one.weight = nn.Parameter(taps.contiguous(), requires_grad=False)
    return type(part)(one)


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
