"""Multi-scale structural similarity of probabilities and a mask.

Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality assessment, 2003; as a loss for masks in
UNet 3+ (Huang et al. 2020, arXiv 2004.08790, section 2.2).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five levels, from full size down (section 3.2)."""
WINDOW, SIGMA = 11, 1.5
STEADY_MEAN, STEADY_CONTRAST = 0.01**2, 0.03**2
"""C1 and C2, for values from 0 to 1."""
SMALLEST_SIDE = 2 ** (len(EXPONENTS) - 1)


def ms_ssim_loss(
    logits: Float[Tensor, "K H W"],
    mask: Int[Tensor, "H W"],
    *,
    foreground_only: bool = False,
    product: Literal["paper", "unet3p"] = "paper",
) -> Float[Tensor, ""]:
    """Return the mean, over the classes that an image holds, of 1 minus the MS-SSIM of softmax and mask.

    The paper compares photographs, and UNet 3+ the sigmoid of one foreground with its mask. Here each class's softmax
    probability is compared with the class's mask. Local moments are taken over valid pixels only, and a window counts
    by the weight of its valid pixels.

    Args:
        foreground_only: leave out the first class.
        product: how levels are multiplied, as in `combined`.

    Raises:
        ValueError: a side below 16 pixels. From 176 pixels on, the window has its full size at all levels.
    """
    if min(mask.shape) < SMALLEST_SIDE:
        raise ValueError(
            f"The mask has {mask.shape[1]}x{mask.shape[0]} pixels, but MS-SSIM needs {SMALLEST_SIDE}x{SMALLEST_SIDE} "
            "for its five levels. Take larger crops, or set ms_ssim = 0."
        )
    held = mask.unique()
    held = held[held >= int(foreground_only)].long()
    if len(held) == 0:
        return logits.sum() * 0
    probability = logits.softmax(dim=0)[held]
    structure, contrast = similarity_levels(probability, mask == held[:, None, None], mask != IGNORE)
    return 1 - combined(structure, contrast, product=product).mean()


def similarity_levels(
    one: Float[Tensor, "N H W"], other: Bool[Tensor, "N H W"], valid: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, "5 N"], Float[Tensor, "5 N"]]:
    """Return the mean SSIM and the mean of its contrast and structure part, at each level, -1 to 1."""
    weight, other = valid.to(one.dtype)[None], other.to(one.dtype)
    structure, contrast = [], []
    for level in range(len(EXPONENTS)):
        if level:
            shrunk = F.avg_pool2d(weight, 2)
            one, other = (F.avg_pool2d(image * weight, 2) / _at_least_tiny(shrunk) for image in (one, other))
            weight = shrunk
        first, second = _similarity(one, other, weight)
        structure.append(first)
        contrast.append(second)
    return torch.stack(structure), torch.stack(contrast)


def combined(
    structure: Float[Tensor, "5 ..."], contrast: Float[Tensor, "5 ..."], *, product: Literal["paper", "unet3p"]
) -> Float[Tensor, "..."]:
    """Return the MS-SSIM of the levels' means, 0 to 1.

    All means are first mapped from -1..1 to 0..1, as in UNet 3+'s release, since a fractional power of a negative
    number is NaN. The paper then multiplies the powers of the contrast at levels 1 to 4 and of the SSIM at level 5
    (eq. 7). UNet 3+'s release multiplies each of the four by that of level 5, which so enters to the fourth power.
    """
    exponents = torch.tensor(EXPONENTS, dtype=structure.dtype, device=structure.device)
    exponents = exponents.view(-1, *[1] * (structure.ndim - 1))
    powers = ((contrast[:-1] + 1) / 2) ** exponents[:-1]
    last = ((structure[-1] + 1) / 2) ** exponents[-1]
    return powers.prod(dim=0) * (last if product == "paper" else last**4)


def _similarity(one: Tensor, other: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    # Moments over valid pixels: blurred products, over the blurred weight.
    size = min(WINDOW, *weight.shape[-2:])
    there = _blurred(weight, size)
    products = (one, other, one * one, other * other, one * other)
    moments = [_blurred(part * weight, size) / _at_least_tiny(there) for part in products]
    mean, mean_other, square, square_other, mixed = moments
    covariance = mixed - mean * mean_other
    variances = square - mean**2 + square_other - mean_other**2
    contrast = (2 * covariance + STEADY_CONTRAST) / (variances + STEADY_CONTRAST)
    lightness = (2 * mean * mean_other + STEADY_MEAN) / (mean**2 + mean_other**2 + STEADY_MEAN)
    total = _at_least_tiny(there.sum())
    return (lightness * contrast * there).sum(dim=(1, 2)) / total, (contrast * there).sum(dim=(1, 2)) / total


def _blurred(images: Tensor, size: int) -> Tensor:
    # Only windows within the image; columns, then rows.
    offsets = torch.arange(size, dtype=images.dtype, device=images.device) - size // 2
    kernel = (-(offsets**2) / (2 * SIGMA**2)).exp()
    kernel = kernel / kernel.sum()
    return F.conv2d(F.conv2d(images[:, None], kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]


def _at_least_tiny(weight: Tensor) -> Tensor:
    # Where no pixel is valid, the quotient counts nowhere, but must not be NaN.
    return weight.clamp(min=torch.finfo(weight.dtype).tiny)
