"""The weighted sum of losses, and the one place where its gradient is handed to autograd."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.losses.boundary import boundary_loss
from pixelwise.losses.dice import dice_loss, soft_iou_loss
from pixelwise.losses.lovasz import lovasz_softmax
from pixelwise.losses.ms_ssim import ms_ssim_loss
from pixelwise.losses.per_image import ImageTerm, image_loss
from pixelwise.losses.pixels import bootstrapped_loss, hard_example_loss
from pixelwise.losses.rmi import binary_cross_entropy_sum, mutual_information_loss
from pixelwise.losses.streaming import StripTerms, strip_loss, working_dtype


def segmentation_loss(
    logits: Float[Tensor, "B K h w"],
    mask: Integer[Tensor, "B H W"],
    *,
    align_corners: bool = False,
    cross_entropy: float = 1.0,
    focal: float = 0.0,
    ohem: float = 0.0,
    bootstrapped: float = 0.0,
    binary_cross_entropy: float = 0.0,
    dice: float = 0.0,
    soft_iou: float = 0.0,
    lovasz: float = 0.0,
    ms_ssim: float = 0.0,
    rmi: float = 0.0,
    boundary: float = 0.0,
    class_weights: Float[Tensor, " K"] | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    ohem_threshold: float = 0.9,
    ohem_min_kept: int = 131072,
    bootstrapped_threshold: float = 0.3,
    bootstrapped_min_kept: int = 4096,
    foreground_only: bool = False,
    ms_ssim_product: Literal["paper", "unet3p"] = "paper",
    rmi_radius: int = 3,
    boundary_tolerance: int = 5,
) -> Float[Tensor, ""]:
    """Return a weighted sum of losses over the valid pixels of a batch.

    Cross-entropy, focal, OHEM, bootstrapped, Dice and soft IoU go strip by strip and never build [B,K,H,W]; the others
    build [K,H,W] for one image at a time. Half-precision logits are computed with in float32, and the loss is float32;
    float64 stays float64.

    Args:
        logits: at the network's stride.
        mask: class indices, and `IGNORE`.
        align_corners: how logits are upsampled: corner pixels on corner pixels, or edges on edges.
        cross_entropy: weight of the mean over valid pixels, weighted by the weight of each pixel's class.
        focal: weight of the focal loss (`focal_parts`), averaged in the same way; ``class_weights`` are its alpha.
        ohem: weight of the cross-entropy of hard examples (`hard_example_loss`).
        bootstrapped: weight of the bootstrapped cross-entropy (`bootstrapped_loss`).
        binary_cross_entropy: weight of RMI's companion, with a sigmoid per class (`binary_cross_entropy_sum`).
        dice, soft_iou: weights of `dice_loss` and `soft_iou_loss`.
        lovasz, ms_ssim, rmi, boundary: weights of `lovasz_softmax`, `ms_ssim_loss`, `mutual_information_loss` and
            `boundary_loss`, each a mean over the images that have a valid pixel.
        class_weights: of the cross-entropy, the focal, OHEM and bootstrapped losses.
        label_smoothing: of the cross-entropy, 0 to below 1.
        focal_gamma: 0 or more; 0 is the cross-entropy.
        ohem_threshold: probability of the right class below which a pixel is hard, 0 to 1.
        ohem_min_kept: pixels of a batch that count at least.
        bootstrapped_threshold: pixel loss above which a pixel counts.
        bootstrapped_min_kept: pixels of an image that count at least.
        foreground_only: Dice, soft IoU and MS-SSIM leave out the first class, as papers on one foreground do.
        ms_ssim_product: of the levels, as in the paper on MS-SSIM or as in UNet 3+'s release.
        rmi_radius: side of RMI's neighbourhood in pooled pixels, 1 or more.
        boundary_tolerance: side of the window, odd, within which boundaries meet.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`, or a mask too small for MS-SSIM or RMI.
    """
    assert len(logits) == len(mask), f"{len(logits)} images of logits, {len(mask)} masks"
    if mask.dtype == torch.uint8:
        mask = mask.short()
    # As numbers of Python, since a mask's type need not hold the number of classes.
    low, high = (int(each) for each in mask.aminmax())
    if low < IGNORE or high >= logits.shape[1]:
        raise ValueError(
            f"The mask holds values from {low} to {high}, but there are {logits.shape[1]} classes. "
            f"Map other values to a class or to {IGNORE} (ignored)."
        )
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], device=logits.device)
    class_weights = class_weights.detach().to(working_dtype(logits))
    hard = partial(hard_example_loss, class_weights=class_weights, threshold=ohem_threshold, keep=ohem_min_kept)
    strap = partial(
        bootstrapped_loss, class_weights=class_weights, threshold=bootstrapped_threshold, keep=bootstrapped_min_kept
    )
    terms = StripTerms(
        cross_entropy=cross_entropy,
        label_smoothing=label_smoothing,
        focal=focal,
        focal_gamma=focal_gamma,
        class_weights=class_weights,
        of_pixels=_wanted((ohem, hard), (bootstrapped, strap)),
        of_sums=_wanted(
            (dice, partial(dice_loss, foreground_only=foreground_only)),
            (soft_iou, partial(soft_iou_loss, foreground_only=foreground_only)),
        ),
    )
    counts = _counts(mask, logits.shape[1])
    # The images' losses are averaged, but the binary cross-entropy is a sum over the batch.
    images, pixels = int(counts.any(dim=1).sum()), int(counts.sum())
    of_images = _wanted(
        (binary_cross_entropy * images / (pixels + 1), binary_cross_entropy_sum),
        (lovasz, lovasz_softmax),
        (ms_ssim, partial(ms_ssim_loss, foreground_only=foreground_only, product=ms_ssim_product)),
        (rmi, partial(mutual_information_loss, radius=rmi_radius)),
        (boundary, partial(boundary_loss, tolerance=boundary_tolerance)),
    )
    # Asked here, because inside a Function gradients are always off.
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    return _Loss.apply(logits, mask, counts.to(working_dtype(logits)), terms, of_images, align_corners, with_gradient)


def _wanted(*terms: tuple[float, Callable[..., Tensor]]) -> list[tuple[float, Callable[..., Tensor]]]:
    return [(weight, term) for weight, term in terms if weight]


def _counts(mask: Tensor, classes: int) -> Tensor:
    # [B,K]: the pixels of each class in each image.
    images = torch.arange(len(mask), device=mask.device)[:, None, None]
    shifted = images * (classes + 1) - IGNORE + mask
    return torch.bincount(shifted.flatten(), minlength=len(mask) * (classes + 1)).view(len(mask), -1)[:, 1:]


class _Loss(torch.autograd.Function):
    """The loss, whose gradient is made in the same sweep and kept at the stride until it is asked for."""

    @staticmethod
    def forward(
        ctx,
        logits: Tensor,
        mask: Tensor,
        counts: Tensor,
        terms: StripTerms,
        of_images: Sequence[ImageTerm],
        align_corners: bool,
        with_gradient: bool,
    ) -> Tensor:
        dtype = working_dtype(logits)
        gradient = torch.zeros_like(logits, dtype=dtype) if with_gradient else None
        loss = logits.new_zeros((), dtype=dtype)
        # Autocast would take the products below in half precision.
        with torch.autocast(logits.device.type, enabled=False):
            if bool(counts.any()):
                loss = strip_loss(logits, mask, counts, terms, align_corners, gradient)
                loss = loss + image_loss(logits, mask, counts, of_images, align_corners, gradient)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "segmentation_loss has no second derivative. Call it without create_graph=True, or take the loss of "
                "model(image), whose logits are at full size, with torch's own functions."
            )
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_outputs[0]).to(ctx.dtype), None, None, None, None, None, None
