"""A linear layer for inference on a CPU, whose weights lie in memory as oneDNN reads them.

torch keeps weights in rows, and has a general library multiply. oneDNN, which torch is built with, is faster over
weights that were ordered once. Its operator has no gradient, knows no other device and no tracing; everywhere else the
plain function is called.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference. Ordered weights, made at the first call, lie beside the parameters."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the parameters of a linear layer, the tensors themselves."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.ordered: Tensor | None = None
        self.ordered_from: tuple[int, int] | None = None

    def forward(self, tokens: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        """Return the linear map of tokens."""
        if not self._known_to_onednn(tokens):
            return F.linear(tokens, self.weight, self.bias)
        # A tensor of inference mode counts no changes, and takes none outside of it.
        version = 0 if self.weight.is_inference() else self.weight._version
        if self.ordered is None or self.ordered_from != (self.weight.data_ptr(), version):
            self.ordered = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach())
            self.ordered_from = (self.weight.data_ptr(), version)
        return torch.ops.mkldnn._linear_pointwise(tokens, self.ordered, self.bias, "none", [], "")

    def _known_to_onednn(self, tokens: Tensor) -> bool:
        return (
            tokens.device.type == self.weight.device.type == "cpu"
            and tokens.dtype == self.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
            and not (torch.is_grad_enabled() and (tokens.requires_grad or self.weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
            and not (torch.compiler.is_compiling() or torch._C._get_tracing_state())
            and tokens.numel() > 0
        )

    def __getstate__(self) -> dict[str, object]:
        # Weights in oneDNN's order can be neither copied nor pickled; they are made again from the parameter.
        return {**self.__dict__, "ordered": None, "ordered_from": None}
