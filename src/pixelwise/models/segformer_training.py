"""A part of SegFormer for training on a CPU: the same function of the same parameters, in an order that is faster."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def attention_of_one_head(
    tokens: Float[Tensor, "B h w D"],
    context: Float[Tensor, "B n D"],
    query: nn.Linear,
    key_value: nn.Linear,
    out: nn.Linear,
) -> Float[Tensor, "B h w D"]:
    """Return attention of one head: its matrices for query and output meet the keys and values, which are few."""
    key, value = key_value(context).chunk(2, dim=-1)
    key = key / math.sqrt(key.shape[-1])
    bias = (key @ query.bias)[:, None]
    scores = torch.baddbmm(bias, tokens.flatten(1, 2), (key @ query.weight).transpose(1, 2))
    # A token's shares add up to 1, so the output's bias goes through them.
    return torch.bmm(scores.softmax(dim=-1), out(value)).view_as(tokens)
