"""The loss of all that a network gives in training: its logits and those of its auxiliary heads."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.loss_config import LossConfig
from pixelwise.losses.masks import mask_loss
from pixelwise.losses.segmentation import segmentation_loss
from pixelwise.models.segmenter import Decoded
from pixelwise.processes import mean_count


def total_loss(
    decoded: Decoded,
    mask: Int[Tensor, "B H W"],
    losses: LossConfig = LossConfig(),
    *,
    aux_weights: Mapping[str, float],
    aux_losses: LossConfig | None = None,
    class_weights: Float[Tensor, " K"] | None = None,
    align_corners: bool = False,
) -> Float[Tensor, ""]:
    """Return the loss of a network's logits plus that of each auxiliary output, times its weight.

    Auxiliary logits [B,K,h,w] may have any stride. An auxiliary output [B,2] says of each image whether any of its
    valid pixels has another class than the first, and gets the cross-entropy of that. A network that answers with masks
    has the loss of these alone (`mask_loss`), and ``losses`` does not count.

    Args:
        decoded: as `Segmenter.decode` gives it.
        mask: class indices and `IGNORE`, of the size that the logits stand for (`Segmenter.padded_size`).
        losses: of the logits.
        aux_weights: name of an auxiliary output -> its weight. One that is not named here does not count.
        aux_losses: of auxiliary logits; default: ``losses``.
        class_weights: of both, as in `segmentation_loss`.
        align_corners: how all logits are upsampled.

    Raises:
        ValueError: a mask value that is neither a class nor `IGNORE`.
    """
    if decoded.answers:
        return mask_loss(decoded.answers, mask, class_weights=class_weights)
    loss_of = partial(segmentation_loss, mask=mask, class_weights=class_weights, align_corners=align_corners)
    total = loss_of(decoded.logits, losses=losses)
    for name, output in decoded.aux.items():
        weight = aux_weights.get(name, 0.0)
        if weight == 0:
            continue
        own = _presence_loss(output, mask) if output.ndim == 2 else loss_of(output, losses=aux_losses or losses)
        total = total + weight * own
    return total


def _presence_loss(logits: Tensor, mask: Tensor) -> Tensor:
    # UNet 3+'s classification-guided module (section 2.3): is there an organ at all?
    holds = (mask > 0).flatten(1).any(dim=1).long()
    known = (mask != IGNORE).flatten(1).any(dim=1)
    target = torch.where(known, holds, IGNORE)
    loss = F.cross_entropy(torch.where(known[:, None], logits.float(), 0), target, ignore_index=IGNORE, reduction="sum")
    return loss / mean_count(known.sum())
