"""How far a network's logits are from a teacher's."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pixelwise.processes import mean_count


def distillation_loss(
    logits: Float[Tensor, "B K h w"],
    teacher: Float[Tensor, "B K h w"],
    counted: Bool[Tensor, "B h w"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the Kullback-Leibler divergence of the softened probabilities from the teacher's, mean of the cells.

    It is times the square of the temperature, so that its gradient does not shrink with it (Hinton, Vinyals and Dean,
    Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531, section 2). 0 where no cell counts.

    Args:
        logits, teacher: at the same stride.
        counted: cells that count.
        temperature: divides both logits; high makes probabilities soft.
    """
    # Autocast would take logarithms in half precision.
    with torch.autocast(logits.device.type, enabled=False):
        wide = torch.promote_types(logits.dtype, torch.float32)
        own, wanted = (F.log_softmax(each.to(wide) / temperature, dim=1) for each in (logits, teacher))
        divergence = (wanted.exp() * (wanted - own)).sum(dim=1)
        return temperature**2 * torch.where(counted, divergence, 0).sum() / mean_count(counted.sum())
