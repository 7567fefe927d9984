"""Upsample and decide in one program: the class of every pixel from logits at the stride, read once.

Its plain equal is `pixelwise.upsampling.argmax_upsampled`. Each program has a block of pixels of one row. It goes
through the classes, with the highest logit so far, its class, and the sum of exponentials, so nothing of [K,H,W] is
ever in memory.
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
    upper, lower, down = around(rows, row_shares, y, h, y < height)
    left, right, across = around(columns, column_shares, x, w, inside)
    of_image = logits + image * by_image
    highest = tl.full((block,), float("-inf"), tl.float32)
    best = tl.zeros((block,), tl.int32)
    total = tl.zeros((block,), tl.float32)
    for k in range(classes):
        logit = upsampled(
            of_image + k * by_class, upper, lower, down, left, right, across, by_row, by_column, inside, largest, True
        )
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
