"""A linear layer for inference on a CPU, whose weights lie in memory as oneDNN reads them.

torch keeps weights in rows, and has a general library multiply. oneDNN, which torch is built with, is faster over
weights that were ordered once. Its operator has no gradient, knows no other device and no tracing; everywhere else the
plain function is called.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


class PackedLinear(nn.Module):
    """A linear layer for inference. Its weights are ordered at the first call, in place of those in rows.

    A copy, a saved state, and what is moved to another device or type have them in rows again. What was used must be
    copied (`copy.deepcopy`) to be exported.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the parameters of a linear layer, the tensors themselves."""
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, tokens: Float[Tensor, "... C"]) -> Float[Tensor, "... D"]:
        """Return the linear map of tokens."""
        if not self._known_to_onednn(tokens):
            self.order_by_rows()
            return F.linear(tokens, self.weight, self.bias)
        if not self.weight.is_mkldnn:
            self.weight = nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(self.weight.detach()), False)
        return torch.ops.mkldnn._linear_pointwise(tokens, self.weight, self.bias, "none", [], "")

    def order_by_rows(self) -> None:
        """Order the weights as every other function of torch knows them."""
        if self.weight.is_mkldnn:
            self.weight = nn.Parameter(self.weight.to_dense(), False)

    def _known_to_onednn(self, tokens: Tensor) -> bool:
        return (
            tokens.device.type == self.weight.device.type == "cpu"
            and tokens.dtype == self.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
            and not (torch.is_grad_enabled() and (tokens.requires_grad or self.weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
            and not (torch._C._get_tracing_state() or torch.compiler.is_compiling() or is_in_torch_dispatch_mode())
            and tokens.numel() > 0
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        self.order_by_rows()
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        self.order_by_rows()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def __getstate__(self) -> dict[str, object]:
        # Weights in oneDNN's order can be neither copied nor pickled.
        self.order_by_rows()
        return self.__dict__
