"""Losses over strips of full-size rows: of pixels, and of sums over pixels.

Every loss is that of the bilinearly upsampled logits, but [B,K,H,W] never exists. Strip by strip, the loss and its
gradient are computed together, and the gradient is carried back to the stride. Some losses need a number from all
pixels before any pixel has a gradient, such as Dice its sums. For those, all strips are gone through twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.loss_config import LossConfig
from pixelwise.losses.pixel_strips import Strip, pixel_strips
from pixelwise.losses.pixels import focal_parts
from pixelwise.processes import all_mean


@dataclass(frozen=True)
class StripTerms:
    """The losses that go strip by strip: cross-entropy and focal loss, and those below, each with its weight."""

    losses: LossConfig
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
        counts: [B,K], the pixels of each class in each image, in `working_dtype`.
        gradient: [B,K,h,w]; this loss's gradient is added to it.
    """
    weights = PixelWeights.of(terms, counts)
    loss, slopes = _gathered_loss(logits, mask, terms, align_corners, counts, with_slopes=gradient is not None)
    if not (terms.losses.cross_entropy or terms.losses.focal) and slopes is None:
        return loss
    smoothing = weights.smoothing if weights.smoothed else None
    for strip in pixel_strips(logits, mask, align_corners=align_corners, smoothing=smoothing, gradient=gradient):
        softmax = _Softmax.of(strip)
        pixel_loss = softmax.logarithm - strip.target_logit
        own_loss, by_loss = pixel_loss_parts(pixel_loss, strip.label, weights, terms.losses)
        loss += own_loss
        if strip.smoothing_sum is not None:
            loss += smoothing_loss(strip.label, softmax.logarithm, strip.smoothing_sum, weights)
        if gradient is not None:
            strip.add_gradient(_slope(strip, softmax, weights, by_loss, slopes))
    return loss


@dataclass(frozen=True)
class PixelWeights:
    """How much a pixel counts, by its class. All are divided by the sum of the pixels' class weights, to give means."""

    cross_entropy: Tensor
    """[K+1], of the cross-entropy with the pixel's own class; the first, of ignored pixels, is 0."""
    focal: Tensor
    """[K+1], of the focal loss; the first is 0."""
    smoothing: Tensor
    """[K], of the cross-entropy with each class, which label smoothing adds."""
    smoothed: bool

    @staticmethod
    def of(terms: StripTerms, counts: Tensor) -> "PixelWeights":
        """Return the weights that the pixels of a batch get."""
        losses = terms.losses
        smoothing = losses.label_smoothing if losses.cross_entropy else 0.0
        total = all_mean(counts.sum(dim=0)) @ terms.class_weights
        # If all class weights are 0, so are these.
        scaled = terms.class_weights / torch.where(total > 0, total, torch.inf)
        return PixelWeights(
            cross_entropy=F.pad(scaled * (losses.cross_entropy * (1 - smoothing)), (1, 0)),
            focal=F.pad(scaled * losses.focal, (1, 0)),
            smoothing=scaled * (losses.cross_entropy * smoothing / counts.shape[1]),
            smoothed=bool(smoothing),
        )


@dataclass(frozen=True)
class _Softmax:
    """What a strip's softmax and cross-entropy, log(total) - target logit, are made from."""

    total: Tensor
    """[m,1,P]: the sum of the exponentials."""
    logarithm: Tensor
    """[m,1,P]: of that sum."""

    @staticmethod
    def of(strip: Strip) -> "_Softmax":
        total = strip.exponential.sum(dim=1, keepdim=True)
        return _Softmax(total, total.log())


def pixel_loss_parts(
    pixel_loss: Tensor, label: Tensor, weights: "PixelWeights", losses: LossConfig
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and focal loss of pixels, and their derivative by each pixel's cross-entropy.

    Args:
        label: as `Strip` has it.
    """
    weight = weights.cross_entropy[label]
    loss = (weight * pixel_loss).sum()
    if losses.focal:
        focal, by_pixel = focal_parts(pixel_loss.clamp_(min=0), losses.focal_gamma)
        own_weight = weights.focal[label]
        loss += (own_weight * focal).sum()
        weight = weight + own_weight * by_pixel
    return loss, weight


def smoothing_loss(label: Tensor, logarithm: Tensor, smoothing_sum: Tensor, weights: "PixelWeights") -> Tensor:
    """Return the cross-entropy with all classes that label smoothing adds."""
    return ((label > 0) * (weights.smoothing.sum() * logarithm - smoothing_sum)).sum()


def _slope(strip: Strip, softmax: _Softmax, weights: PixelWeights, by_loss: Tensor, slopes: "_Slopes | None") -> Tensor:
    """Return the derivative by a strip's logits [m,K,P], in the memory of the strip's exponentials.

    Each loss adds to the same three terms, so one pass over [m,K,P] is enough for all. With p the softmax, it is::

        share · p                    for every class
              - at_target            at the pixel's own class
              - weights.smoothing    for every class of a valid pixel

        loss                 share                        at_target
        cross-entropy        w                            w
        label smoothing      sum of weights.smoothing     0
        sums (Dice, IoU)     g - g·p - pull               -pull

    w is a pixel's weight, with the focal loss and those in `StripTerms.of_pixels`; g is `_Slopes.by_probability`; pull
    is `_Slopes.by_target` of the pixel's own class, times its p.
    """
    valid = strip.label > 0
    if slopes is not None and slopes.by_pixel is not None:
        by_loss = by_loss + slopes.by_pixel[strip.image][strip.position]
    share, at_target = by_loss, by_loss
    if weights.smoothed:
        share = share + weights.smoothing.sum() * valid
    if slopes is not None and slopes.of_sums:
        by_probability = slopes.by_probability[strip.image]
        pull = slopes.by_target[strip.image][strip.label] * strip.target_logit.exp() / softmax.total
        share = share - valid * ((by_probability @ strip.exponential)[:, None] / softmax.total + pull)
        share = share + valid * by_probability[:, None]
        at_target = by_loss - pull
    # In place: memory traffic is most of the time.
    slope = strip.exponential.mul_(share / softmax.total)
    slope.scatter_add_(1, strip.target, -at_target)
    if weights.smoothed:
        slope.addcmul_(weights.smoothing[:, None], valid.to(slope.dtype), value=-1)
    return slope


def working_dtype(logits: Tensor) -> torch.dtype:
    """Return the type to compute in: float32, or float64 for logits of that type."""
    return torch.promote_types(logits.dtype, torch.float32)


@dataclass(frozen=True)
class _Slopes:
    """The derivatives of the losses that `_gathered_loss` computes."""

    by_pixel: Tensor | None
    """[B,H*W+1]: by each pixel's cross-entropy; 0 where ignored, and at the end."""
    by_probability: Tensor
    """[B,K]: by the probability of a class, at every valid pixel."""
    by_target: Tensor
    """[B,K+1]: what is added to that at the class's own pixels; the first, of ignored pixels, is 0."""
    of_sums: bool
    """Whether there is a loss of sums; else the two above are 0."""


def _gathered_loss(
    logits: Tensor, mask: Tensor, terms: StripTerms, align_corners: bool, counts: Tensor, *, with_slopes: bool
) -> tuple[Tensor, _Slopes | None]:
    """Return the losses that need a number from all pixels first, and their derivatives."""
    if not terms.of_pixels and not terms.of_sums:
        return counts.new_zeros(()), None
    (height, width), pixel_loss = mask.shape[-2:], None
    if terms.of_pixels:
        pixel_loss = counts.new_zeros(len(mask), height * width + 1)
    intersection, predicted = torch.zeros_like(counts), torch.zeros_like(counts)
    for strip in pixel_strips(logits, mask, align_corners=align_corners):
        rows = strip.exponential
        total = rows.sum(dim=1, keepdim=True)
        if pixel_loss is not None:
            pixel_loss[strip.image][strip.position] = total.log() - strip.target_logit
        if terms.of_sums:
            rows *= (strip.label > 0) / total
            predicted[strip.image] += rows.sum(dim=(0, 2))
            # First within each row: one float32 sum over all pixels would lose digits.
            by_row = rows.new_zeros(rows.shape[:2])
            by_row.scatter_add_(1, strip.target[:, 0], rows.gather(1, strip.target)[:, 0])
            intersection[strip.image] += by_row.sum(dim=0)
    # The rest is small, or has one number per pixel. Autograd differentiates it.
    inputs = [each.requires_grad_(with_slopes) for each in (intersection, predicted, pixel_loss) if each is not None]
    with torch.set_grad_enabled(with_slopes):
        loss = sum((weight * term(intersection, predicted, counts) for weight, term in terms.of_sums), counts.sum() * 0)
        if pixel_loss is not None:
            full = pixel_loss[:, :-1].unflatten(1, (height, width))
            loss = loss + sum(weight * term(full, mask) for weight, term in terms.of_pixels)
    if not with_slopes:
        return loss, None
    by_target, by_probability, *by_pixel = torch.autograd.grad(loss, inputs, materialize_grads=True)
    slopes = _Slopes(by_pixel[0] if by_pixel else None, by_probability, F.pad(by_target, (1, 0)), bool(terms.of_sums))
    return loss.detach(), slopes
