"""Losses over strips of full-size rows: of pixels, and of sums over pixels.

Every loss is exactly that of the bilinearly upsampled logits, but [B,K,H,W] never exists: the gradient is made in the
same sweep as the loss and carried back to the stride strip by strip. Losses that need a statistic of all pixels before
any has a gradient take a sweep of their own for it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.losses.pixels import focal_parts
from pixelwise.models.upsampling import strips, upsample, upsample_rows


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
    loss, slopes = _of_statistics(logits, mask, terms, align_corners, counts)
    if not (terms.cross_entropy or terms.focal) and (gradient is None or slopes is None):
        return loss

    for strip in _strips(logits, mask, align_corners):
        rows, weight, valid = strip.rows, hard_weight[strip.label], strip.label > 0
        rows -= rows.amax(dim=1, keepdim=True)
        chosen = rows.gather(1, strip.target)
        spread = smooth_weight @ rows if smoothing else None
        rows.exp_()
        normaliser = rows.sum(dim=1, keepdim=True)
        logarithm = normaliser.log()
        loss += (weight * (logarithm - chosen)).sum()
        if terms.focal:
            focal, by_pixel = focal_parts((logarithm - chosen).clamp_(min=0), terms.focal_gamma)
            own_weight = focal_weight[strip.label]
            loss += (own_weight * focal).sum()
            weight = weight + own_weight * by_pixel
        if spread is not None:
            loss += (valid * (smooth_weight.sum() * logarithm - spread[:, None])).sum()
        if gradient is None:
            continue
        # The gradient is share * exp(rows), less at_target at the target, less smooth_weight where valid.
        if slopes is not None and slopes.by_pixel is not None:
            weight = weight + slopes.by_pixel[strip.image, strip.top : strip.bottom, None]
        share, at_target = weight, weight
        if smoothing:
            share = share + smooth_weight.sum() * valid
        if slopes is not None and terms.of_sums:
            # Through the softmax: p * (g - sum of g p), with g = by_probability, and by_target more at the target.
            by_probability = slopes.by_probability[strip.image]
            pull = slopes.by_target[strip.image][strip.label] * chosen.exp() / normaliser
            share = share - valid * ((by_probability @ rows)[:, None] / normaliser + pull)
            share = share + valid * by_probability[:, None]
            at_target = weight - pull
        slope = rows.mul_(share / normaliser)
        slope.scatter_add_(1, strip.target, -at_target)
        if smoothing:
            slope.addcmul_(smooth_weight[:, None], valid.to(slope.dtype), value=-1)
        strip.add_gradient(slope, gradient)
    return loss


def working_dtype(logits: Tensor) -> torch.dtype:
    """Return what is computed in: float32, or float64 for logits of that type."""
    return torch.promote_types(logits.dtype, torch.float32)


@dataclass(frozen=True)
class _Slopes:
    """The loss's derivatives by what was gathered over all pixels."""

    by_pixel: Tensor | None
    """[B,H,W]: by each pixel's cross-entropy; 0 where ignored."""
    by_probability: Tensor
    """[B,K]: by the probability of a class, at every valid pixel."""
    by_target: Tensor
    """[B,K+1]: what comes to that at the class's own pixels, after a 0 for what is ignored."""


def _of_statistics(
    logits: Tensor, mask: Tensor, terms: StripTerms, align_corners: bool, counts: Tensor
) -> tuple[Tensor, _Slopes | None]:
    if not terms.of_pixels and not terms.of_sums:
        return counts.new_zeros(()), None
    pixel_loss = counts.new_zeros(mask.shape) if terms.of_pixels else None
    intersection, predicted = torch.zeros_like(counts), torch.zeros_like(counts)
    for strip in _strips(logits, mask, align_corners):
        rows = strip.rows
        rows -= rows.amax(dim=1, keepdim=True)
        chosen = rows.gather(1, strip.target)
        rows.exp_()
        normaliser = rows.sum(dim=1, keepdim=True)
        if pixel_loss is not None:
            pixel_loss[strip.image, strip.top : strip.bottom] = (normaliser.log() - chosen)[:, 0]
        if terms.of_sums:
            rows *= (strip.label > 0) / normaliser
            predicted[strip.image] += rows.sum(dim=(0, 2))
            # First within each row: one sum in float32 over all pixels would lose digits.
            by_row = rows.new_zeros(rows.shape[:2])
            by_row.scatter_add_(1, strip.target[:, 0], rows.gather(1, strip.target)[:, 0])
            intersection[strip.image] += by_row.sum(dim=0)
    # What is left is small, or of one number per pixel: autograd's to differentiate.
    inputs = [intersection.requires_grad_(), predicted.requires_grad_()]
    with torch.enable_grad():
        loss = sum((weight * term(intersection, predicted, counts) for weight, term in terms.of_sums), counts.sum() * 0)
        if pixel_loss is not None:
            inputs.append(pixel_loss.requires_grad_())
            loss = loss + sum(weight * term(pixel_loss, mask) for weight, term in terms.of_pixels)
    by_target, by_probability, *by_pixel = torch.autograd.grad(loss, inputs, materialize_grads=True)
    slopes = _Slopes(by_pixel[0] if by_pixel else None, by_probability, F.pad(by_target, (1, 0)))
    return loss.detach(), slopes


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
    top: int
    bottom: int
    first: int
    """Number of the first coarse row."""

    def add_gradient(self, slope: Tensor, gradient: Tensor) -> None:
        """Carry the gradient by ``rows`` back to the stride and add it there."""
        wide = (self.vertical.T @ slope.flatten(1)).view_as(self.wide)
        (back,) = torch.autograd.grad(self.wide, self.coarse, wide)
        gradient[self.image, :, self.first : self.first + len(back)] += back[:, :, 0].movedim(0, 1)


def _strips(logits: Tensor, mask: Tensor, align_corners: bool) -> Iterator[_Strip]:
    # Columns are upsampled first, on the few coarse rows, and by the slow kernel; then rows, by a fast matrix product.
    height, width = mask.shape[-2:]
    coarse = logits.shape[-2]
    identity = torch.eye(coarse, dtype=working_dtype(logits), device=logits.device)[None, None]
    for image, (own, own_mask) in enumerate(zip(logits.detach(), mask, strict=True)):
        by_row = own.to(identity.dtype).movedim(1, 0)[:, :, None].contiguous()
        for top, bottom in strips(logits[:1].shape, mask.shape[-2:]):
            first = int(_centre(top, coarse, height, align_corners))
            last = min(coarse, int(_centre(bottom - 1, coarse, height, align_corners)) + 2)
            vertical = upsample_rows(identity, (height, coarse), top, bottom, align_corners=align_corners)
            vertical = vertical[0, 0, :, first:last]
            part = by_row[first:last].requires_grad_()
            with torch.enable_grad():
                wide = upsample(part, (1, width), align_corners=align_corners)
            rows = (vertical @ wide.detach().flatten(1)).view(bottom - top, -1, width)
            label = own_mask[top:bottom, None].long() - IGNORE
            yield _Strip(rows, label, (label - 1).clamp(min=0), vertical, wide, part, image, top, bottom, first)


def _centre(row: int, coarse: int, height: int, align_corners: bool) -> float:
    if align_corners:
        return row * ((coarse - 1) / max(1, height - 1))
    return max(0.0, (row + 0.5) * (coarse / height) - 0.5)
