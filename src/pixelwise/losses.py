"""Losses of logits at the network's stride against a mask at full size, strip by strip.

Every loss is exactly that of the bilinearly upsampled logits, but [B,K,H,W] never exists: the gradient is made in the
same sweep as the loss, carried back to the stride strip by strip, and kept there until it is asked for.

Ignored pixels change neither loss nor gradient; a batch without a valid pixel gives 0 and a zero gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.models.upsampling import strips, upsample, upsample_rows

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
    I sums the probability of the class over its own pixels, P over all valid pixels, and T counts its pixels. It is
    that of V-Net (Milletari et al. 2016, section 3) with three differences: P is not squared, as in most later work;
    numerator and denominator are smoothed by 1; the sums run over the whole batch, and a class that it does not hold
    is left out, where a ratio of next to nothing would say nothing.

    Half-precision logits are computed with in float32, and the loss is float32; float64 stays float64.

    Args:
        logits: at the network's stride.
        mask: class indices, and `IGNORE`.
        cross_entropy, dice: weights in the sum.
        class_weights: of the cross-entropy.
        label_smoothing: of the cross-entropy, 0 to below 1.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`.
    """
    assert len(logits) == len(mask), f"{len(logits)} images of logits, {len(mask)} masks"
    low, high = mask.aminmax()
    if low < IGNORE or high >= logits.shape[1]:
        raise ValueError(
            f"The mask holds values from {int(low)} to {int(high)}, but there are {logits.shape[1]} classes. "
            f"Map other values to a class or to {IGNORE} (ignored)."
        )
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], device=logits.device)
    terms = _Terms(cross_entropy, dice, class_weights.detach(), label_smoothing)
    # Asked here, because inside a Function gradients are always off.
    return _StripLoss.apply(logits, mask, terms, torch.is_grad_enabled() and logits.requires_grad)


@dataclass(frozen=True)
class _Terms:
    cross_entropy: float
    dice: float
    class_weights: Tensor
    label_smoothing: float


class _StripLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, mask: Tensor, terms: _Terms, with_gradient: bool) -> Tensor:
        gradient = torch.zeros_like(logits, dtype=_working_dtype(logits)) if with_gradient else None
        # Autocast would take the products below in half precision.
        with torch.autocast(logits.device.type, enabled=False):
            loss = _loss(logits, mask, terms, gradient)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "segmentation_loss has no second derivative. Call it without create_graph=True, or take the loss of "
                "model(image), whose logits are at full size, with torch's own functions."
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0]).to(ctx.dtype), None, None, None


@dataclass(frozen=True)
class _Strip:
    """Some full-size rows of one image."""

    rows: Tensor
    """Their logits, [m,K,W], to be overwritten."""
    label: Tensor
    """[m,1,W]: 0 where ignored, else the class's index + 1, for tables that begin with what is ignored."""
    target: Tensor
    """[m,1,W]: the class's index, 0 where ignored."""
    vertical: Tensor
    """[m,n]: the weight of each coarse row in each full-size row."""
    wide: Tensor
    """The coarse rows at full width, [n,K,1,W], a function of ``coarse`` alone."""
    coarse: Tensor
    """[n,K,1,w]"""
    image: int
    first: int
    """Number of the first coarse row."""

    def add_gradient(self, slope: Tensor, gradient: Tensor) -> None:
        """Carry the gradient by ``rows`` back to the stride and add it there."""
        wide = (self.vertical.T @ slope.flatten(1)).view_as(self.wide)
        (back,) = torch.autograd.grad(self.wide, self.coarse, wide)
        gradient[self.image, :, self.first : self.first + len(back)] += back[:, :, 0].movedim(0, 1)


def _strips(logits: Tensor, mask: Tensor) -> Iterator[_Strip]:
    # Columns are upsampled first, on the few coarse rows, and by the slow kernel; then rows, by a fast matrix product.
    height, width = mask.shape[-2:]
    coarse = logits.shape[-2]
    identity = torch.eye(coarse, dtype=_working_dtype(logits), device=logits.device)[None, None]
    for image, (own, own_mask) in enumerate(zip(logits.detach(), mask, strict=True)):
        by_row = own.to(identity.dtype).movedim(1, 0)[:, :, None].contiguous()
        for top, bottom in strips(logits[:1].shape, mask.shape[-2:]):
            first = int(_centre(top, coarse, height))
            last = min(coarse, int(_centre(bottom - 1, coarse, height)) + 2)
            vertical = upsample_rows(identity, (height, coarse), top, bottom)[0, 0, :, first:last]
            part = by_row[first:last].requires_grad_()
            with torch.enable_grad():
                wide = upsample(part, (1, width))
            rows = (vertical @ wide.detach().flatten(1)).view(bottom - top, -1, width)
            label = own_mask[top:bottom, None].long() - IGNORE
            yield _Strip(rows, label, (label - 1).clamp(min=0), vertical, wide, part, image, first)


def _centre(row: int, coarse: int, height: int) -> float:
    return max(0.0, (row + 0.5) * (coarse / height) - 0.5)


def _working_dtype(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _loss(logits: Tensor, mask: Tensor, terms: _Terms, gradient: Tensor | None) -> Tensor:
    # Adds the gradient to `gradient`. Written in place wherever a strip is: memory traffic is most of the time.
    classes, hard = logits.shape[1], 1 - terms.label_smoothing
    class_weights = terms.class_weights.to(_working_dtype(logits))
    counts = torch.bincount(mask.flatten() - IGNORE, minlength=classes + 1)[1:].to(class_weights.dtype)
    total = counts @ class_weights
    # Divided by the sum of weights here, so that the losses below are sums; without a valid pixel all become 0.
    scaled = class_weights * (terms.cross_entropy / torch.where(total > 0, total, torch.inf))
    hard_weight = F.pad(scaled * hard, (1, 0))
    smooth_weight = scaled * (terms.label_smoothing / classes)
    loss, by_probability, by_target = _dice(logits, mask, terms.dice, counts)
    by_target = F.pad(by_target, (1, 0))
    if not terms.cross_entropy and gradient is None:
        return loss

    for strip in _strips(logits, mask):
        rows, weight, valid = strip.rows, hard_weight[strip.label], strip.label > 0
        rows -= rows.amax(dim=1, keepdim=True)
        chosen = rows.gather(1, strip.target)
        spread = smooth_weight @ rows if terms.label_smoothing else None
        rows.exp_()
        normaliser = rows.sum(dim=1, keepdim=True)
        logarithm = normaliser.log()
        loss += (weight * (logarithm - chosen)).sum()
        if spread is not None:
            loss += (valid * (smooth_weight.sum() * logarithm - spread[:, None])).sum()
        if gradient is None:
            continue
        # The gradient is share * exp(rows), less at_target at the target, less smooth_weight where valid.
        share, at_target = weight, weight
        if terms.label_smoothing:
            share = share + smooth_weight.sum() * valid
        if terms.dice:
            # Through the softmax: p * (g - sum of g p), with g = by_probability, and by_target more at the target.
            pull = by_target[strip.label] * chosen.exp() / normaliser
            share = share - valid * ((by_probability @ rows)[:, None] / normaliser + pull)
            share = share + valid * by_probability[:, None]
            at_target = weight - pull
        slope = rows.mul_(share / normaliser)
        slope.scatter_add_(1, strip.target, -at_target)
        if terms.label_smoothing:
            slope.addcmul_(smooth_weight[:, None], valid.to(slope.dtype), value=-1)
        strip.add_gradient(slope, gradient)
    return loss


def _dice(logits: Tensor, mask: Tensor, dice: float, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # The loss, and its derivative by one probability: one part at every pixel, one more at those of the class.
    # A ratio of sums over the batch has no gradient before the sums are known: hence this sweep of its own.
    intersection, predicted = torch.zeros_like(counts), torch.zeros_like(counts)
    if not dice:
        return counts.new_zeros(()), predicted, intersection
    for strip in _strips(logits, mask):
        probability = strip.rows
        probability -= probability.amax(dim=1, keepdim=True)
        probability.exp_()
        probability *= (strip.label > 0) / probability.sum(dim=1, keepdim=True)
        predicted += probability.sum(dim=(0, 2))
        # First within each row: one sum in float32 over all pixels would lose digits.
        by_row = probability.new_zeros(probability.shape[:2])
        by_row.scatter_add_(1, strip.target[:, 0], probability.gather(1, strip.target)[:, 0])
        intersection += by_row.sum(dim=0)
    present = (counts > 0).to(counts.dtype)
    share = dice * present / present.sum().clamp(min=1)
    above, below = 2 * intersection + DICE_SMOOTH, predicted + counts + DICE_SMOOTH
    return (share * (1 - above / below)).sum(), share * above / below**2, -2 * share / below
