"""Linear layers that train on a CPU: the same products, by oneDNN where it is faster than torch's general library."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pixelwise.fast.onednn import linear_operators

LARGE = 1 << 25
"""Multiplications from which on oneDNN's gain exceeds what a function in Python costs, about 0.1 ms."""


class TrainedLinear(nn.Linear):
    """A linear layer whose large products in training are oneDNN's."""

    def forward(self, input: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        """Return the linear map of tokens."""
        if self.training and torch.is_grad_enabled() and input.numel() * len(self.weight) >= LARGE:
            with torch.no_grad():
                operators = linear_operators(input, self.weight)
            if operators is not None:
                return _Linear.apply(input, self.weight, self.bias, operators.apply)
        return super().forward(input)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, weight: Tensor, bias: Tensor | None, apply: Callable[..., Tensor]) -> Tensor:
        ctx.save_for_backward(tokens, weight)
        ctx.product = apply
        return apply(tokens, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable  # has no types
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        tokens, weight = ctx.saved_tensors
        (gradient,) = grad_outputs
        for_tokens, for_weight, for_bias, _ = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            ctx.product(gradient, weight.T, None, "none", [], "") if for_tokens else None,
            rows.T @ tokens.flatten(0, -2) if for_weight else None,
            rows.sum(dim=0) if for_bias else None,
            None,
        )


def train_faster(model: nn.Module) -> None:
    """Let the linear layers of a network multiply by oneDNN while it trains on a CPU, in place.

    Parameters, their names and the function stay, to rounding. On other devices, in half precision and under
    ``torch.compile`` torch's own product is taken.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = TrainedLinear
