"""From logits at the network's stride to full size, strip by strip.

Bilinear upsampling is two linear maps, rows then columns. A strip of full-size rows needs only the few coarse rows
above and below it. So losses, scores and label maps go strip by strip, and [B,K,H,W] never exists.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from pixelwise.array_upsampling import neighbour_and_share, strips
from pixelwise.device import DECIDED_AT_ONCE
from pixelwise.kernels import on_gpu, proven

DECIDED_ELEMENTS = 1 << 19
"""Largest number of logits that are decided at once: 2 MB in float32, about a core's own cache."""


def recorded() -> bool:
    """Return whether torch is tracing or exporting what it runs."""
    # torch.compile may run it; a torch that cannot tell compiling from exporting gets neither.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def has_size(image: Float[Tensor, "B C _ _"], size: tuple[int, int] | torch.Size) -> bool:
    """Return whether an image has a size (height, width) already, so that resizing it can be skipped.

    Never while torch records: what is recorded will see images of other sizes.
    """
    return not recorded() and tuple(image.shape[-2:]) == tuple(size)


def upsample(
    logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size, *, align_corners: bool = False
) -> Float[Tensor, "B K H W"]:
    """Resize to ``size`` (height, width) in one piece, bilinear.

    Args:
        align_corners: the centres of corner pixels stay in place; else the edges of the image do.
    """
    if has_size(logits, size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)


def resampled_part(
    logits: Float[Tensor, "B K h w"],
    size: tuple[int, int],
    part: tuple[int, int],
    cells: tuple[int, int],
    *,
    align_corners: bool = False,
) -> Float[Tensor, "B K _ _"]:
    """Resample the upper left ``part`` of an image of ``size``, both in pixels, to ``cells``, bilinear.

    Args:
        align_corners: as in `upsample`, which this is where the part is the whole image.
    """
    if part == size:
        return upsample(logits, cells, align_corners=align_corners)
    axes = []
    for count, pixels, kept in zip(cells, size, part, strict=True):
        place = torch.arange(count, device=logits.device, dtype=logits.dtype)
        if align_corners:
            axes.append(place * ((kept - 1) / max(1, count - 1)) * (2 / (pixels - 1)) - 1)
        else:
            axes.append((place + 0.5) * (2 * kept / count / pixels) - 1)
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1).expand(len(logits), -1, -1, -1)
    return F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=align_corners)


def recentred(logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size) -> Float[Tensor, "B K h w"]:
    """Resample logits with aligned corners, of an image of ``size``, to the centres of equal cells.

    Then the cells of neighbouring tiles lie on one grid, so that tiles can be blended.
    """
    coarse = logits.shape[-2:]
    axes = []
    for cells, pixels in zip(coarse, size, strict=True):
        centre = (torch.arange(cells, device=logits.device, dtype=logits.dtype) + 0.5) * (pixels / cells) - 0.5
        axes.append(centre * (2 / (pixels - 1)) - 1)
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1)
    return F.grid_sample(logits, grid.expand(len(logits), -1, -1, -1), mode="bilinear", align_corners=True)


def upsample_rows(
    logits: Float[Tensor, "B K n w"],
    size: tuple[int, int] | torch.Size,
    top: int,
    bottom: int,
    *,
    first: int = 0,
    coarse: int | None = None,
    align_corners: bool = False,
) -> Float[Tensor, "B K m W"]:
    """Return the rows ``top`` to ``bottom`` of `upsample`, without the others.

    Args:
        logits: all coarse rows or, with ``first`` and ``coarse``, a part of them that holds the neighbours needed.
        size: full height and width.
        first: number of the first row in ``logits``.
        coarse: how many coarse rows there are in all.
    """
    coarse = logits.shape[-2] if coarse is None else coarse
    # In float64: a large scene has more rows than float32 has exact halves.
    rows = torch.arange(top, bottom, device=logits.device, dtype=torch.float64)
    if align_corners:
        centre = rows * ((coarse - 1) / max(1, size[0] - 1))
    else:
        centre = ((rows + 0.5) * (coarse / size[0]) - 0.5).clamp(min=0)
    above = centre.floor().long().clamp(max=coarse - 1)
    below = centre.ceil().long().clamp(max=coarse - 1)
    weight = (centre - above).to(logits.dtype)[:, None]
    lerped = torch.lerp(logits[:, :, above - first], logits[:, :, below - first], weight)
    return F.interpolate(lerped, size=(bottom - top, size[1]), mode="bilinear", align_corners=align_corners)


def decide(
    logits: Float[Tensor, "B K h w"], *, confidence: bool = False, temperature: float = 1.0
) -> tuple[Integer[Tensor, "B h w"], Float[Tensor, "B h w"] | None]:
    """Return the class with the highest logit (ties to the lower class) and, if asked, its softmax probability.

    Labels are uint8, or uint16 from 257 classes on.

    Args:
        temperature: by which logits are divided before the softmax, and there alone: no label depends on it.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    batch, classes, height, width = logits.shape
    labels = torch.empty((batch, height, width), dtype=_label_dtype(classes), device=logits.device)
    confidences = logits.new_empty(labels.shape) if confidence else None
    count = max(1, min(height, _decided_at_once(logits) // (batch * classes * width)))
    lines = logits.new_empty(batch, count, classes, width)
    for top in _steps(height, count):
        lines.copy_(logits[:, :, top : top + count].transpose(1, 2))
        decided, probability = _decide_lines(lines.flatten(0, 1), confidence, temperature)
        labels[:, top : top + count] = decided.view(batch, count, width)
        if confidences is not None and probability is not None:
            confidences[:, top : top + count] = probability.view(batch, count, width)
    return labels, confidences


def decide_cells(
    cells: Float[Tensor, "B K n w"], stride: int, *, confidence: bool = False, temperature: float = 1.0
) -> tuple[Integer[Tensor, "B H W"], Float[Tensor, "B H W"] | None]:
    """Return `decide` of logits upsampled by a whole factor, for all cells but the outermost: those are neighbours.

    Each of a cell's stride² pixels has the same distances to the cells around it in every cell. So upsampling is a
    weighted sum of shifted maps: first rows, then columns, then the class. No pixel needs an index.

    Returns:
        labels and confidence, both [B, (n - 2) stride, (w - 2) stride].
    """
    if (kernel := _kernel_for(cells)) is not None:
        size = (cells.shape[2] * stride, cells.shape[3] * stride)
        found = kernel(cells, size, confidence, False, largest_logit(cells.dtype), temperature)
        labels, probability = (
            each if each is None else each[:, stride:-stride, stride:-stride].contiguous() for each in found
        )
        assert labels is not None, "the kernel always decides"
        return labels.to(_label_dtype(cells.shape[1])), probability
    return _plain_cells(cells, stride, confidence, temperature)


def _plain_cells(cells: Tensor, stride: int, confidence: bool, temperature: float) -> tuple[Tensor, Tensor | None]:
    cells = cells.float() if cells.dtype in (torch.float16, torch.bfloat16) else cells
    batch, classes, n, w = cells.shape[0], cells.shape[1], cells.shape[2] - 2, cells.shape[3] - 2
    labels = torch.empty((batch, n, stride, w, stride), dtype=_label_dtype(classes), device=cells.device)
    confidences = cells.new_empty(labels.shape) if confidence else None
    by_line = cells.transpose(1, 2).contiguous()
    count = max(1, min(n, _decided_at_once(cells) // (batch * classes * w)))
    rows = cells.new_empty(batch, count, classes, w + 2)
    pixels = cells.new_empty(batch, count, classes, w)
    for top in _steps(n, count):
        for i in range(stride):
            first, share = neighbour_and_share(i, stride)
            above, below = (by_line[:, top + cell : top + cell + count] for cell in (first, first + 1))
            torch.lerp(above, below, share, out=rows)
            for j in range(stride):
                first, share = neighbour_and_share(j, stride)
                torch.lerp(rows[..., first : first + w], rows[..., first + 1 : first + 1 + w], share, out=pixels)
                decided, probability = _decide_lines(pixels.flatten(0, 1), confidence, temperature)
                labels[:, top : top + count, i, :, j] = decided.view(batch, count, w)
                if confidences is not None and probability is not None:
                    confidences[:, top : top + count, i, :, j] = probability.view(batch, count, w)
    full = (batch, n * stride, w * stride)
    return labels.view(full), None if confidences is None else confidences.view(full)


def argmax_upsampled(
    logits: Float[Tensor, "B K h w"],
    size: tuple[int, int] | torch.Size,
    *,
    confidence: bool = False,
    temperature: float = 1.0,
    align_corners: bool = False,
) -> tuple[Integer[Tensor, "B H W"], Float[Tensor, "B H W"] | None]:
    """Return `decide` of the upsampled logits, without building them."""
    largest = largest_logit(logits.dtype)
    if (kernel := _kernel_for(logits)) is not None:
        labels, share = kernel(logits, tuple(size), confidence, align_corners, largest, temperature)
        return labels.to(_label_dtype(logits.shape[1])), share
    return _plain_argmax(logits, size, confidence, align_corners, largest, temperature)


def _plain_argmax(
    logits: Tensor,
    size: tuple[int, int] | torch.Size,
    confidence: bool,
    align_corners: bool,
    largest: float,
    temperature: float,
) -> tuple[Tensor, Tensor | None]:
    height, width = logits.shape[-2:]
    stride = size[0] // height
    if tuple(size) == (height, width):
        return decide(logits, confidence=confidence, temperature=temperature)
    if tuple(size) == (height * stride, width * stride) and not align_corners:
        return _plain_cells(_rimmed(logits, largest), stride, confidence, temperature)
    logits = logits.clamp(-largest, largest)
    rows = (
        upsample_rows(logits, size, top, bottom, align_corners=align_corners)
        for top, bottom in strips(logits.shape, size)
    )
    parts = [decide(each, confidence=confidence, temperature=temperature) for each in rows]
    labels = torch.cat([part for part, _ in parts], dim=1)
    return labels, torch.cat([part for _, part in parts if part is not None], dim=1) if confidence else None


def _kernel_for(logits: Tensor) -> Callable | None:
    return _kernel(str(logits.device)) if on_gpu(logits) and logits.dtype != torch.float64 else None


@cache
def _kernel(device: str) -> Callable | None:
    """Return the kernel that upsamples and decides at once, if a small case comes out as it should; else None."""

    def kernel() -> Callable:
        from pixelwise.kernels.decide import argmax_upsampled

        return argmax_upsampled

    def plain(logits: Tensor, size: tuple[int, int], confidence: bool, aligned: bool, *numbers: float) -> tuple:
        return _plain_argmax(logits, size, confidence, aligned, *numbers)

    def case(where: torch.device) -> tuple:
        logits = 9 * torch.randn(1, 7, 3, 40, generator=torch.Generator().manual_seed(0))
        return logits.to(where), (12, 160), True, False, largest_logit(logits.dtype), 1.7

    return proven("decide", kernel, plain, case, device)


def _decided_at_once(logits: Tensor) -> int:
    return DECIDED_ELEMENTS * DECIDED_AT_ONCE.get(logits.device.type, 1)


def largest_logit(dtype: torch.dtype) -> float:
    """Return the largest logit to upsample: between infinite ones, upsampling gives NaN."""
    return torch.finfo(dtype).max / 4


def _steps(lines: int, count: int) -> list[int]:
    """Return the first lines of passes of equal size. The last pass can repeat lines of the one before."""
    return [*range(0, lines - count, count), lines - count]


def _rimmed(logits: Float[Tensor, "B K h w"], largest: float) -> Float[Tensor, "B K h+2 w+2"]:
    """Repeat the outermost cells once and clamp all to ``largest``, in the memory layout that `decide_cells` needs."""
    batch, classes, height, width = logits.shape
    lines = logits.new_empty(batch, height + 2, classes, width + 2)
    torch.clamp(logits.transpose(1, 2), -largest, largest, out=lines[:, 1:-1, :, 1:-1])
    lines[:, 1:-1, :, 0], lines[:, 1:-1, :, -1] = lines[:, 1:-1, :, 1], lines[:, 1:-1, :, -2]
    lines[:, 0], lines[:, -1] = lines[:, 1], lines[:, -2]
    return lines.transpose(1, 2)


def _decide_lines(
    lines: Float[Tensor, "n K w"], confidence: bool, temperature: float
) -> tuple[Integer[Tensor, "n w"], Float[Tensor, "n w"] | None]:
    # Max pooling over all classes, with pixels as channels, is vectorised and finds the first of equal classes. max()
    # with indices is not vectorised, and 20 times slower.
    n, classes, width = lines.shape
    channels_last = lines.as_strided((n, width, classes, 1), (classes * width, 1, width, width))
    highest, labels = F.max_pool2d(channels_last, (classes, 1), return_indices=True)
    highest, labels = highest.view(n, 1, width), labels.view(n, width)
    if not confidence:
        return labels, None
    below = lines - highest
    below = below if temperature == 1 else below.div_(temperature)
    return labels, 1 / below.exp_().sum(dim=1)


def _label_dtype(classes: int) -> torch.dtype:
    return torch.uint8 if classes <= 256 else torch.uint16
