"""The weighted sum of losses, and the one place that gives its gradient to autograd."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.loss_config import LossConfig
from pixelwise.losses.boundary import boundary_loss
from pixelwise.losses.dice import dice_loss, soft_iou_loss
from pixelwise.losses.lovasz import lovasz_softmax
from pixelwise.losses.ms_ssim import ms_ssim_loss
from pixelwise.losses.on_gpu import count_on_gpu, gpu_loss
from pixelwise.losses.per_image import ImageTerm, image_loss
from pixelwise.losses.pixels import bootstrapped_loss, hard_example_loss
from pixelwise.losses.rmi import binary_cross_entropy_sum, mutual_information_loss
from pixelwise.losses.streaming import StripTerms, strip_loss, working_dtype
from pixelwise.processes import agreed, all_mean, mean_count, world


def segmentation_loss(
    logits: Float[Tensor, "B K h w"],
    mask: Integer[Tensor, "B H W"],
    losses: LossConfig = LossConfig(),
    *,
    class_weights: Float[Tensor, " K"] | None = None,
    align_corners: bool = False,
) -> Float[Tensor, ""]:
    """Return a weighted sum of losses over the valid pixels of a batch.

    Cross-entropy, focal, OHEM, bootstrapped, Dice and soft IoU go strip by strip and never build [B,K,H,W]; the others
    build [K,H,W] for one image at a time. Losses of images are means over the images that have a valid pixel.
    Half-precision logits are computed with in float32, and the loss is float32; float64 stays float64.

    Args:
        logits: at the network's stride.
        mask: class indices, and `IGNORE`.
        losses: the weights of the losses, and their settings.
        class_weights: of the cross-entropy, the focal, OHEM and bootstrapped losses; default: all 1.
        align_corners: how logits are upsampled: corner pixels on corner pixels, or edges on edges.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`, or a mask too small for MS-SSIM or RMI. The first
            is not asked of a mask on a GPU, which would have to be waited for; torch itself stops there.
    """
    assert len(logits) == len(mask), f"{len(logits)} images of logits, {len(mask)} masks"
    if mask.dtype == torch.uint8:
        mask = mask.short()
    if mask.device.type != "cuda":
        # A GPU would have to be waited for; there, a wrong value stops torch itself.
        require_class_indices(mask, logits.shape[1])
    if class_weights is None:
        class_weights = torch.ones(logits.shape[1], device=logits.device)
    class_weights = class_weights.detach().to(working_dtype(logits))
    counts = _counts(mask, logits.shape[1])
    terms = _strip_terms(losses, class_weights)
    of_images = _image_terms(losses, counts)
    # Inside a Function gradients are always off, so this is asked here.
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    return _Loss.apply(logits, mask, counts.to(working_dtype(logits)), terms, of_images, align_corners, with_gradient)


def require_class_indices(mask: Integer[Tensor, "B H W"], classes: int) -> None:
    """Check that a mask holds nothing but class indices and `IGNORE`.

    Raises:
        ValueError: it holds another value.
    """
    # As numbers of Python, since a mask's type need not hold the number of classes.
    low, high = (int(each) for each in mask.aminmax())
    if low < IGNORE or high >= classes:
        raise ValueError(
            f"The mask holds values from {low} to {high}, but there are {classes} classes. "
            f"Map other values to a class or to {IGNORE} (ignored)."
        )


def _strip_terms(losses: LossConfig, class_weights: Tensor) -> StripTerms:
    """Return the losses that go strip by strip."""
    hard = partial(
        hard_example_loss,
        class_weights=class_weights,
        threshold=losses.ohem_threshold,
        keep=losses.ohem_min_kept,
    )
    worst = partial(
        bootstrapped_loss,
        class_weights=class_weights,
        threshold=losses.bootstrapped_threshold,
        keep=losses.bootstrapped_min_kept,
    )
    dice = partial(dice_loss, foreground_only=losses.foreground_only)
    soft_iou = partial(soft_iou_loss, foreground_only=losses.foreground_only)
    return StripTerms(
        losses,
        class_weights,
        of_pixels=_wanted((losses.ohem, hard), (losses.bootstrapped, worst)),
        of_sums=_wanted((losses.dice, dice), (losses.soft_iou, soft_iou)),
    )


def _image_terms(losses: LossConfig, counts: Tensor) -> list[ImageTerm]:
    """Return the losses that take an image at a time.

    Args:
        counts: [B,K], the pixels of each class in each image.
    """
    binary = losses.binary_cross_entropy
    if binary:
        # The losses of the images are averaged, but this one is a sum over the batch.
        images, pixels = mean_count(counts.any(dim=1).sum()), all_mean(counts.sum())
        binary *= float(images) / (float(pixels) + 1 / world())
    similarity = partial(ms_ssim_loss, foreground_only=losses.foreground_only, product=losses.ms_ssim_product)
    return _wanted(
        (binary, binary_cross_entropy_sum),
        (losses.lovasz, lovasz_softmax),
        (losses.ms_ssim, similarity),
        (losses.rmi, partial(mutual_information_loss, radius=losses.rmi_radius)),
        (losses.boundary, partial(boundary_loss, tolerance=losses.boundary_tolerance)),
    )


def _wanted(*terms: tuple[float, Callable[..., Tensor]]) -> list[tuple[float, Callable[..., Tensor]]]:
    return [(weight, term) for weight, term in terms if weight]


def _counts(mask: Tensor, classes: int) -> Tensor:
    # [B,K]: the pixels of each class in each image.
    if mask.device.type == "cuda":
        return count_on_gpu(mask, classes)
    images = torch.arange(len(mask), device=mask.device)[:, None, None]
    shifted = images * (classes + 1) - IGNORE + mask
    return torch.bincount(shifted.flatten(), minlength=len(mask) * (classes + 1)).view(len(mask), -1)[:, 1:]


class _Loss(torch.autograd.Function):
    """The loss. Its gradient is computed with it, and kept at the stride until autograd asks for it."""

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
        # Autocast would compute the products below in half precision.
        with torch.autocast(logits.device.type, enabled=False):
            # A GPU is asked only by losses that must know; without a labelled pixel the others are 0 anyway.
            if (logits.device.type == "cuda" and not (terms.of_pixels or of_images)) or agreed(counts.any())[0]:
                loss_of = gpu_loss(logits, terms) or strip_loss
                loss = loss_of(logits, mask, counts, terms, align_corners, gradient)
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
