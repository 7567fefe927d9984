"""The Lovász-softmax loss: a surrogate of the Jaccard index that is exact on hard predictions.

Berman, Rannen Triki, Blaschko: The Lovász-Softmax loss, 2018 (arXiv 1705.08790). Equations below are of that paper.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pixelwise.labels import IGNORE


def lovasz_softmax(logits: Float[Tensor, "K H W"], mask: Int[Tensor, "H W"]) -> Float[Tensor, ""]:
    """Return the mean, over the classes that an image holds, of the Lovász extension of the Jaccard loss (eq. 11, 12).

    If all probabilities are 0 or 1, it is the mean of 1 minus the Jaccard index.
    """
    valid = mask != IGNORE
    probability, target = logits[:, valid].softmax(dim=0), mask[valid]
    losses = []
    for k in target.unique().tolist():
        own = target == k
        errors, order = (own.to(probability.dtype) - probability[k]).abs().sort(descending=True)
        losses.append(errors @ jaccard_steps(own[order]).to(errors.dtype))
    return torch.stack(losses).mean()


def jaccard_steps(own: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return by how much the Jaccard loss grows with each pixel that becomes wrong (eq. 9).

    Args:
        own: whether each pixel is of the class, in the order in which they become wrong.
    """
    # With the first i pixels wrong, the intersection is the right pixels of the class. The union is all pixels of the
    # class and the wrong ones outside of it. Both are counted in integers, which are exact.
    missed = own.long().cumsum(dim=0)
    union = missed[-1] + (~own).long().cumsum(dim=0)
    loss = 1 - (missed[-1] - missed).double() / union
    return torch.cat([loss[:1], loss[1:] - loss[:-1]])
