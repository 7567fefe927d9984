"""A linear layer for inference on a CPU, whose weights lie in memory as oneDNN reads them.

torch keeps weights in rows, and has a general library multiply. oneDNN is faster over weights that were ordered once.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.fast.onednn import linear_operators


class PackedLinear(nn.Linear):
    """A linear layer for inference. Ordered weights, made at the first call, lie beside the parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the parameters of a linear layer, the tensors themselves."""
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.ordered: Tensor | None = None

    def forward(self, input: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        """Return the linear map of tokens."""
        operators = linear_operators(input, self.weight)
        if operators is None:
            return super().forward(input)
        # Another thread may set it at any moment.
        ordered = self.ordered
        if ordered is None:
            # A tensor of inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                ordered = self.ordered = operators.order(self.weight.detach())
        return operators.apply(input, ordered, self.bias, "none", [], "")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        self.ordered = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, object]:
        # Weights in oneDNN's order can be neither copied nor pickled; they are made again from the parameter.
        return {**self.__dict__, "ordered": None}


def linear_of(weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None) -> nn.Linear:
    """Return a linear layer that holds these tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear
