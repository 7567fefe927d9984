"""Upsample and decide in one program: the class of every pixel from logits at the stride, read once.

Its plain equal is `pixelwise.upsampling.argmax_upsampled`. Each program has a block of pixels of one row. It goes
through the classes, with the highest logit so far, its class, and the sum of exponentials, so nothing of [K,H,W] is
ever in memory.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnbound=false  a kernel is called as Triton does

import torch
import triton
import triton.language as tl
from torch import Tensor

from pixelwise.kernels import neighbours, where

BLOCK = 128
"""Pixels of a program."""


@triton.jit
def _decide(
    logits, labels, confidences, rows, row_shares, columns, column_shares,
    classes, h, w, height, width, by_image, by_class, by_row, by_column, largest, coldness,
    with_confidence: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    image, y = line // height, line % height
    x = tl.program_id(1) * block + tl.arange(0, block)
    inside = x < width
    upper, down = tl.load(rows + y), tl.load(row_shares + y)
    lower = tl.minimum(upper + 1, h - 1)
    left = tl.load(columns + x, mask=inside, other=0)
    right, across = tl.minimum(left + 1, w - 1), tl.load(column_shares + x, mask=inside, other=0.0)
    top, bottom = logits + image * by_image + upper * by_row, logits + image * by_image + lower * by_row
    highest = tl.full((block,), float("-inf"), tl.float32)
    best = tl.zeros((block,), tl.int32)
    total = tl.zeros((block,), tl.float32)
    for k in range(classes):
        at = k * by_class
        a = tl.load(top + at + left * by_column, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(top + at + right * by_column, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(bottom + at + left * by_column, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(bottom + at + right * by_column, mask=inside, other=0.0).to(tl.float32)
        # Between infinite logits, upsampling gives NaN.
        a, b = tl.minimum(tl.maximum(a, -largest), largest), tl.minimum(tl.maximum(b, -largest), largest)
        c, d = tl.minimum(tl.maximum(c, -largest), largest), tl.minimum(tl.maximum(d, -largest), largest)
        start, end = a + down * (c - a), b + down * (d - b)
        logit = start + across * (end - start)
        # Ties go to the lower class.
        higher = logit > highest
        above = tl.maximum(logit, highest)
        if with_confidence:
            total = total * tl.exp((highest - above) * coldness) + tl.exp((logit - above) * coldness)
        best = tl.where(higher, k, best)
        highest = above
    tl.store(labels + line * width + x, best.to(labels.dtype.element_ty), mask=inside)
    if with_confidence:
        tl.store(confidences + line * width + x, 1.0 / total, mask=inside)


def argmax_upsampled(
    logits: Tensor,
    size: tuple[int, int],
    confidence: bool,
    align_corners: bool,
    largest: float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """Return labels [B,H,W] (uint8; from 257 classes on int32) and confidence, as the plain function does.

    Args:
        logits: [B,K,h,w], of any layout.
        size: the full height and width.
        largest: logits are clamped to it.
        temperature: by which logits are divided before the softmax, and there alone.
    """
    batch, classes, h, w = logits.shape
    height, width = size
    labels = torch.empty(
        (batch, height, width), dtype=torch.uint8 if classes <= 256 else torch.int32, device=logits.device
    )
    confidences = torch.empty(labels.shape if confidence else (1,), dtype=torch.float32, device=logits.device)
    tables = (*neighbours(h, height, align_corners, logits.device), *neighbours(w, width, align_corners, logits.device))
    with where(logits):
        _decide[(batch * height, triton.cdiv(width, BLOCK))](
            logits, labels, confidences, *tables,
            classes, h, w, height, width, *logits.stride(), largest, 1 / temperature,
            with_confidence=confidence, block=BLOCK,
        )  # fmt: skip
    return labels, confidences if confidence else None
