"""Convolutional input/output, the measure of memory traffic of HarDNet (Chao et al. 2019, arXiv 1909.00948, section 3).

CIO is the sum over all convolutions of the elements that they read and write, c_in h_in w_in + c_out h_out w_out; as if
nothing stayed in cache and weights cost nothing. Multiply-adds over CIO tell if a layer waits for memory: the paper
avoids layers where this ratio is small.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pixelwise.models.cost import on_meta
from pixelwise.models.segmenter import Segmenter


@dataclass(frozen=True)
class LayerTraffic:
    """One convolution."""

    name: str
    """Of the module that computes it."""
    macs: int
    """Multiply-adds."""
    cio: int
    """Elements that it reads and writes, parameters aside."""

    @property
    def macs_over_cio(self) -> float:
        """Return the multiply-adds per element (the paper's MoC)."""
        return self.macs / self.cio


def convolutional_traffic(model: Segmenter, size: tuple[int, int] = (512, 512)) -> list[LayerTraffic]:
    """Count what each convolution of `Segmenter.decode` computes and moves for one image, in order of computation.

    Plain, strided, grouped and transposed convolutions count, and linear layers, 1x1 convolutions over tokens.
    Attention does not. Nothing is computed.

    Args:
        size: height and width of the image.
    """
    counter, stack, twin = _Convolutions(), [""], on_meta(model)
    for name, module in twin.named_modules():

        def enter(module: nn.Module, inputs: object, name: str = name) -> None:
            stack.append(name)

        def leave(module: nn.Module, inputs: object, output: object) -> None:
            stack.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
    counter.owner = lambda: stack[-1]
    image = torch.zeros(1, model.architecture.bands, *size, device="meta", dtype=next(model.parameters()).dtype)
    with torch.no_grad(), counter:
        twin.decode(image)
    return counter.rows


class _Convolutions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[LayerTraffic] = []
        self.owner: Callable[[], str] = str

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> object:
        # A batch norm keeps the shape, which takes torch a millisecond to find out.
        output = torch.empty_like(args[0]) if func is F.batch_norm else func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.conv_transpose2d, F.linear):
            image, weight = args[0], args[1] if len(args) > 1 else (kwargs or {})["weight"]
            assert isinstance(output, Tensor)
            # A weight has one number per pair of places that a multiply-add joins, at each place of the smaller map.
            spread = image if func is F.conv_transpose2d else output
            macs = spread.numel() * weight[0].numel()
            self.rows.append(LayerTraffic(self.owner(), macs, image.numel() + output.numel()))
        return output
