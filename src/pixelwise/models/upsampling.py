"""From logits at the network's stride to full size, strip by strip.

Bilinear upsampling is two linear maps, rows then columns. A strip of full-size rows needs only the few coarse rows
above and below it, so losses, scores and label maps walk over strips and [B,K,H,W] never exists.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

STRIP_ELEMENTS = 1 << 20
"""Largest number of logits in one strip: 4 MB in float32, about a core's share of cache."""


def upsample(
    logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size, *, align_corners: bool = False
) -> Float[Tensor, "B K H W"]:
    """Resize to ``size`` (height, width) in one piece, bilinear.

    Args:
        align_corners: the centres of the corner pixels lie on each other; else the edges of the images do.
    """
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=align_corners)


def recentred(logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size) -> Float[Tensor, "B K h w"]:
    """Resample logits whose corners are aligned with an image of ``size``, to the centres of equal cells.

    Cells of neighbouring tiles then fall together, and tiles can be blended.
    """
    coarse = logits.shape[-2:]
    axes = []
    for cells, pixels in zip(coarse, size, strict=True):
        centre = (torch.arange(cells, device=logits.device, dtype=logits.dtype) + 0.5) * (pixels / cells) - 0.5
        axes.append(centre * (2 / (pixels - 1)) - 1)
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="xy"), dim=-1)
    return F.grid_sample(logits, grid.expand(len(logits), -1, -1, -1), mode="bilinear", align_corners=True)


def strips(shape: torch.Size, size: tuple[int, int] | torch.Size) -> Iterator[tuple[int, int]]:
    """Cut the full-size rows 0 to ``size[0]`` into ranges small enough for `STRIP_ELEMENTS`.

    Args:
        shape: of the coarse logits, [B,K,h,w].
        size: full height and width, or the height of the part that is wanted.
    """
    rows = max(1, STRIP_ELEMENTS // max(1, shape[0] * shape[1] * size[1]))
    for top in range(0, size[0], rows):
        yield top, min(size[0], top + rows)


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
    logits: Float[Tensor, "B K h w"], *, confidence: bool = False
) -> tuple[Integer[Tensor, "B h w"], Float[Tensor, "B h w"] | None]:
    """Return the class with the highest logit (ties to the lower class) and, if asked, its softmax probability.

    Labels are uint8, or uint16 from 257 classes on.
    """
    highest, index = logits.max(dim=1)
    labels = index.to(torch.uint8 if logits.shape[1] <= 256 else torch.uint16)
    return labels, torch.exp(highest - logits.logsumexp(dim=1)) if confidence else None


def argmax_upsampled(
    logits: Float[Tensor, "B K h w"],
    size: tuple[int, int] | torch.Size,
    *,
    confidence: bool = False,
    align_corners: bool = False,
) -> tuple[Integer[Tensor, "B H W"], Float[Tensor, "B H W"] | None]:
    """Return `decide` of the upsampled logits, without building them."""
    parts = [
        decide(upsample_rows(logits, size, top, bottom, align_corners=align_corners), confidence=confidence)
        for top, bottom in strips(logits.shape, size)
    ]
    labels = torch.cat([part for part, _ in parts], dim=1)
    return labels, torch.cat([part for _, part in parts if part is not None], dim=1) if confidence else None
