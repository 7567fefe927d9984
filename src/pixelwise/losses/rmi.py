"""Region mutual information (RMI): how much the prediction around a pixel tells about the mask around it.

Zhao, Wang, Yang, Cai: Region Mutual Information Loss for Semantic Segmentation, 2019 (arXiv 1910.12037). Equations
below are of that paper. Constants are from the release that trained hierarchical multi-scale attention.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE

POOLED = 4
"""Probabilities and mask are first pooled by this factor (section 3.4, downsampling)."""
STEADY = 5e-4
"""Added to the diagonals of covariances (section 3.4)."""
LEAST = 1e-6
"""Added to probabilities."""


def mutual_information_loss(
    logits: Float[Tensor, "K H W"], mask: Int[Tensor, "H W"], *, radius: int = 3
) -> Float[Tensor, ""]:
    """Return the sum over all classes of the negative lower bound of the region mutual information (eq. 13 to 15).

    A pixel and its neighbours are a point in radius² dimensions. With the covariances Y of the mask's points, P of
    the probabilities' and C of one with the other, the bound is -½ log det(Y - C P⁻¹ Cᵀ), here over radius². The
    probabilities are sigmoids, one per class. Ignored pixels are 0 in both.

    The paper adds half of this to half of the binary cross-entropy. The release can also add it to the whole.

    Raises:
        ValueError: a side of fewer than ``radius`` pooled pixels.
    """
    if min(mask.shape) // POOLED + 1 < radius:
        raise ValueError(
            f"The mask has {mask.shape[1]}x{mask.shape[0]} pixels, but RMI of radius {radius} needs sides of at least "
            f"{(radius - 1) * POOLED}. Take larger crops, a smaller rmi_radius, or set rmi = 0."
        )
    valid = mask != IGNORE
    there = (mask == torch.arange(len(logits), device=mask.device)[:, None, None]).to(logits.dtype)
    probability = logits.where(valid, 0).sigmoid() * valid + LEAST
    target = _neighbourhoods(there, radius)
    predicted = _neighbourhoods(probability, radius)
    steady = STEADY * torch.eye(radius**2, dtype=torch.float64, device=logits.device)
    mixed = target @ predicted.mT
    rest = target @ target.mT - mixed @ torch.linalg.inv(predicted @ predicted.mT + steady) @ mixed.mT
    roots = torch.linalg.cholesky(rest + steady).diagonal(dim1=-2, dim2=-1)
    return ((roots + 1e-8).log().sum(dim=-1) / radius**2).sum().to(logits.dtype)


def binary_cross_entropy_sum(logits: Float[Tensor, "K H W"], mask: Int[Tensor, "H W"]) -> Float[Tensor, ""]:
    """Return the binary cross-entropy of each class's sigmoid, summed over classes and the valid pixels of an image.

    `segmentation_loss` divides the sum over a batch by its number of valid pixels plus 1, as the release does.
    """
    valid = mask != IGNORE
    target = mask[valid].long()
    pixels = logits[:, valid]
    return F.softplus(pixels).sum() - pixels.gather(0, target[None]).sum()


def _neighbourhoods(images: Tensor, radius: int) -> Tensor:
    # [K, radius², points], centred, in float64: covariances cancel.
    pooled = F.avg_pool2d(images[None], POOLED, POOLED, POOLED // 2)[0].double()
    height, width = (side - radius + 1 for side in pooled.shape[-2:])
    points = torch.stack(
        [pooled[:, i : i + height, j : j + width] for i in range(radius) for j in range(radius)], dim=1
    ).flatten(2)
    return points - points.mean(dim=2, keepdim=True)
