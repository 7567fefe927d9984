"""Losses that weigh pixels by how hard they are: functions of each pixel's cross-entropy."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.processes import gathered, mean_count


def focal_parts(
    pixel_loss: Float[Tensor, "*pixels"], gamma: float
) -> tuple[Float[Tensor, "*pixels"], Float[Tensor, "*pixels"]]:
    """Return the focal loss (1 - p)^gamma · l of each pixel, and its derivative by l.

    l is the cross-entropy and p = exp(-l) the probability of the right class (Lin et al. 2017, arXiv 1708.02002,
    eq. 4; their alpha are the class weights of `segmentation_loss`).

    Args:
        pixel_loss: cross-entropies, 0 or more.
        gamma: 0 or more.
    """
    # 1 - p comes from l and not from p, which has lost its digits near p = 1. At p = 1, l / (1 - p) is 1.
    miss = -torch.expm1(-pixel_loss)
    ratio = torch.where(miss > 0, pixel_loss / miss.clamp(min=torch.finfo(miss.dtype).tiny), 1)
    factor = miss**gamma
    return factor * pixel_loss, factor * (1 + gamma * (1 - miss) * ratio)


def hard_example_loss(
    pixel_loss: Float[Tensor, "B H W"],
    mask: Int[Tensor, "B H W"],
    *,
    class_weights: Float[Tensor, " K"],
    threshold: float,
    keep: int,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the hard pixels of a batch (OHEM, as in HRNet's release).

    A pixel is hard if its right class has a probability below a bound. The bound is ``threshold``, or the probability
    of the pixel number ``keep`` + 1 in the order of probabilities if that is higher. If ``keep`` pixels or fewer are
    valid, all are hard; the release then leaves out the easiest. If ties leave no pixel, those at the bound are hard.

    Args:
        pixel_loss: cross-entropies without class weights.
        mask: class indices and `IGNORE`; at least one pixel is valid.
        class_weights: factors of the kept pixels' losses; the mean is over their number, not over their weight.
    """
    valid = mask != IGNORE
    losses = pixel_loss[valid]
    probability = (-losses.detach()).exp()
    of_batch = gathered(probability)
    if keep < len(of_batch):
        bound = of_batch.kthvalue(keep + 1).values.clamp(min=threshold)
        hard = probability < bound
        if not bool((of_batch < bound).any()):
            hard = probability <= bound
        losses, valid_classes = losses[hard], mask[valid][hard]
    else:
        valid_classes = mask[valid]
    count = mask.new_tensor(len(losses), dtype=torch.long)
    return (class_weights[valid_classes.long()] * losses).sum() / mean_count(count)


def bootstrapped_loss(
    pixel_loss: Float[Tensor, "B H W"],
    mask: Int[Tensor, "B H W"],
    *,
    class_weights: Float[Tensor, " K"],
    threshold: float,
    keep: int,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of each image's worst pixels (as in FC-HarDNet's release).

    If more than ``keep`` pixels of an image have a loss above ``threshold``, those count. Else the ``keep`` worst
    count, or all if fewer are valid; the release then adds zeros for ignored pixels. The result is the mean over the
    images that have a valid pixel. The idea is from Wu, Shen and van den Hengel 2016 (arXiv 1605.06885).

    Args:
        pixel_loss: cross-entropies without class weights.
        mask: class indices and `IGNORE`; at least one pixel is valid.
        class_weights: factors of the losses, before the worst are chosen.
    """
    means = [pixel_loss.new_zeros(0)]
    for own, own_mask in zip(pixel_loss, mask, strict=True):
        valid = own_mask != IGNORE
        losses = class_weights[own_mask[valid].long()] * own[valid]
        if len(losses) == 0:
            continue
        worst = losses.topk(min(keep, len(losses))).values
        above = losses[losses.detach() > threshold]
        means.append((above if len(above) > keep else worst).mean()[None])
    images = torch.cat(means)
    return images.sum() / mean_count(mask.new_tensor(len(images), dtype=torch.long))
