"""The full-size pixels of a batch, strip by strip, from logits that exist at the stride alone.

A *cell* is a position of the coarse logits. There are two ways to upsample from cells to pixels. `_squares` is the
fast one, for masks that are larger than the logits by a whole factor, the stride. `_rows` takes any size. A GPU is
faster with few large steps, so there `_images` has all pixels of an image in one strip.

`_squares` walks over the squares between the centres of four cells. With stride 4 a square has 16 pixels::

    A-------------------B        A, B, C, D   the centres of four cells
    |                   |        a to p       the centres of 16 pixels
    |  a    b    c    d |
    |                   |        share of B and D, to the right: 1/8, 3/8, 5/8, 7/8
    |  e    f    g    h |        share of C and D, downwards:    1/8, 3/8, 5/8, 7/8
    |                   |
    |  i    j    k    l |        With an odd stride, a lies on A, and the shares are 0, 1/3, 2/3.
    |                   |
    |  m    n    o    p |
    |                   |
    C-------------------D

The shares are the same in every square. So upsampling adds up four copies of the map of cells, each shifted by a cell
and weighted by a number. No pixel needs an index. Down the left side, the logit at row i is the lerp of A and C; so it
is for B and D on the right side. The pixels of row i then go from left to right in equal steps. So their exponentials
have equal ratios, and one of them gives the next by one product.

Cells at the rim of the image are repeated outwards once, so that there are squares around the image as well. A strip
is some rows of squares. Within a strip, squares lie one behind the other in a flat array. A flat array joins the last
cell of a row to the first of the next: the square between those two lies outside of the image and is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.upsampling import strips, upsample, upsample_rows

STEEPEST = 80.0
"""exp of minus more than this is no normal number in float32."""
IMAGE_STRIPS = 256
"""A strip of whole images is up to so many times as large as others: 1 GiB in float32."""
CHAIN = 4
"""Pixels whose exponentials are made from one; each product costs half a unit in the last place."""


@dataclass(frozen=True)
class Strip:
    """Some pixels of one image: m rows of P."""

    exponential: Tensor
    """exp of their logits [m,K,P], each pixel's shifted by a number of its own; to be overwritten."""
    target_logit: Tensor
    """[m,1,P]: the logit of the pixel's own class, shifted by the same number; anything where ignored."""
    smoothing_sum: Tensor | None
    """[m,1,P]: the shifted logits, each times its class's weight in label smoothing, added up."""
    label: Tensor
    """[m,1,P]: 0 where ignored, else the class's index + 1, for tables that begin with what is ignored."""
    target: Tensor
    """[m,1,P]: the class's index, 0 where ignored."""
    position: Tensor
    """[m,1,P]: the number of each pixel in its image, -1 outside of it."""
    image: int
    add_gradient: Callable[[Tensor], None]
    """Carries a gradient by the logits [m,K,P], 0 where ignored, back to the cells and adds it there."""


def pixel_strips(
    logits: Tensor,
    mask: Tensor,
    *,
    align_corners: bool,
    smoothing: Tensor | None = None,
    gradient: Tensor | None = None,
) -> Iterator[Strip]:
    """Yield all pixels of a batch.

    Args:
        logits: [B,K,h,w].
        mask: [B,H,W].
        smoothing: [K], the classes' weights in `Strip.smoothing_sum`.
        gradient: [B,K,h,w], what `Strip.add_gradient` adds to; complete after the last strip.
    """
    (h, w), size = logits.shape[-2:], (mask.shape[-2], mask.shape[-1])
    stride = size[0] // h
    large = takes_images(logits.device)
    whole = stride > 1 and size == (h * stride, w * stride) and not align_corners and not large
    positions = _positions_in_squares(h, w, stride, mask.device) if whole else None
    for image, (own, own_mask) in enumerate(zip(logits.detach(), mask, strict=True)):
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        # One more at the end, which position -1 finds.
        labels = F.pad(own_mask.flatten().long() - IGNORE, (0, 1))
        part = torch.empty_like(own) if gradient is None else gradient[image]
        if positions is not None:
            yield from _squares(own, labels[positions], positions, stride, image, smoothing, part)
        else:
            cut = _images if large else _rows
            yield from cut(own, labels, size, align_corners, image, smoothing, part)


def takes_images(device: torch.device) -> bool:
    """Return whether a device should get whole images."""
    return device.type == "cuda"


# The fast way: squares between four cells.


def _squares(
    logits: Tensor,
    labels: Tensor,
    positions: Tensor,
    stride: int,
    image: int,
    smoothing: Tensor | None,
    gradient: Tensor,
) -> Iterator[Strip]:
    """Yield rows of squares: m is the stride², P the squares. Labels and positions are [stride²,h+1,w+2]."""
    classes, h, w = logits.shape
    cells = _padded_cells(logits)
    chained = bool(cells.amin() > -STEEPEST)
    shares = _shares(stride)
    corners = _corner_weights(cells.new_tensor(shares)).expand(classes, -1, -1)
    smoothed = None if smoothing is None else torch.tensordot(smoothing, cells, dims=1)[None]
    gathered = torch.zeros_like(cells)
    # A strip has many small steps, so larger strips are faster, by measurement.
    for top, bottom in strips(torch.Size((1, classes)), (h + 1, stride**2 * (w + 2)), times=2):
        position, label = (each[:, None, top:bottom].flatten(2) for each in (positions, labels))
        target = (label - 1).clamp_(min=0)
        left, step = _left_side_and_step(cells[:, top : bottom + 1], shares)
        if chained:
            exponential, shift = _chained_exponentials(left, step, shares, classes), None
            target_logit = exponential.gather(1, target).log_()
        else:
            exponential = _logits_of_squares(left, step, shares, classes)
            shift = exponential.amax(dim=1, keepdim=True)
            exponential -= shift
            target_logit = exponential.gather(1, target)
            exponential.exp_()
        smoothing_sum = None
        if smoothing is not None and smoothed is not None:
            left, step = _left_side_and_step(smoothed[:, top : bottom + 1], shares)
            smoothing_sum = torch.stack([left + step * share for share in shares], dim=1).view_as(target_logit)
            smoothing_sum = smoothing_sum if shift is None else smoothing_sum - smoothing.sum() * shift
        add = partial(_add_to_cells, gathered[:, top : bottom + 1], corners)
        yield Strip(exponential, target_logit, smoothing_sum, label, target, position, image, add)
    gradient += _without_padding(gathered)


def _positions_in_squares(h: int, w: int, stride: int, device: torch.device) -> Tensor:
    """Return each pixel's number in its image, -1 outside: [stride², h+1, w+2], by place in a square and square."""
    first = (stride + 1) // 2
    grid = torch.full(((h + 1) * stride, (w + 2) * stride), -1, device=device)
    numbers = torch.arange(h * w * stride**2, device=device).view(h * stride, w * stride)
    grid[first : first + h * stride, first : first + w * stride] = numbers
    return grid.view(h + 1, stride, w + 2, stride).permute(1, 3, 0, 2).flatten(0, 1)


def _padded_cells(logits: Tensor) -> Tensor:
    """Return the cells and a rim around them [K,h+2,w+2], each cell shifted so that its highest logit is 0.

    A softmax does not see a shift. This one is upsampled like the logits, and leaves no pixel's logit above 0.
    """
    return F.pad((logits - logits.amax(dim=0))[None], (1, 1, 1, 1), mode="replicate")[0]


def _without_padding(gathered: Tensor) -> Tensor:
    """Return the gradient of `_padded_cells`: what came to the rim goes to the cells that it repeats."""
    gathered[:, 1] += gathered[:, 0]
    gathered[:, -2] += gathered[:, -1]
    gathered[:, :, 1] += gathered[:, :, 0]
    gathered[:, :, -2] += gathered[:, :, -1]
    return gathered[:, 1:-1, 1:-1]


def _shares(stride: int) -> list[float]:
    """Return where a square's pixels lie, from 0 at the left (or upper) cells to 1 at the right (or lower) ones."""
    return [(i + (0.5 if stride % 2 == 0 else 0)) / stride for i in range(stride)]


def _corner_weights(shares: Tensor) -> Tensor:
    """Return what the cells A, B, C and D give to each pixel of a square [1,4,stride²]."""
    sides = torch.stack([1 - shares, shares])
    return torch.einsum("ai,bj->abij", sides, sides).view(1, 4, -1)


def _left_side_and_step(cells: Tensor, shares: list[float]) -> tuple[Tensor, Tensor]:
    """Return the logits of each row of pixels on its square's left side, and how much higher the right side is.

    Args:
        cells: [K,n+1,w].
        shares: of the lower cells, one for each row of pixels.

    Returns:
        both [stride, K*n*w]; to be overwritten.
    """
    above, below = cells[:, :-1], cells[:, 1:]
    # One more at the end: a square's right side is the left side of the next, and the last one has no next.
    sides = cells.new_empty(len(shares) * above.numel() + 1)
    sides[-1] = 0
    for out, share in zip(sides[:-1].view(len(shares), *above.shape), shares, strict=True):
        torch.lerp(above, below, share, out=out)
    return sides[:-1].view(len(shares), -1), (sides[1:] - sides[:-1]).view(len(shares), -1)


def _logits_of_squares(left: Tensor, step: Tensor, shares: list[float], classes: int) -> Tensor:
    """Return the logits of all pixels [stride²,K,n*w]."""
    logits = left.new_empty(len(shares), len(shares), left.shape[1])
    for j, share in enumerate(shares):
        torch.add(left, step, alpha=share, out=logits[:, j])
    return logits.view(len(shares) ** 2, classes, -1)


def _chained_exponentials(left: Tensor, step: Tensor, shares: list[float], classes: int) -> Tensor:
    """Return exp of `_logits_of_squares`: of every `CHAIN`-th pixel of a row; the others follow by products."""
    stride = len(shares)
    exponential = left.new_empty(stride, stride, left.shape[1])
    for j in range(0, stride, CHAIN):
        torch.add(left, step, alpha=shares[j], out=exponential[:, j]).exp_()
    ratio = step.div_(stride).exp_()
    for j in range(stride):
        if j % CHAIN:
            torch.mul(exponential[:, j - 1], ratio, out=exponential[:, j])
    return exponential.view(stride**2, classes, -1)


def _add_to_cells(gathered: Tensor, corners: Tensor, slope: Tensor) -> None:
    """Add to the cells [K,n+1,w] what a gradient by the pixels [stride²,K,n*w] is by them."""
    by_corner = torch.bmm(corners, slope.transpose(0, 1)).unflatten(1, (2, 2))
    left, right = by_corner.unbind(2)
    # The right cell of a square is the left one of the next.
    left[..., 1:] += right[..., :-1]
    above, below = left.unflatten(2, (-1, gathered.shape[2])).unbind(1)
    gathered[:, :-1] += above
    gathered[:, 1:] += below


# Any size: full-size rows.


def _rows(
    logits: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    image: int,
    smoothing: Tensor | None,
    gradient: Tensor,
) -> Iterator[Strip]:
    """Yield full-size rows: m of them, of P pixels.

    Columns are upsampled first, on the few coarse rows, and by the slow kernel; then rows, by a fast matrix product.
    """
    (height, width), coarse = size, logits.shape[1]
    identity = torch.eye(coarse, dtype=logits.dtype, device=logits.device)[None, None]
    by_row = logits.movedim(1, 0)[:, :, None].contiguous()
    for top, bottom in strips(torch.Size((1, len(logits))), size):
        first = int(_centre(top, coarse, height, align_corners))
        last = min(coarse, int(_centre(bottom - 1, coarse, height, align_corners)) + 2)
        vertical = upsample_rows(identity, (height, coarse), top, bottom, align_corners=align_corners)
        vertical = vertical[0, 0, :, first:last]
        part = by_row[first:last].requires_grad_()
        with torch.enable_grad():
            wide = upsample(part, (1, width), align_corners=align_corners)
        rows = (vertical @ wide.detach().flatten(1)).view(bottom - top, -1, width)
        position = torch.arange(top * width, bottom * width, device=labels.device).view(-1, 1, width)
        label = labels[position]
        target = (label - 1).clamp_(min=0)
        rows -= rows.amax(dim=1, keepdim=True)
        target_logit = rows.gather(1, target)
        smoothing_sum = None if smoothing is None else (smoothing @ rows)[:, None]
        add = partial(_add_to_coarse_rows, gradient[:, first:last], part, wide, vertical)
        yield Strip(rows.exp_(), target_logit, smoothing_sum, label, target, position, image, add)


def _add_to_coarse_rows(gradient: Tensor, part: Tensor, wide: Tensor, vertical: Tensor, slope: Tensor) -> None:
    """Add to coarse rows [K,n,w] what a gradient by full-size rows [m,K,W] is by them."""
    by_row = (vertical.T @ slope.flatten(1)).view_as(wide)
    (back,) = torch.autograd.grad(wide, part, by_row)
    gradient += back[:, :, 0].movedim(0, 1)


def _centre(row: int, coarse: int, height: int, align_corners: bool) -> float:
    """Return where the centre of a full-size row lies among the coarse ones."""
    if align_corners:
        return row * ((coarse - 1) / max(1, height - 1))
    return max(0.0, (row + 0.5) * (coarse / height) - 0.5)


# A GPU: whole images.


def _images(
    logits: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    image: int,
    smoothing: Tensor | None,
    gradient: Tensor,
) -> Iterator[Strip]:
    """Yield an image in one strip, or in as few as `IMAGE_STRIPS` allows; m and P are as in `_rows`.

    Upsampling is two matrix products, and so is its gradient, which adds in one order.
    """
    (height, width), (classes, h, w) = size, logits.shape
    horizontal = _matrix(w, width, logits, align_corners)
    vertical = _matrix(h, height, logits, align_corners)
    for top, bottom in strips(torch.Size((1, classes)), size, times=IMAGE_STRIPS):
        own = vertical[top:bottom]
        rows = torch.einsum("mh,khw,xw->mkx", own, logits, horizontal)
        position = torch.arange(top * width, bottom * width, device=labels.device).view(-1, 1, width)
        label = labels[position]
        target = (label - 1).clamp_(min=0)
        rows -= rows.amax(dim=1, keepdim=True)
        target_logit = rows.gather(1, target)
        smoothing_sum = None if smoothing is None else (smoothing @ rows)[:, None]
        add = partial(_add_to_image, gradient, own, horizontal)
        yield Strip(rows.exp_(), target_logit, smoothing_sum, label, target, position, image, add)


def _matrix(coarse: int, full: int, like: Tensor, align_corners: bool) -> Tensor:
    """Return the matrix [full, coarse] that upsamples along one axis."""
    identity = torch.eye(coarse, dtype=like.dtype, device=like.device)[None, None]
    return upsample_rows(identity, (full, coarse), 0, full, align_corners=align_corners)[0, 0]


def _add_to_image(gradient: Tensor, vertical: Tensor, horizontal: Tensor, slope: Tensor) -> None:
    """Add to the cells [K,h,w] what a gradient by full-size rows [m,K,W] is by them."""
    gradient += torch.einsum("mh,mkx,xw->khw", vertical, slope, horizontal)
