"""A 3x3 convolution of stride 1 with half of its products: four rows of the result are made at once.

Winograd's minimal filtering F(4,3) (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016,
arXiv 1509.09308, section 4), over rows alone. Six sums of six neighbouring rows are each convolved with a kernel of
one row, and sums of what comes of it are four rows: 6 · 3 products instead of 4 · 9. Over rows and columns it would be
a quarter of the products, but four times the sums, and rounding far beyond that of the plain convolution. The points
of interpolation are 0, ±1/√2, ±√2 and infinity; with these, rounding stays below twice the plain convolution's.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

ROWS = 4
"""Rows of the result that are made at once."""
NEAR, FAR = 0.5**0.5, 2**0.5
"""The points of interpolation that are neither 0 nor infinity, with both signs."""
STRIP_ELEMENTS = 1 << 20
"""Largest number of values in the six sums of a strip, or in what comes of them: 4 MB in float32."""

RowConvolution = Callable[[int, Float[Tensor, "N C 1 W"]], Float[Tensor, "N D 1 W"]]
"""Convolves lines with kernel 0 to 5 of `row_kernels`, padded so that they keep their length."""


def row_kernels(
    weight: Float[Tensor, "D C 3 3"], bias: Float[Tensor, " D"]
) -> list[tuple[Float[Tensor, "D C 1 3"], Float[Tensor, " D"]]]:
    """Return the six kernels of one row, each with its bias."""
    above, middle, below = weight.double().unbind(2)
    kernels = [above]
    for point, scale in ((NEAR, -2 / 3), (-NEAR, -2 / 3), (FAR, 1 / 6), (-FAR, 1 / 6)):
        kernels.append(scale * (above + point * middle + point**2 * below))
    kernels.append(below)
    # A bias is a kernel's first row over a channel of ones: these are its six sums, times the factors above.
    shares = (-0.5, 2 / 3 * (1 + NEAR), 2 / 3 * (1 - NEAR), (1 + FAR) / 12, (1 - FAR) / 12, 0.0)
    return [(kernel[:, :, None].to(weight.dtype), share * bias) for kernel, share in zip(kernels, shares, strict=True)]


def convolve_by_rows(
    image: Float[Tensor, "B C H W"],
    outputs: int,
    dilation: int,
    convolve: RowConvolution,
    finish: Callable[[Float[Tensor, "1 D n W"], int, int], None],
) -> Float[Tensor, "B D H W"]:
    """Return the convolution of a channels-last map with zeros around it, channels-last.

    Args:
        outputs: channels of the result.
        dilation: of rows; that of columns is the caller's.
        convolve: applies one of the six kernels to lines.
        finish: changes a strip of the result in place while it is in cache; it gets the image's number and the first
            row too. Rows may reach beyond the map, and are not kept there.
    """
    batch, _, height, width = image.shape
    step = ROWS * dilation
    tiles = -(-height // step)
    result = image.new_empty(batch, tiles * step, width, outputs)
    lines = max(1, STRIP_ELEMENTS // (6 * dilation * width * max(outputs, image.shape[1])))
    for number, one in enumerate(image.permute(0, 2, 3, 1)):
        for first in range(0, tiles, lines):
            top, bottom = first * step, min(tiles, first + lines) * step
            rows = one[max(0, top - dilation) : bottom + dilation]
            missing = (max(0, dilation - top), max(0, bottom + dilation - height))
            if any(missing):
                rows = F.pad(rows, (0, 0, 0, 0, *missing))
            sums = _sums(rows.unfold(0, step + 2 * dilation, step).unflatten(3, (6, dilation)).permute(3, 0, 4, 1, 2))
            products = [
                convolve(i, one.flatten(0, 1)[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
                for i, one in enumerate(sums)
            ]
            strip = result[number, top:bottom]
            _collect([p.view(-1, dilation, width, outputs) for p in products], strip.unflatten(0, (-1, ROWS, dilation)))
            finish(strip.permute(2, 0, 1)[None], number, top)
    return result[:, :height].permute(0, 3, 1, 2)


def _sums(rows: Float[Tensor, "6 n d W C"]) -> Float[Tensor, "6 n d W C"]:
    sums = rows.new_empty(rows.shape)
    even, odd = torch.sub(rows[4], rows[2], alpha=2), torch.sub(rows[3], rows[1], alpha=2)
    torch.add(even, odd, alpha=NEAR, out=sums[1])
    torch.sub(even, odd, alpha=NEAR, out=sums[2])
    torch.sub(rows[5], rows[3], alpha=2, out=sums[5]).sub_(odd, alpha=0.5)
    torch.sub(rows[4], rows[2], alpha=0.5, out=even)
    torch.sub(rows[3], rows[1], alpha=0.5, out=odd)
    torch.add(even, odd, alpha=FAR, out=sums[3])
    torch.sub(even, odd, alpha=FAR, out=sums[4])
    torch.sub(rows[0], rows[2], alpha=2, out=sums[0]).add_(even)
    return sums


def _collect(products: list[Float[Tensor, "n d W D"]], rows: Float[Tensor, "n 4 d W D"]) -> None:
    first, plus_near, minus_near, plus_far, minus_far, last = products
    half = torch.lerp(plus_near, minus_near, 0.5)
    near = plus_near.sub_(minus_near)
    both = torch.add(plus_far, minus_far, out=minus_near)
    far = plus_far.sub_(minus_far)
    torch.add(first.add_(half, alpha=2), both, out=rows[:, 0])
    torch.add(near, far, alpha=2, out=rows[:, 1]).mul_(NEAR)
    torch.add(half, both, alpha=2, out=rows[:, 2])
    torch.add(last.add_(near, alpha=NEAR**3), far, alpha=FAR**3, out=rows[:, 3])
