"""The same function, rearranged for inference."""

import copy

import torch
from torch import nn

from pixelwise.allocator import keep_freed_memory
from pixelwise.models.fused_convolution import FusedConvolution
from pixelwise.models.packed_linear import PackedLinear
from pixelwise.models.segmenter import Segmenter


@torch.inference_mode(False)
@torch.no_grad()
def fuse(model: Segmenter) -> Segmenter:
    """Return a copy for inference: every module that knows a faster equal (its ``fused()``) gives way to it.

    Plain convolutions become `FusedConvolution`, linear layers `PackedLinear`. The answers are equal to rounding. The
    copy is in evaluation mode and its parameters take no gradient; a module that stands for one with a folded norm
    refuses ``train()``. From the first call on the process keeps freed memory (`keep_freed_memory`).

    Weights that are changed in place or loaded are used from the next call on; only a change through ``.data`` is not
    seen. On a CPU a rectifier may turn a NaN of the image into 0. Ask the network it was made from for gradients by the
    image: parts of the copy work in place.
    """
    keep_freed_memory()
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if hasattr(module, "with_aux"):
            setattr(module, "with_aux", False)  # noqa: B010  type checkers see a module's attributes as tensors
    _replace_children(model)
    return model.requires_grad_(False).eval()


def _replace_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        faster = getattr(child, "fused", None)
        if callable(faster):
            setattr(module, name, faster())
            _replace_children(getattr(module, name))
        elif type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        elif type(child) is nn.Conv2d:
            setattr(module, name, FusedConvolution(child))
        else:
            _replace_children(child)
