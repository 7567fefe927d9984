"""A step whose crops go through the network in parts, so that fewer maps wait for the backward pass.

The loss and its gradient are those of the whole batch, to rounding, whatever the loss (`docs/gpus.md`). A mean over
pixels is the sum of the parts' means, each times the part's share of the pixels. Other losses, such as Dice or OHEM,
need the logits of all crops at once. Logits at the stride are small. So for these the parts go through the network
first to get all logits; then the loss says how it changes with them, and the parts go through again to carry that back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelwise.config import TrainConfig
from pixelwise.labels import IGNORE
from pixelwise.loss_config import LOSSES
from pixelwise.models import Decoded, Segmenter
from pixelwise.models.segmenter import Masks
from pixelwise.processes import all_mean
from pixelwise.training.checkpointing import still_statistics

Decode = Callable[[Tensor], Decoded]
LossOf = Callable[[Decode, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From a network, images and masks to the loss and the logits."""
OF_PIXELS = ("cross_entropy", "focal")
"""Losses that are means over pixels, weighted by their class."""
PRESENCE = "classification"
"""UNet 3+'s auxiliary output whose loss is a mean over images."""


@dataclass(frozen=True)
class Parts:
    """How the crops of a step are cut."""

    count: int = 1
    seed: int = 0
    """Of the first part's random draws; each part has its own, the same whenever it goes through the network."""
    separable: bool = True
    """The loss is a mean over pixels (`is_separable`)."""


def is_separable(settings: TrainConfig, model: Segmenter) -> bool:
    """Return whether the loss of a batch is the sum of the losses of its parts, each times a share."""
    used = {name for name in LOSSES if getattr(settings, name)}
    used |= {settings.aux_loss} - {"same"} if model.aux_weights else set()
    distilled = settings.teacher is not None and settings.distillation > 0
    return used <= set(OF_PIXELS) and not distilled and PRESENCE not in model.aux_weights


def statistics_note(settings: TrainConfig, model: Segmenter) -> str | None:
    """Return what to know of a network whose batch norms see parts of a batch; None: it has no batch norm."""
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return None
    return (
        f"{model.architecture.name} has batch norms, which take their statistics from a part of "
        f"{settings.batch_size // settings.accumulate} crops, not from all {settings.batch_size} of a step "
        "([train].accumulate)."
    )


def backward(
    loss_of: LossOf,
    decode: Decode,
    model: nn.Module,
    image: Float[Tensor, "B C H W"],
    mask: Int[Tensor, "B H W"],
    *,
    parts: Parts = Parts(),
    scaled: Callable[[Tensor], Tensor] = lambda loss: loss,
    class_weights: Float[Tensor, " K"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "B K h w"]]:
    """Add the gradient of a batch's loss to the weights; return the loss and the logits.

    Args:
        decode: asks the network, in the precision that is wanted (`in_precision`).
        parts: as many of them as there are crops at most.
        scaled: what is differentiated in the place of the loss.
        class_weights: those of the loss.
    """
    if parts.count == 1:
        loss, logits = loss_of(decode, image, mask)
        scaled(loss).backward()
        return loss.detach(), logits.detach()
    cut = list(zip(image.tensor_split(parts.count), mask.tensor_split(parts.count), strict=True))
    if parts.separable:
        return _in_one_pass(loss_of, decode, cut, parts.seed, scaled, class_weights)
    found = []
    with torch.no_grad(), still_statistics(model):
        for number, (own, _) in enumerate(cut):
            torch.manual_seed(parts.seed + number)
            found.append(decode(own))
    leaves = [[each.detach().requires_grad_() for each in _tensors(one)] for one in found]
    joined = _with_tensors(found[0], [torch.cat(each) for each in zip(*leaves, strict=True)])
    torch.manual_seed(parts.seed)
    loss, logits = loss_of(lambda _: joined, image, mask)
    scaled(loss).backward()
    for number, ((own, _), wanted) in enumerate(zip(cut, leaves, strict=True)):
        torch.manual_seed(parts.seed + number)
        outputs = _tensors(decode(own))
        pairs = [(out, leaf.grad) for out, leaf in zip(outputs, wanted, strict=True) if leaf.grad is not None]
        torch.autograd.backward([out for out, _ in pairs], [slope for _, slope in pairs])
    return loss.detach(), logits.detach()


def in_precision(decode: Decode, half: torch.dtype | None, device: torch.device) -> Decode:
    """Return a function that asks a network as ``decode`` does, in half precision where that is safe (autocast).

    Args:
        half: None: float32.
    """
    if half is None:
        return decode

    def decode_in_half(image: Tensor) -> Decoded:
        with torch.autocast(device.type, dtype=half):
            return decode(image)

    return decode_in_half


def _in_one_pass(
    loss_of: LossOf,
    decode: Decode,
    cut: Sequence[tuple[Tensor, Tensor]],
    seed: int,
    scaled: Callable[[Tensor], Tensor],
    class_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    counted = all_mean(torch.stack([_counted(mask, class_weights) for _, mask in cut]))
    # Where no pixel of the batch counts, all losses are 0.
    shares = (counted / counted.sum().clamp(min=torch.finfo(counted.dtype).tiny)).float()
    total, logits = shares.new_zeros(()), []
    for number, (image, mask) in enumerate(cut):
        torch.manual_seed(seed + number)
        loss, own = loss_of(decode, image, mask)
        loss = loss * shares[number]
        scaled(loss).backward()
        total += loss.detach()
        logits.append(own.detach())
    return total, torch.cat(logits)


def _counted(mask: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the labelled pixels of a part, each as often as its class's weight says."""
    if class_weights is None:
        return (mask != IGNORE).sum().double()
    return F.pad(class_weights.double(), (1, 0))[(mask - IGNORE).long()].sum()


def _tensors(decoded: Decoded) -> list[Tensor]:
    """Return all that a loss reads of what a network gives."""
    return [
        decoded.logits,
        *decoded.aux.values(),
        *(each for answer in decoded.answers for each in (answer.masks, answer.classes)),
    ]


def _with_tensors(like: Decoded, tensors: Sequence[Tensor]) -> Decoded:
    """Return what `_tensors` was given, with other tensors."""
    logits, *rest = tensors
    aux, answers = dict(zip(like.aux, rest, strict=False)), rest[len(like.aux) :]
    return Decoded(logits, aux, answers=tuple(map(Masks, answers[::2], answers[1::2])))
