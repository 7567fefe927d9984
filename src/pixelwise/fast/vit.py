"""ViT's blocks for inference."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.fast.convolution import FusedConvolution
from pixelwise.models.vit import Block


class FusedBlock(nn.Module):
    """A `Block` for inference: what follows a matrix product is done in it, and norms only shift and divide.

    Tokens are a row of pixels here, so that a linear layer is a 1x1 convolution.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, feed_forward = block.attention, block.feed_forward
        self.heads, self.channels = attention.heads, attention.out.in_features
        self.epsilons = (block.norm1.eps, block.norm2.eps)
        self.qkv = FusedConvolution(_after_norm(block.norm1, attention.qkv))
        self.out = FusedConvolution(_as_convolution(attention.out.weight, attention.out.bias))
        self.expand = FusedConvolution(_after_norm(block.norm2, feed_forward.expand), nn.GELU())
        self.project = FusedConvolution(_as_convolution(feed_forward.project.weight, feed_forward.project.bias))

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Return as many tokens."""
        triple = _tokens(self.qkv(_row(self._normed(tokens, self.epsilons[0]))))
        query, key, value = triple.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = _tokens(self.out(_row(gathered), _row(tokens)))
        inner = self.expand(_row(self._normed(tokens, self.epsilons[1])))
        return _tokens(self.project(inner, _row(tokens)))

    def _normed(self, tokens: Tensor, epsilon: float) -> Tensor:
        return F.layer_norm(tokens, (self.channels,), eps=epsilon)


def _after_norm(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Conv2d:
    """Return a linear layer that holds the factors and the shift of the norm before it."""
    return _as_convolution(linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias)


def _as_convolution(weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"]) -> nn.Conv2d:
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device="meta")
    convolution.weight, convolution.bias = nn.Parameter(weight[..., None, None]), nn.Parameter(bias)
    return convolution


def _row(tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B C 1 N"]:
    return tokens[:, None].permute(0, 3, 1, 2)


def _tokens(row: Float[Tensor, "B C 1 N"]) -> Float[Tensor, "B N C"]:
    return row.permute(0, 2, 3, 1)[:, 0]
