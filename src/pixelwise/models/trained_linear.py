"""A linear map for training on a CPU, whose products are oneDNN's where that is faster than torch's own library."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.onednn import onednn_fits, onednn_knows
from pixelwise.models.packed_linear import PackedLinear

LARGE = 1 << 25
"""Multiplications from which on oneDNN's gain exceeds what a function in Python costs, about 0.1 ms."""


def linear(tokens: Float[Tensor, "... C"], weight: Float[Tensor, "D C"], bias: Tensor | None) -> Float[Tensor, "... D"]:
    """Return F.linear with its gradients, by oneDNN where that is faster."""
    large = tokens.numel() * len(weight) >= LARGE
    if large and torch.is_grad_enabled() and onednn_fits(tokens, weight):
        return _Linear.apply(tokens, weight, bias)
    return F.linear(tokens, weight, bias)


def product(
    tokens: Float[Tensor, "... C"], weight: Float[Tensor, "D C"], bias: Tensor | None
) -> Float[Tensor, "... D"]:
    """Return F.linear, by oneDNN where no gradient is asked for."""
    if onednn_knows(tokens, weight):
        return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
    return F.linear(tokens, weight, bias)


class TrainedLinear(nn.Linear):
    """A linear layer whose products in training are oneDNN's."""

    def forward(self, input: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        """Return the linear map of tokens."""
        return linear(input, self.weight, self.bias) if self.training else super().forward(input)

    def fused(self) -> nn.Module:
        """Return the same map for inference."""
        return PackedLinear(self)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        return product(tokens, weight, bias)

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        (gradient,) = grad_outputs
        for_tokens, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            product(gradient, weight.T, None) if for_tokens else None,
            rows.T @ tokens.flatten(0, -2) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
        )
