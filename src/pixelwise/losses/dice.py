"""Losses of regions: Dice and soft IoU.

Both take sums over the valid pixels, per image and class: ``intersection`` adds up the class's probability over its own
pixels, ``predicted`` its probability over all pixels, and ``counts`` is the number of its pixels. The papers have one
foreground and a sigmoid. Here each class has its softmax probability. With two classes and ``foreground_only`` that is
the papers' case, since the softmax of logits (0, z) is the sigmoid of z.
"""

from jaxtyping import Float
from torch import Tensor

from pixelwise.processes import all_sum, mean_count

DICE_SMOOTH = 1.0
"""Added to numerator and denominator of Dice, so that a class of few pixels does not change it much."""


def dice_loss(
    intersection: Float[Tensor, "B K"],
    predicted: Float[Tensor, "B K"],
    counts: Float[Tensor, "B K"],
    *,
    foreground_only: bool = False,
) -> Float[Tensor, ""]:
    """Return 1 minus the mean, over the classes that the batch's masks hold, of (2 I + 1) / (P + T + 1).

    It is V-Net's (Milletari et al. 2016, section 3) with three differences. P is not squared, as in most later work.
    Numerator and denominator are smoothed by 1. The sums run over the whole batch, and classes without a pixel in it
    are left out.
    """
    first = int(foreground_only)
    own, all_of, there = (all_sum(sums[:, first:].sum(dim=0)) for sums in (intersection, predicted, counts))
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

    There is no smoothing, as in UNet 3+'s release, which has one foreground. An image without a class that counts is
    left out.
    """
    first = int(foreground_only)
    own, all_of, there = (sums[:, first:] for sums in (intersection, predicted, counts))
    present = there > 0
    loss = (1 - own / (all_of + there - own).where(present, 1)) * present
    classes = present.sum(dim=1)
    return (loss.sum(dim=1) / classes.clamp(min=1)).sum() / mean_count((classes > 0).sum())
