"""When oneDNN's operators, which torch is built with, can take the place of torch's own.

They have no gradient, know no other device and no tracing; everywhere else the plain functions are called.
"""

import torch
from torch import Tensor


def onednn_knows(values: Tensor, weight: Tensor) -> bool:
    """Return True if oneDNN's operators give what the plain function would, for these values and weights."""
    with_gradient = torch.is_grad_enabled() and (values.requires_grad or weight.requires_grad)
    return not with_gradient and onednn_fits(values, weight)


def onednn_fits(values: Tensor, weight: Tensor) -> bool:
    """Return True if they would but for the gradient."""
    return (
        values.device.type == weight.device.type == "cpu"
        and values.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not traced()
        and values.numel() > 0
    )


def traced() -> bool:
    """Return True while torch records a graph."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def parameter_state(parameter: Tensor) -> tuple[object, ...]:
    """Return what changes when a parameter does."""
    # A tensor of inference mode counts no changes, and takes none outside of it.
    return parameter.device, parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version
