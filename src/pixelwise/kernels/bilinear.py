"""Parts of kernels that read coarse logits as bilinear upsampling does, in registers."""

# Triton compiles and calls kernels in its own way.
# pyright: reportArgumentType=false, reportCallIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl


@triton.jit
def around(firsts, shares, pixel, count, seen):
    """Return the two cells that a pixel lies between, and the second one's share; tables are those of `neighbours`."""
    first = tl.load(firsts + pixel, mask=seen, other=0)
    return first, tl.minimum(first + 1, count - 1), tl.load(shares + pixel, mask=seen, other=0.0)


@triton.jit
def _cell(cells, row, column, by_row, by_column, seen, largest, clamped: tl.constexpr):
    logit = tl.load(cells + row * by_row + column * by_column, mask=seen, other=0.0).to(tl.float32)
    # Between infinite logits, upsampling gives NaN.
    return tl.minimum(tl.maximum(logit, -largest), largest) if clamped else logit


@triton.jit
def upsampled(
    cells, upper, lower, down, left, right, across, by_row, by_column, seen, largest, clamped: tl.constexpr
):  # fmt: skip
    """Return the logit at pixels between four cells: rows first, then columns, as the plain function does."""
    a = _cell(cells, upper, left, by_row, by_column, seen, largest, clamped)
    b = _cell(cells, upper, right, by_row, by_column, seen, largest, clamped)
    c = _cell(cells, lower, left, by_row, by_column, seen, largest, clamped)
    d = _cell(cells, lower, right, by_row, by_column, seen, largest, clamped)
    start, end = a + down * (c - a), b + down * (d - b)
    return start + across * (end - start)
