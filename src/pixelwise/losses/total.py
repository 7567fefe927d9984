"""The loss of all that a network gives in training: its logits and those of its auxiliary heads."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.losses.segmentation import segmentation_loss
from pixelwise.models.segmenter import Decoded


def total_loss(
    decoded: Decoded,
    mask: Int[Tensor, "B H W"],
    *,
    aux_weights: Mapping[str, float],
    align_corners: bool = False,
    loss: Callable[..., Tensor] = segmentation_loss,
    aux_loss: Callable[..., Tensor] | None = None,
) -> Float[Tensor, ""]:
    """Return the loss of a network's logits plus that of each auxiliary output, times its weight.

    Auxiliary logits [B,K,h,w] may have any stride. An auxiliary output [B,2] says of each image whether any of its
    valid pixels has another class than the first, and gets the cross-entropy of that.

    Args:
        decoded: as `Segmenter.decode` gives it.
        mask: class indices and `IGNORE`, of the size that the logits stand for (`Segmenter.padded_size`).
        aux_weights: name of an auxiliary output -> its weight. One that is not named here does not count.
        align_corners: how all logits are upsampled.
        loss: called with logits, mask and ``align_corners``; `segmentation_loss`, or a partial of it.
        aux_loss: the same for auxiliary logits; none: ``loss``.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`.
    """
    total = loss(decoded.logits, mask, align_corners=align_corners)
    for name, output in decoded.aux.items():
        weight = aux_weights.get(name, 0.0)
        if weight == 0:
            continue
        if output.ndim == 2:
            total = total + weight * _presence_loss(output, mask)
        else:
            total = total + weight * (aux_loss or loss)(output, mask, align_corners=align_corners)
    return total


def _presence_loss(logits: Tensor, mask: Tensor) -> Tensor:
    # UNet 3+'s classification-guided module (section 2.3): is there an organ at all?
    holds = (mask > 0).flatten(1).any(dim=1).long()
    known = (mask != IGNORE).flatten(1).any(dim=1)
    target = torch.where(known, holds, IGNORE)
    loss = F.cross_entropy(torch.where(known[:, None], logits.float(), 0), target, ignore_index=IGNORE, reduction="sum")
    return loss / known.sum().clamp(min=1)
