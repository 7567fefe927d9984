"""A walk over the full-size pixels of a batch, some at a time, with logits that exist at the stride alone."""

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
CHAIN = 4
"""Pixels whose exponentials are made from one; each product costs half a unit in the last place."""


@dataclass(frozen=True)
class Strip:
    """Some pixels of one image: m rows of P."""

    exponential: Tensor
    """exp of their logits [m,K,P], each pixel's shifted by a number of its own; to be overwritten."""
    chosen: Tensor
    """[m,1,P]: the logit of the pixel's own class, shifted by the same number; anything where ignored."""
    spread: Tensor | None
    """[m,1,P]: the shifted logits, weighted by class and added."""
    label: Tensor
    """[m,1,P]: 0 where ignored, else the class's index + 1, for tables that begin with what is ignored."""
    target: Tensor
    """[m,1,P]: the class's index, 0 where ignored."""
    place: Tensor
    """[m,1,P]: the number of each pixel in its image, -1 outside of it."""
    image: int
    add_gradient: Callable[[Tensor], None]
    """Carries a gradient by the logits [m,K,P], 0 where ignored, back to the stride and adds it there."""


def walk(
    logits: Tensor, mask: Tensor, *, align_corners: bool, spread: Tensor | None = None, gradient: Tensor | None = None
) -> Iterator[Strip]:
    """Yield all pixels of a batch.

    Args:
        logits: [B,K,h,w].
        mask: [B,H,W].
        spread: [K], the classes' weights in `Strip.spread`.
        gradient: [B,K,h,w], what `Strip.add_gradient` adds to; complete when the walk has ended.
    """
    (h, w), size = logits.shape[-2:], (mask.shape[-2], mask.shape[-1])
    stride = size[0] // h
    whole = stride > 1 and size == (h * stride, w * stride) and not align_corners
    places = _places_in_squares(h, w, stride, mask.device) if whole else None
    for image, (own, own_mask) in enumerate(zip(logits.detach(), mask, strict=True)):
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        # One more at the end, for places outside of the image.
        labels = F.pad(own_mask.flatten().long() - IGNORE, (0, 1))
        part = torch.empty_like(own) if gradient is None else gradient[image]
        if places is not None:
            yield from _squares(own, labels[places], places, stride, image, spread, part)
        else:
            yield from _rows(own, labels, size, align_corners, image, spread, part)


def _squares(
    logits: Tensor, labels: Tensor, places: Tensor, stride: int, image: int, spread: Tensor | None, gradient: Tensor
) -> Iterator[Strip]:
    # Upsampling by a whole factor. Between the centres of four cells lie stride² pixels, each at its own constant
    # distance from them. A strip is some rows of such squares, m the pixels of a square, and upsampling adds weighted
    # maps that are shifted by one cell. Maps are read flat: a row's last square goes around the edge, out of the image.
    # Labels and places lie as `_places_in_squares` gives them, [m,h+1,w+2].
    classes, h, w = logits.shape
    # A softmax does not see a shift. This one is upsampled like the logits, and leaves none of them above 0.
    cells = F.pad((logits - logits.amax(dim=0))[None], (1, 1, 1, 1), mode="replicate")[0]
    # Pixels of a row of a square have logits in equal steps, so their exponentials have equal ratios.
    chain = CHAIN if bool(cells.amin() > -STEEPEST) else 1
    average = None if spread is None else torch.tensordot(spread, cells, dims=1)[None]
    shares = [(i + (0.5 if stride % 2 == 0 else 0)) / stride for i in range(stride)]
    right = cells.new_tensor(shares)
    sides = torch.stack([1 - right, right])
    corners = torch.einsum("ai,bj->abij", sides, sides).view(1, 4, -1).expand(classes, -1, -1)
    gathered = torch.zeros_like(cells)
    # A strip has many small steps, so larger ones are faster, by measurement.
    for top, bottom in strips(torch.Size((1, classes)), (h + 1, stride**2 * (w + 2)), times=2):
        place = places[:, None, top:bottom].flatten(2)
        label = labels[:, None, top:bottom].flatten(2)
        target = (label - 1).clamp_(min=0)
        exponential, chosen, shift = _exponentials(cells[:, top : bottom + 1], shares, target, chain)
        mixed = None
        if spread is not None and average is not None:
            first, step = _rows_of_squares(average[:, top : bottom + 1], shares)
            mixed = torch.stack([first + step * each for each in shares], dim=1).view_as(chosen)
            mixed = mixed if shift is None else mixed - spread.sum() * shift
        add = partial(_add_to_cells, gathered[:, top : bottom + 1], corners)
        yield Strip(exponential, chosen, mixed, label, target, place, image, add)
    # The outermost cells are copies of their neighbours.
    gathered[:, 1] += gathered[:, 0]
    gathered[:, -2] += gathered[:, -1]
    gathered[:, :, 1] += gathered[:, :, 0]
    gathered[:, :, -2] += gathered[:, :, -1]
    gradient += gathered[:, 1:-1, 1:-1]


def _places_in_squares(h: int, w: int, stride: int, device: torch.device) -> Tensor:
    """Return each pixel's number in its image, -1 outside: [stride², h+1, w+2], by place in a square and square."""
    first = (stride + 1) // 2
    grid = torch.full(((h + 1) * stride, (w + 2) * stride), -1, device=device)
    numbers = torch.arange(h * w * stride**2, device=device).view(h * stride, w * stride)
    grid[first : first + h * stride, first : first + w * stride] = numbers
    return grid.view(h + 1, stride, w + 2, stride).permute(1, 3, 0, 2).flatten(0, 1)


def _rows_of_squares(cells: Tensor, shares: list[float]) -> tuple[Tensor, Tensor]:
    """Return cells [K,n+1,w] upsampled in height, [stride, K*n*w], and what is added to come to the next column."""
    above, below = cells[:, :-1], cells[:, 1:]
    # The last one has no next.
    rows = cells.new_empty(len(shares) * above.numel() + 1)
    rows[-1] = 0
    for out, share in zip(rows[:-1].view(len(shares), *above.shape), shares, strict=True):
        torch.lerp(above, below, share, out=out)
    return rows[:-1].view(len(shares), -1), (rows[1:] - rows[:-1]).view(len(shares), -1)


def _exponentials(
    cells: Tensor, shares: list[float], target: Tensor, chain: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return those of all pixels between rows of cells, the targets' logits, and what both are shifted by."""
    first, step = _rows_of_squares(cells, shares)
    stride = len(shares)
    exponential = cells.new_empty(stride**2, len(cells), target.shape[-1])
    out = exponential.view(stride, stride, -1)
    starts = range(0, stride, chain)
    for j in starts:
        torch.add(first, step, alpha=shares[j], out=out[:, j])
    if chain > 1:
        ratio = step.div_(stride).exp_()
        for j in range(stride):
            if j in starts:
                out[:, j].exp_()
            else:
                torch.mul(out[:, j - 1], ratio, out=out[:, j])
        return exponential, exponential.gather(1, target).log_(), None
    highest = exponential.amax(dim=1, keepdim=True)
    exponential -= highest
    chosen = exponential.gather(1, target)
    return exponential.exp_(), chosen, highest


def _add_to_cells(gathered: Tensor, corners: Tensor, slope: Tensor) -> None:
    # [K,2,2,n*w]: what goes to the cells above and below, left and right.
    by_corner = torch.bmm(corners, slope.transpose(0, 1)).unflatten(1, (2, 2))
    left, right = by_corner.unbind(2)
    left[..., 1:] += right[..., :-1]
    above, below = left.unflatten(2, (-1, gathered.shape[2])).unbind(1)
    gathered[:, :-1] += above
    gathered[:, 1:] += below


def _rows(
    logits: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    align_corners: bool,
    image: int,
    spread: Tensor | None,
    gradient: Tensor,
) -> Iterator[Strip]:
    # Upsampling to any size. A strip is some full-size rows. Columns are upsampled first, on the few coarse rows, and
    # by the slow kernel; then rows, by a fast matrix product.
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
        place = torch.arange(top * width, bottom * width, device=labels.device).view(-1, 1, width)
        label = labels[place]
        target = (label - 1).clamp_(min=0)
        rows -= rows.amax(dim=1, keepdim=True)
        chosen = rows.gather(1, target)
        mixed = None if spread is None else (spread @ rows)[:, None]
        add = partial(_add_to_rows, gradient[:, first:last], part, wide, vertical)
        yield Strip(rows.exp_(), chosen, mixed, label, target, place, image, add)


def _add_to_rows(gradient: Tensor, part: Tensor, wide: Tensor, vertical: Tensor, slope: Tensor) -> None:
    by_row = (vertical.T @ slope.flatten(1)).view_as(wide)
    (back,) = torch.autograd.grad(wide, part, by_row)
    gradient += back[:, :, 0].movedim(0, 1)


def _centre(row: int, coarse: int, height: int, align_corners: bool) -> float:
    if align_corners:
        return row * ((coarse - 1) / max(1, height - 1))
    return max(0.0, (row + 0.5) * (coarse / height) - 0.5)
