"""The softmax of every full-size pixel from logits at the stride, and its gradient carried back to the stride.

Bilinear upsampling happens in registers. The first kernel gives what the losses of pixels are made from; torch's own
functions make a number per pixel of them; the second kernel takes those back. Each program of the second one owns some
cells and gathers from the pixels around them. So additions have one order, and a step gives the same bits each time.
"""

# Triton compiles and calls kernels in its own way.
# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnboundVariable=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from pixelwise.kernels import neighbours, where
from pixelwise.kernels.bilinear import around, upsampled

BLOCK = 128
"""Pixels of a program of the first kernel."""
CELLS, CLASSES = 32, 8
"""Cells of a row, and classes, that a program of the second kernel has."""


@triton.jit
def _softmax(
    logits, targets, smoothing, totals, own_logits, smoothed, rows, row_shares, columns, column_shares,
    classes, h, w, height, width, by_image, by_class, by_row, by_column,
    is_smoothed: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    image, y = line // height, line % height
    x = tl.program_id(1) * block + tl.arange(0, block)
    inside = x < width
    upper, lower, down = around(rows, row_shares, y, h, y < height)
    left, right, across = around(columns, column_shares, x, w, inside)
    target = tl.load(targets + line * width + x, mask=inside, other=0)
    of_image = logits + image * by_image
    highest = tl.full((block,), float("-inf"), tl.float32)
    total = tl.zeros((block,), tl.float32)
    own = tl.zeros((block,), tl.float32)
    weighted = tl.zeros((block,), tl.float32)
    for k in range(classes):
        logit = upsampled(
            of_image + k * by_class, upper, lower, down, left, right, across, by_row, by_column, inside, 0.0, False
        )
        above = tl.maximum(logit, highest)
        total = total * tl.exp(highest - above) + tl.exp(logit - above)
        highest = above
        own = tl.where(target == k, logit, own)
        if is_smoothed:
            weighted += tl.load(smoothing + k) * logit
    at = line * width + x
    tl.store(totals + at, highest + tl.log(total), mask=inside)
    tl.store(own_logits + at, own, mask=inside)
    if is_smoothed:
        tl.store(smoothed + at, weighted, mask=inside)


@triton.jit
def _gather(
    logits, gradient, targets, totals, shares, at_target, smoothing, valid,
    rows, row_shares, row_begin, row_end, columns, column_shares, column_begin, column_end, span,
    classes, h, w, height, width, by_image, by_class, by_row, by_column,
    is_smoothed: tl.constexpr, block: tl.constexpr, some: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    image, i = line // h, line % h
    j = tl.program_id(1) * block + tl.arange(0, block)
    k = tl.program_id(2) * some + tl.arange(0, some)[:, None]
    there = j < w
    of_image, at = logits + image * by_image, k * by_class
    first = tl.load(column_begin + j, mask=there, other=0)
    last = tl.load(column_end + j, mask=there, other=0)
    gathered = tl.zeros((some, block), tl.float32)
    if is_smoothed:
        extra = tl.load(smoothing + k, mask=k < classes, other=0.0)
    for y in range(tl.load(row_begin + i), tl.load(row_end + i)):
        upper, lower, down = around(rows, row_shares, y, h, y < height)
        by_y = tl.where(upper == i, 1.0 - down, 0.0) + tl.where(lower == i, down, 0.0)
        for step in range(span):
            x = first + step
            seen = there & (x < last)
            left, right, across = around(columns, column_shares, x, w, seen)
            by_x = tl.where(left == j, 1.0 - across, 0.0) + tl.where(right == j, across, 0.0)
            pixel = (image * height + y) * width + x
            total = tl.load(totals + pixel, mask=seen, other=0.0)
            share = tl.load(shares + pixel, mask=seen, other=0.0)
            pull = tl.load(at_target + pixel, mask=seen, other=0.0)
            target = tl.load(targets + pixel, mask=seen, other=-1)
            known = seen[None, :] & (k < classes)
            logit = upsampled(
                of_image + at, upper, lower, down, left[None, :], right[None, :], across[None, :],
                by_row, by_column, known, 0.0, False,
            )  # fmt: skip
            slope = share[None, :] * tl.exp(logit - total[None, :])
            slope -= tl.where(target[None, :] == k, pull[None, :], 0.0)
            if is_smoothed:
                slope -= extra * tl.load(valid + pixel, mask=seen, other=0.0)[None, :]
            gathered += tl.where(known, by_y * by_x[None, :] * slope, 0.0)
    out = gradient + ((image * classes + k) * h + i) * w + j[None, :]
    tl.store(out, gathered, mask=there[None, :] & (k < classes))


def softmax_of_pixels(
    logits: Tensor, target: Tensor, smoothing: Tensor | None, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the logarithm of the sum of exponentials, the own class's logit, and the smoothing's sum, each [B,H,W].

    Args:
        logits: [B,K,h,w].
        target: [B,H,W], int32, a class's index.
        smoothing: [K], a class's weight in the sum.
    """
    (batch, classes, h, w), (height, width) = logits.shape, target.shape[1:]
    device, asked = logits.device, smoothing is not None
    total, own = torch.empty(2, *target.shape, dtype=torch.float32, device=device).unbind()
    smoothed = torch.empty_like(total) if asked else total
    tables = (*neighbours(h, height, align_corners, device), *neighbours(w, width, align_corners, device))
    with where(logits):
        _softmax[(batch * height, triton.cdiv(width, BLOCK))](
            logits, target, smoothing if asked else total, total, own, smoothed, *tables,
            classes, h, w, height, width, *logits.stride(), is_smoothed=asked, block=BLOCK,
        )  # fmt: skip
    return total, own, smoothed if asked else None


def gradient_of_cells(
    logits: Tensor,
    target: Tensor,
    total: Tensor,
    share: Tensor,
    at_target: Tensor,
    smoothing: Tensor | None,
    valid: Tensor,
    align_corners: bool,
) -> Tensor:
    """Return the gradient by the logits [B,K,h,w], if by a pixel's logit k it is ``share`` p_k - ``at_target`` [k = t].

    Args:
        total: as `softmax_of_pixels` gives it.
        share, at_target: [B,H,W], float32; 0 where ignored.
        smoothing: [K], subtracted from the gradient of each class at ``valid`` pixels.
        valid: [B,H,W], float32, 1 or 0.
    """
    (batch, classes, h, w), (height, width) = logits.shape, target.shape[1:]
    gradient = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    tables, span = [], 0
    for coarse, full in ((h, height), (w, width)):
        first, shares = neighbours(coarse, full, align_corners, logits.device)
        # The pixels whose first cell is the one before, or the cell itself.
        cells = torch.arange(coarse, device=logits.device, dtype=torch.int32)
        begin = torch.searchsorted(first, cells - 1).to(torch.int32)
        end = torch.searchsorted(first, cells, right=True).to(torch.int32)
        tables += [first, shares, begin, end]
        # At most so many, known without asking the device: at the rim, one and a half times as far.
        span = 3 * (-(-full // max(1, coarse - 1 if align_corners else coarse)) + 1)
    asked = smoothing is not None
    grid = (batch * h, triton.cdiv(w, CELLS), triton.cdiv(classes, CLASSES))
    with where(logits):
        _gather[grid](
            logits, gradient, target, total, share, at_target, smoothing if asked else total, valid, *tables, span,
            classes, h, w, height, width, *logits.stride(), is_smoothed=asked, block=CELLS, some=CLASSES,
        )  # fmt: skip
    return gradient
