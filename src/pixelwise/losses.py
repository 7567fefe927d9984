"""Losses of logits at the network's stride against a mask at full size, strip by strip.

Every loss is exactly that of the bilinearly upsampled logits, but [B,K,H,W] never exists: the gradient is made in the
same sweep as the loss, carried back to the stride strip by strip, and kept there until it is asked for.

Ignored pixels change neither loss nor gradient; a batch without a valid pixel gives 0 and a zero gradient.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.models.upsampling import strips, upsample_rows

DICE_SMOOTH = 1.0
"""Added to both sides of the Dice ratio, so that a class of few pixels does not swing it."""


def segmentation_loss(
    logits: Float[Tensor, "B K h w"],
    mask: Int[Tensor, "B H W"],
    *,
    cross_entropy: float = 1.0,
    dice: float = 0.0,
    class_weights: Float[Tensor, " K"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return a weighted sum of cross-entropy and Dice loss over the valid pixels of a batch.

    The cross-entropy is the mean over valid pixels, weighted by the weight of each pixel's class, as torch has it.
    The Dice loss is 1 minus the mean, over the classes that the batch's masks hold, of (2 I + 1) / (P + T + 1), where
    I sums the probability of the class over its own pixels, P over all valid pixels, and T counts its pixels
    (Milletari et al. 2016, V-Net, section 3, without the squares, and smoothed).

    Args:
        logits: at the network's stride.
        mask: class indices, and `IGNORE`.
        cross_entropy, dice: weights in the sum.
        class_weights: of the cross-entropy.
        label_smoothing: of the cross-entropy, 0 to below 1.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`.
    """
    low, high = mask.aminmax()
    if low < IGNORE or high >= logits.shape[1]:
        raise ValueError(
            f"The mask holds values from {int(low)} to {int(high)}, but there are {logits.shape[1]} classes. "
            f"Map other values to a class or to {IGNORE} (ignored)."
        )
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], device=logits.device)
    return _StripLoss.apply(logits, mask, class_weights.float(), cross_entropy, dice, label_smoothing)


class _StripLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, mask, class_weights, cross_entropy, dice, label_smoothing):
        classes = logits.shape[1]
        valid = mask != IGNORE
        # Every pixel's weight in the cross-entropy; what is ignored weighs 0 wherever it appears.
        pixel_weight = class_weights[mask.clamp(min=0)] * valid
        total_weight = pixel_weight.sum().clamp(min=torch.finfo(torch.float32).tiny)
        counts = torch.bincount(mask[valid], minlength=classes).float()
        intersection = torch.zeros(classes, device=logits.device)
        predicted = torch.zeros(classes, device=logits.device)
        if dice:
            for top, bottom in strips(logits.shape, mask.shape[-2:]):
                rows = _rows(logits, mask, top, bottom).softmax(dim=1).mul_(valid[:, None, top:bottom])
                predicted += rows.sum(dim=(0, 2, 3))
                chosen = rows.gather(1, mask[:, None, top:bottom].clamp(min=0))[:, 0]
                intersection.index_add_(0, mask[:, top:bottom].clamp(min=0).flatten(), chosen.flatten())

        loss = torch.zeros((), device=logits.device)
        gradient = torch.zeros_like(logits, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        by_probability = by_target = torch.zeros(classes, device=logits.device)
        if dice:
            present = counts > 0
            number = present.sum().clamp(min=1)
            top_sum, bottom_sum = 2 * intersection + DICE_SMOOTH, predicted + counts + DICE_SMOOTH
            if present.any():
                loss += dice * (1 - (top_sum / bottom_sum)[present].sum() / number)
            # The derivative of the Dice loss by one probability: one part at every pixel, one at the class's own.
            by_probability = dice * torch.where(present, top_sum / bottom_sum**2 / number, 0.0)
            by_target = dice * torch.where(present, -2 / bottom_sum / number, 0.0)

        if cross_entropy or gradient is not None:
            smooth_weight = class_weights * (label_smoothing / classes)
            for top, bottom in strips(logits.shape, mask.shape[-2:]):
                part = logits.detach().requires_grad_(gradient is not None)
                with torch.enable_grad():
                    rows = _rows(part, mask, top, bottom)
                target = mask[:, None, top:bottom].clamp(min=0)
                weight = pixel_weight[:, None, top:bottom] / total_weight
                inside = valid[:, None, top:bottom]
                log_probability = rows.detach().log_softmax(dim=1)
                chosen = log_probability.gather(1, target)
                loss -= cross_entropy * (1 - label_smoothing) * (weight * chosen).sum()
                if label_smoothing:
                    spread = (log_probability * smooth_weight[:, None, None]).sum(dim=1, keepdim=True)
                    loss -= cross_entropy * (spread * inside).sum() / total_weight
                if gradient is None:
                    continue
                probability = log_probability.exp_()
                slope = probability * (cross_entropy * (1 - label_smoothing) * weight)
                slope.scatter_add_(1, target, -cross_entropy * (1 - label_smoothing) * weight)
                if label_smoothing:
                    pull = probability * smooth_weight.sum() - smooth_weight[:, None, None]
                    slope += pull * (cross_entropy * inside / total_weight)
                if dice:
                    # Through the softmax: p * (g - sum of g p).
                    pull = by_probability[:, None, None].expand_as(probability).clone()
                    pull.scatter_add_(1, target, by_target[target])
                    pull -= (pull * probability).sum(dim=1, keepdim=True)
                    slope += pull.mul_(probability).mul_(inside)
                (back,) = torch.autograd.grad(rows, part, slope)
                gradient += back
        ctx.gradient = gradient
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx, *grad_outputs):
        (scale,) = grad_outputs
        return (ctx.gradient * scale).to(ctx.dtype), None, None, None, None, None


def _rows(logits: Tensor, mask: Tensor, top: int, bottom: int) -> Tensor:
    return upsample_rows(logits.float(), mask.shape[-2:], top, bottom)
