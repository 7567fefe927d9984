"""A linear layer for inference on a CPU, whose weights lie in memory as oneDNN reads them.

torch keeps weights in rows, and has a general library multiply. oneDNN, which torch is built with, is faster over
weights that were ordered once.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.onednn import onednn_knows, parameter_state


class PackedLinear(nn.Module):
    """A linear layer for inference. Ordered weights, made at the first call, lie beside the parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the parameters of a linear layer, the tensors themselves."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.ordered: Tensor | None = None
        self.ordered_from: tuple[object, ...] | None = None

    def forward(self, tokens: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        """Return the linear map of tokens."""
        if not onednn_knows(tokens, self.weight):
            return F.linear(tokens, self.weight, self.bias)
        state = parameter_state(self.weight)
        if self.ordered is None or self.ordered_from != state:
            self.ordered = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
            self.ordered_from = state
        return torch.ops.mkldnn._linear_pointwise(tokens, self.ordered, self.bias, "none", [], "")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        # A weight that is cast and cast back may lie where it lay, and count as few changes.
        self.ordered = self.ordered_from = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, object]:
        # Weights in oneDNN's order can be neither copied nor pickled; they are made again from the parameter.
        return {**self.__dict__, "ordered": None, "ordered_from": None}
