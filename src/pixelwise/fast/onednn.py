"""oneDNN's operators, which torch is built with, and when they can take the place of torch's own functions.

They are private: a torch may lack one, call it otherwise or change what it answers. So each kind is tried once on small
cases, and the plain functions do the work where one is missing or an answer differs. The operators have no gradient,
know no other device and no tracing, and stand still while ``torch.backends.mkldnn.enabled`` is False.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERANCE = 1e-4
"""Of a small case, absolute; its values lie around 1, and rounding around 1e-6."""


class LinearOperators(NamedTuple):
    """What a linear layer asks of oneDNN."""

    order: Callable[..., Any]
    """Puts a weight in the order in which it is read."""
    apply: Callable[..., Any]


class ConvolutionOperators(NamedTuple):
    """What a convolution asks of oneDNN."""

    order: Callable[..., Any]
    apply: Callable[..., Any]
    """Convolves, and takes an activation in."""
    add: Callable[..., Any]
    """The same with a sum before the activation."""
    add_in_place: Callable[..., Any]


def linear_operators(values: Tensor, weight: Tensor) -> LinearOperators | None:
    """Return oneDNN's operators if they give what F.linear does for these values and weights, else None."""
    if not _takes(values, weight):
        return None
    try:
        found = LinearOperators(torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise)
    except (AttributeError, RuntimeError):
        return None
    return found if _linear_is_right(found) else None


def convolution_operators(values: Tensor, weight: Tensor) -> ConvolutionOperators | None:
    """Return oneDNN's operators if they give what F.conv2d does for these values and weights, else None."""
    if not _takes(values, weight):
        return None
    try:
        found = ConvolutionOperators(
            torch._C._nn.mkldnn_reorder_conv2d_weight,  # pyright: ignore[reportAttributeAccessIssue]
            torch.ops.mkldnn._convolution_pointwise,
            torch.ops.mkldnn._convolution_pointwise.binary,
            torch.ops.mkldnn._convolution_pointwise_.binary,
        )
    except (AttributeError, RuntimeError):
        return None
    return found if _convolution_is_right(found) else None


def traced() -> bool:
    """Return True while torch records a graph."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def _takes(values: Tensor, weight: Tensor) -> bool:
    """Return True if oneDNN's operators take such values and weights, here and now."""
    return (
        not traced()
        and values.device.type == weight.device.type == "cpu"
        and values.dtype == weight.dtype == torch.float32
        and not (torch.is_grad_enabled() and (values.requires_grad or weight.requires_grad))
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and values.numel() > 0
    )


# Cached by the operators themselves, so that one which is replaced is tried too.
@cache
def _linear_is_right(operators: LinearOperators) -> bool:
    def small_cases() -> list[tuple[Tensor, Tensor]]:
        tokens, weight, bias = _numbers(2, 5, 16), _numbers(8, 16), _numbers(8)
        ordered = operators.order(weight)
        return [
            (operators.apply(tokens, ordered, each, "none", [], ""), F.linear(tokens, weight, each))
            for each in (None, bias)
        ]

    return _agree(small_cases)


@cache
def _convolution_is_right(operators: ConvolutionOperators) -> bool:
    def small_cases() -> list[tuple[Tensor, Tensor]]:
        image = _numbers(1, 16, 6, 5).contiguous(memory_format=torch.channels_last)
        beside = _numbers(1, 16, 6, 5).contiguous(memory_format=torch.channels_last)
        weight, depthwise, bias = _numbers(16, 16, 3, 3) / 12, _numbers(16, 1, 3, 3), _numbers(16)
        cases = []
        for kernel, groups in ((weight, 1), (depthwise, 16)):
            same = ((1, 1), (1, 1), (1, 1), groups)
            ordered = operators.order(kernel.to_mkldnn(), *same, tuple(image.shape))
            settings, plain = (ordered, bias, *same), F.conv2d(image, kernel, bias, 1, 1, 1, groups)
            cases += [
                (operators.apply(image, *settings, "none", [], ""), plain),
                (operators.apply(image, *settings, "relu", [], ""), F.relu(plain)),
                (operators.apply(image, *settings, "hardtanh", [0.0, 6.0], ""), F.relu6(plain)),
                (operators.apply(image, *settings, "gelu", [], "none"), F.gelu(plain)),
                (operators.add(image, beside, *settings, "add", 1.0, None, [], ""), plain + beside),
                (operators.add(image, beside, *settings, "add", 1.0, "relu", [], ""), F.relu(plain + beside)),
                (operators.add_in_place(beside.clone(), image, *settings, "add", 1.0, None, [], ""), plain + beside),
            ]
        return cases

    return _agree(small_cases)


@torch.inference_mode(False)
@torch.no_grad()
def _agree(small_cases: Callable[[], list[tuple[Tensor, Tensor]]]) -> bool:
    try:
        return all(torch.allclose(found, plain, rtol=0, atol=TOLERANCE) for found, plain in small_cases())
    # Whatever a foreign operator raises, the plain functions do its work.
    except Exception:
        return False


def _numbers(*shape: int) -> Tensor:
    """Return numbers between -1 and 1 without asking torch's generator, whose state is the user's."""
    count = torch.Size(shape).numel()
    return torch.arange(1, count + 1, dtype=torch.float32, device="cpu").mul(2.3).sin().view(shape)
