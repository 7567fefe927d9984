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
    logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size
) -> Float[Tensor, "B K H W"]:
    """Resize to ``size`` (height, width) in one piece: bilinear, corners not aligned."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)


def strips(shape: torch.Size, size: tuple[int, int] | torch.Size) -> Iterator[tuple[int, int]]:
    """Cut the full-size rows 0 to ``size[0]`` into ranges small enough for `STRIP_ELEMENTS`.

    Args:
        shape: of the coarse logits, [B,K,h,w].
        size: full height and width.
    """
    rows = max(1, STRIP_ELEMENTS // max(1, shape[0] * shape[1] * size[1]))
    for top in range(0, size[0], rows):
        yield top, min(size[0], top + rows)


def upsample_rows(
    logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size, top: int, bottom: int
) -> Float[Tensor, "B K n W"]:
    """Return the rows ``top`` to ``bottom`` of `upsample`, without the others."""
    coarse = logits.shape[-2]
    centre = (torch.arange(top, bottom, device=logits.device, dtype=torch.float32) + 0.5) * (
        coarse / size[0]
    ) - 0.5
    centre = centre.clamp(min=0)
    above = centre.floor().long().clamp(max=coarse - 1)
    below = (above + 1).clamp(max=coarse - 1)
    weight = (centre - above).to(logits.dtype)[:, None]
    first, last = int(above[0]), int(below[-1]) + 1
    source = logits[:, :, first:last]
    rows = torch.lerp(source[:, :, above - first], source[:, :, below - first], weight)
    return F.interpolate(rows, size=(bottom - top, size[1]), mode="bilinear", align_corners=False)


def argmax_upsampled(
    logits: Float[Tensor, "B K h w"], size: tuple[int, int] | torch.Size, *, confidence: bool = False
) -> tuple[Integer[Tensor, "B H W"], Float[Tensor, "B H W"] | None]:
    """Return the class of every full-size pixel (ties to the lower class) and, if asked, its softmax probability.

    Labels are uint8, or uint16 from 257 classes on.
    """
    batch, classes = logits.shape[:2]
    label_type = torch.uint8 if classes <= 256 else torch.uint16
    labels = torch.empty(batch, *size, dtype=label_type, device=logits.device)
    probability = torch.empty(batch, *size, dtype=torch.float32, device=logits.device) if confidence else None
    for top, bottom in strips(logits.shape, size):
        rows = upsample_rows(logits, size, top, bottom)
        highest, index = rows.max(dim=1)
        labels[:, top:bottom] = index.to(label_type)
        if probability is not None:
            probability[:, top:bottom] = torch.exp(highest - rows.logsumexp(dim=1))
    return labels, probability
