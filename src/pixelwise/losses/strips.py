"""Losses over strips of full-size rows: of pixels, and of sums over pixels.

Every loss is exactly that of the bilinearly upsampled logits, but [B,K,H,W] never exists: the gradient is made in the
same sweep as the loss and carried back to the stride strip by strip. Losses that need a statistic of all pixels before
any has a gradient take a sweep of their own for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.losses.pixels import focal_parts
from pixelwise.losses.walk import walk


@dataclass(frozen=True)
class StripTerms:
    """Weights and settings of the losses that go strip by strip."""

    cross_entropy: float
    label_smoothing: float
    focal: float
    focal_gamma: float
    class_weights: Tensor
    """[K]"""
    of_pixels: Sequence[tuple[float, Callable[..., Tensor]]]
    """Functions of all pixels' cross-entropies [B,H,W] and the mask."""
    of_sums: Sequence[tuple[float, Callable[..., Tensor]]]
    """Functions of intersections, predicted sums and counts, each [B,K]."""


def strip_loss(
    logits: Tensor, mask: Tensor, counts: Tensor, terms: StripTerms, align_corners: bool, gradient: Tensor | None
) -> Tensor:
    """Return the weighted sum of the terms over a batch that has a valid pixel.

    Args:
        logits: [B,K,h,w].
        mask: [B,H,W].
        counts: [B,K], the pixels of each class in each image, in the type that is worked in.
        gradient: [B,K,h,w]; the loss's own is added to it.
    """
    # Written in place wherever a strip is: memory traffic is most of the time.
    classes, smoothing = logits.shape[1], terms.label_smoothing if terms.cross_entropy else 0.0
    total = counts.sum(dim=0) @ terms.class_weights
    # Divided by the sum of weights here, so that the losses below are sums; without any weight all become 0.
    scaled = terms.class_weights / torch.where(total > 0, total, torch.inf)
    hard_weight = F.pad(scaled * (terms.cross_entropy * (1 - smoothing)), (1, 0))
    focal_weight = F.pad(scaled * terms.focal, (1, 0))
    smooth_weight = scaled * (terms.cross_entropy * smoothing / classes)
    loss, slopes = _of_statistics(logits, mask, terms, align_corners, counts, with_slopes=gradient is not None)
    if not (terms.cross_entropy or terms.focal) and slopes is None:
        return loss

    for strip in walk(
        logits, mask, align_corners=align_corners, spread=smooth_weight if smoothing else None, gradient=gradient
    ):
        rows, weight, valid = strip.exponential, hard_weight[strip.label], strip.label > 0
        normaliser = rows.sum(dim=1, keepdim=True)
        logarithm = normaliser.log()
        loss += (weight * (logarithm - strip.chosen)).sum()
        if terms.focal:
            focal, by_pixel = focal_parts((logarithm - strip.chosen).clamp_(min=0), terms.focal_gamma)
            own_weight = focal_weight[strip.label]
            loss += (own_weight * focal).sum()
            weight = weight + own_weight * by_pixel
        if strip.spread is not None:
            loss += (valid * (smooth_weight.sum() * logarithm - strip.spread)).sum()
        if gradient is None:
            continue
        # The gradient is share * exp(rows), less at_target at the target, less smooth_weight where valid.
        if slopes is not None and slopes.by_pixel is not None:
            weight = weight + slopes.by_pixel[strip.image][strip.place]
        share, at_target = weight, weight
        if smoothing:
            share = share + smooth_weight.sum() * valid
        if slopes is not None and terms.of_sums:
            # Through the softmax: p * (g - sum of g p), with g = by_probability, and by_target more at the target.
            by_probability = slopes.by_probability[strip.image]
            pull = slopes.by_target[strip.image][strip.label] * strip.chosen.exp() / normaliser
            share = share - valid * ((by_probability @ rows)[:, None] / normaliser + pull)
            share = share + valid * by_probability[:, None]
            at_target = weight - pull
        slope = rows.mul_(share / normaliser)
        slope.scatter_add_(1, strip.target, -at_target)
        if smoothing:
            slope.addcmul_(smooth_weight[:, None], valid.to(slope.dtype), value=-1)
        strip.add_gradient(slope)
    return loss


def working_dtype(logits: Tensor) -> torch.dtype:
    """Return what is computed in: float32, or float64 for logits of that type."""
    return torch.promote_types(logits.dtype, torch.float32)


@dataclass(frozen=True)
class _Slopes:
    """The loss's derivatives by what was gathered over all pixels."""

    by_pixel: Tensor | None
    """[B,H*W+1]: by each pixel's cross-entropy; 0 where ignored, and at the end."""
    by_probability: Tensor
    """[B,K]: by the probability of a class, at every valid pixel."""
    by_target: Tensor
    """[B,K+1]: what comes to that at the class's own pixels, after a 0 for what is ignored."""


def _of_statistics(
    logits: Tensor, mask: Tensor, terms: StripTerms, align_corners: bool, counts: Tensor, *, with_slopes: bool
) -> tuple[Tensor, _Slopes | None]:
    if not terms.of_pixels and not terms.of_sums:
        return counts.new_zeros(()), None
    (height, width), pixel_loss = mask.shape[-2:], None
    if terms.of_pixels:
        pixel_loss = counts.new_zeros(len(mask), height * width + 1)
    intersection, predicted = torch.zeros_like(counts), torch.zeros_like(counts)
    for strip in walk(logits, mask, align_corners=align_corners):
        rows = strip.exponential
        normaliser = rows.sum(dim=1, keepdim=True)
        if pixel_loss is not None:
            pixel_loss[strip.image][strip.place] = normaliser.log() - strip.chosen
        if terms.of_sums:
            rows *= (strip.label > 0) / normaliser
            predicted[strip.image] += rows.sum(dim=(0, 2))
            # First within each row: one sum in float32 over all pixels would lose digits.
            by_row = rows.new_zeros(rows.shape[:2])
            by_row.scatter_add_(1, strip.target[:, 0], rows.gather(1, strip.target)[:, 0])
            intersection[strip.image] += by_row.sum(dim=0)
    # What is left is small, or of one number per pixel: autograd's to differentiate.
    inputs = [each.requires_grad_(with_slopes) for each in (intersection, predicted, pixel_loss) if each is not None]
    with torch.set_grad_enabled(with_slopes):
        loss = sum((weight * term(intersection, predicted, counts) for weight, term in terms.of_sums), counts.sum() * 0)
        if pixel_loss is not None:
            full = pixel_loss[:, :-1].unflatten(1, (height, width))
            loss = loss + sum(weight * term(full, mask) for weight, term in terms.of_pixels)
    if not with_slopes:
        return loss, None
    by_target, by_probability, *by_pixel = torch.autograd.grad(loss, inputs, materialize_grads=True)
    slopes = _Slopes(by_pixel[0] if by_pixel else None, by_probability, F.pad(by_target, (1, 0)))
    return loss.detach(), slopes
