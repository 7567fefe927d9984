"""Losses that need neighbouring or sorted pixels: one image at a time, at full size, with autograd's gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pixelwise.losses.streaming import working_dtype
from pixelwise.processes import mean_count
from pixelwise.upsampling import upsample

ImageTerm = tuple[float, Callable[..., Tensor]]
"""A weight, and a function of one image's full-size logits [K,H,W] and its mask [H,W]."""


def image_loss(
    logits: Tensor,
    mask: Tensor,
    counts: Tensor,
    terms: Sequence[ImageTerm],
    align_corners: bool,
    gradient: Tensor | None,
) -> Tensor:
    """Return the weighted sum of the terms, each a mean over the images that have a valid pixel.

    Args:
        logits: [B,K,h,w].
        mask: [B,H,W].
        counts: [B,K], the pixels of each class in each image.
        gradient: [B,K,h,w]; this loss's gradient is added to it.
    """
    loss = logits.new_zeros((), dtype=working_dtype(logits))
    if not terms:
        return loss
    images = float(mean_count(counts.any(dim=1).sum()))
    known = counts.any(dim=1).nonzero()[:, 0].tolist()
    for i in known:
        coarse = logits[i : i + 1].detach().to(loss.dtype).requires_grad_(gradient is not None)
        with torch.enable_grad():
            upsampled = upsample(coarse, mask.shape[-2:], align_corners=align_corners)
        full = upsampled.detach().requires_grad_(gradient is not None)
        slope = torch.zeros_like(full)
        # One term at a time, so that only one graph is in memory.
        for weight, term in terms:
            with torch.enable_grad():
                own_loss = term(full[0], mask[i]) * (weight / images)
            loss += own_loss.detach()
            if gradient is not None:
                slope += torch.autograd.grad(own_loss, full)[0]
        if gradient is not None:
            gradient[i] += torch.autograd.grad(upsampled, coarse, slope)[0][0] if upsampled is not coarse else slope[0]
    return loss
