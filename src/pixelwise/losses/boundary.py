"""The boundary loss: 1 minus a soft form of the boundary F1 score.

Bokhovkin, Burnaev: Boundary Loss for Remote Sensing Imagery Semantic Segmentation, 2019 (arXiv 1905.07852). Equations
below are of that paper.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE

BOUNDARY = 3
"""Side of the window that finds the boundary of a region. With 3, boundaries are one pixel wide."""


def boundary_loss(logits: Float[Tensor, "K H W"], mask: Int[Tensor, "H W"], *, tolerance: int = 5) -> Float[Tensor, ""]:
    """Return 1 minus the boundary F1 score, averaged over the classes that have a boundary in the image.

    The boundary of a class is what a maximum over 3x3 adds to its outside (eq. 1). Precision is the share of the
    predicted boundary with a true one within the window, recall the reverse (eq. 2, 3). Pixels next to ignored ones
    are no boundary.

    Args:
        tolerance: side of the window, odd.
    """
    assert tolerance % 2 == 1, f"a window of side {tolerance} has no middle"
    valid = mask != IGNORE
    held = mask[valid].unique().long()
    there = mask == held[:, None, None]
    target = _boundary(there.to(logits.dtype), valid)
    predicted = _boundary(logits.softmax(dim=0)[held], valid)
    tiny = torch.finfo(logits.dtype).eps
    precision = (predicted * _grown(target, tolerance)).sum(dim=(1, 2)) / (predicted.sum(dim=(1, 2)) + tiny)
    recall = (target * _grown(predicted, tolerance)).sum(dim=(1, 2)) / (target.sum(dim=(1, 2)) + tiny)
    loss = 1 - 2 * precision * recall / (precision + recall + tiny)
    bounded = target.sum(dim=(1, 2)) > 0
    return (loss * bounded).sum() / bounded.sum().clamp(min=1)


def _boundary(inside: Float[Tensor, "N H W"], valid: Bool[Tensor, "H W"]) -> Float[Tensor, "N H W"]:
    outside = ((1 - inside) * valid).where(valid, 0)
    return (_grown(outside, BOUNDARY) - outside) * valid


def _grown(images: Float[Tensor, "N H W"], side: int) -> Float[Tensor, "N H W"]:
    return F.max_pool2d(images[None], side, stride=1, padding=side // 2)[0]
