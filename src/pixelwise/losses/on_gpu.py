"""The losses of pixels on a GPU, all pixels of a batch at once: two kernels, and what torch does between them.

Nothing here asks the device for a number, but for OHEM and the bootstrapped loss, which choose pixels.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.kernels import on_gpu, proven
from pixelwise.labels import IGNORE
from pixelwise.losses.streaming import PixelWeights, StripTerms, pixel_loss_parts, smoothing_loss

PixelLoss = Callable[[Tensor, Tensor, Tensor, StripTerms, bool, Tensor | None], Tensor]
COUNTERS = 64
"""So many counters share the work of each class: on a GPU, additions to one of them wait for each other."""


def gpu_loss(logits: Tensor, terms: StripTerms) -> PixelLoss | None:
    """Return what computes the terms as `strip_loss` does, with the same arguments; None: `strip_loss` must.

    It must for float64, for losses of sums (Dice, soft IoU), on other devices, and where the kernels do not work.
    """
    if terms.of_sums or logits.dtype == torch.float64 or not on_gpu(logits):
        return None
    kernels = _kernels(str(logits.device))
    return None if kernels is None else partial(pixels_at_once, kernels=kernels)


def pixels_at_once(
    logits: Tensor,
    mask: Tensor,
    counts: Tensor,
    terms: StripTerms,
    align_corners: bool,
    gradient: Tensor | None,
    *,
    kernels: tuple[Callable, Callable],
) -> Tensor:
    """Return the weighted sum of the terms, none of which is of sums, as `strip_loss` does.

    Args:
        kernels: `softmax_of_pixels` and `gradient_of_cells` of `pixelwise.kernels.pixel_loss`.
    """
    softmax_of_pixels, gradient_of_cells = kernels
    weights, label = PixelWeights.of(terms, counts), (mask - IGNORE).int()
    target, valid = (label - 1).clamp(min=0), label > 0
    smoothing = weights.smoothing if weights.smoothed else None
    total, own, smoothed = softmax_of_pixels(logits.detach(), target, smoothing, align_corners)
    pixel_loss = total - own
    loss, slope = counts.new_zeros(()), torch.zeros_like(total)
    if terms.of_pixels:
        leaf = pixel_loss.clone().requires_grad_()
        with torch.enable_grad():
            chosen = torch.stack([weight * term(leaf, mask) for weight, term in terms.of_pixels]).sum()
        slope += torch.autograd.grad(chosen, leaf)[0]
        loss = loss + chosen.detach()
    own_loss, by_loss = pixel_loss_parts(pixel_loss, label, weights, terms.losses)
    loss, slope = loss + own_loss, slope + by_loss
    if smoothed is not None:
        loss = loss + smoothing_loss(label, total, smoothed, weights)
    if gradient is not None:
        share = slope if smoothing is None else slope + smoothing.sum() * valid
        gradient += gradient_of_cells(
            logits.detach(), target, total, share, slope, smoothing, valid.float(), align_corners
        )
    return loss


def count_on_gpu(mask: Tensor, classes: int) -> Tensor:
    """Return the pixels of each class in each image [B,K], without asking the device, as `torch.bincount` does."""
    label = (mask - IGNORE).long().flatten(1)
    images, counters = len(label), classes + 1
    turn = torch.arange(label.shape[1], device=mask.device) % COUNTERS
    counts = torch.zeros(images, COUNTERS * counters, dtype=torch.long, device=mask.device)
    counts.scatter_add_(1, label + turn * counters, torch.ones_like(label))
    return counts.view(images, COUNTERS, counters).sum(dim=1)[:, 1:]


@cache
def _kernels(device: str) -> tuple[Callable, Callable] | None:
    """Return both kernels if a small case comes out as torch's own functions have it; else None."""

    def both() -> Callable:
        from pixelwise.kernels.pixel_loss import gradient_of_cells, softmax_of_pixels

        return partial(_trial, kernels=(softmax_of_pixels, gradient_of_cells))

    if proven("pixel_loss", both, _plain_trial, _case, device) is None:
        return None
    from pixelwise.kernels.pixel_loss import gradient_of_cells, softmax_of_pixels

    return softmax_of_pixels, gradient_of_cells


def _case(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, classes and smoothing, one cell and one class more than a program has."""
    generator = torch.Generator().manual_seed(0)
    logits, smoothing = 3 * torch.randn(1, 9, 2, 33, generator=generator), torch.rand(9, generator=generator)
    target = torch.randint(9, (1, 4, 66), generator=generator)
    return logits.to(device), target.to(device), smoothing.to(device)


def _trial(logits: Tensor, target: Tensor, smoothing: Tensor, kernels: tuple[Callable, Callable]) -> tuple[Tensor, ...]:
    softmax_of_pixels, gradient_of_cells = kernels
    found = softmax_of_pixels(logits, target.int(), smoothing, False)
    ones = torch.ones_like(found[0])
    share = ones + smoothing.sum()
    return *found, gradient_of_cells(logits, target.int(), found[0], share, ones, smoothing, ones, False)


def _plain_trial(logits: Tensor, target: Tensor, smoothing: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaf = logits.double().requires_grad_()
        full = F.interpolate(leaf, size=target.shape[1:], mode="bilinear", align_corners=False)
        total, own = full.logsumexp(dim=1), full.gather(1, target[:, None])[:, 0]
        smoothed = (full * smoothing[:, None, None]).sum(dim=1)
        loss = (total - own + smoothing.sum() * total - smoothed).sum()
    return total, own, smoothed, torch.autograd.grad(loss, leaf)[0]
