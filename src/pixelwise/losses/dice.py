"""Losses that compare regions: functions of how much of each class is there, is predicted, and is both.

Each takes, per image and class, sums over the valid pixels: ``intersection`` of the class's probability over its own
pixels, ``predicted`` of its probability over all, and ``counts``, the number of its pixels. The papers have one
foreground and a sigmoid; here each class takes its softmax probability. With two classes and ``foreground_only`` that
is the papers' case, for the softmax of logits (0, z) is the sigmoid of z.
"""

from jaxtyping import Float
from torch import Tensor

DICE_SMOOTH = 1.0
"""Added to both sides of the Dice ratio, so that a class of few pixels does not swing it."""


def dice_loss(
    intersection: Float[Tensor, "B K"],
    predicted: Float[Tensor, "B K"],
    counts: Float[Tensor, "B K"],
    *,
    foreground_only: bool = False,
) -> Float[Tensor, ""]:
    """Return 1 minus the mean, over the classes that the batch's masks hold, of (2 I + 1) / (P + T + 1).

    It is that of V-Net (Milletari et al. 2016, section 3) with three differences: P is not squared, as in most later
    work; numerator and denominator are smoothed by 1; the sums run over the whole batch, and a class that it does not
    hold is left out, where a ratio of next to nothing would say nothing.
    """
    first = int(foreground_only)
    own, all_of, there = (sums[:, first:].sum(dim=0) for sums in (intersection, predicted, counts))
    present = there > 0
    ratio = (2 * own + DICE_SMOOTH) / (all_of + there + DICE_SMOOTH)
    return ((1 - ratio) * present).sum() / present.sum().clamp(min=1)


def soft_iou_loss(
    intersection: Float[Tensor, "B K"],
    predicted: Float[Tensor, "B K"],
    counts: Float[Tensor, "B K"],
    *,
    foreground_only: bool = False,
) -> Float[Tensor, ""]:
    """Return 1 minus I / (P + T - I), averaged over the classes that an image holds, then over images.

    Without smoothing, image by image, as UNet 3+'s release has it for one foreground; an image that holds no class
    that counts is left out.
    """
    first = int(foreground_only)
    own, all_of, there = (sums[:, first:] for sums in (intersection, predicted, counts))
    present = there > 0
    loss = (1 - own / (all_of + there - own).where(present, 1)) * present
    classes = present.sum(dim=1)
    return (loss.sum(dim=1) / classes.clamp(min=1)).sum() / (classes > 0).sum().clamp(min=1)
