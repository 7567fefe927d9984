"""A convolution for inference that does what follows it on the way.

On a CPU torch's convolution orders its weights again at each call. A ReLU and a sum with a shortcut then each walk
through the whole result. oneDNN's operators take weights that were ordered once, and do the ReLU and the sum inside the
convolution.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.fast.onednn import ConvolutionOperators, convolution_operators, traced
from pixelwise.fast.resized_convolution import convolve_resized, pays
from pixelwise.fast.winograd import ROWS, convolve_by_rows, row_kernels
from pixelwise.models.layers import ConvNorm, joined

Derived = TypeVar("Derived")

FEWEST_CHANNELS = 64
"""From which number of inputs and outputs on it pays to convolve by rows, by measurement."""
LEAST_PRODUCTS = 1 << 25
"""Inputs times outputs times pixels from which on it pays, by measurement: six calls of torch have their price."""
KEPT = 3
"""How many things made from the weights are kept; an order is only right for maps of the size it was made for."""
MOST_ROWS = 1.25
"""How many rows may be made for each that is wanted; they are made by fours."""


class FusedConvolution(nn.Conv2d):
    """A convolution, a sum with a shortcut where there is one, and an activation.

    On a CPU in float32 the result is channels-last.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module | None = None) -> None:
        """Take over the parameters of a convolution, the tensors themselves.

        Args:
            convolution: padded with zeros, by numbers.
            activation: what follows; ReLU, ReLU6 and exact GELU cost nothing.
        """
        assert convolution.padding_mode == "zeros"
        assert not isinstance(convolution.padding, str)
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            (convolution.kernel_size[0], convolution.kernel_size[1]),
            (convolution.stride[0], convolution.stride[1]),
            (convolution.padding[0], convolution.padding[1]),
            (convolution.dilation[0], convolution.dilation[1]),
            convolution.groups,
            convolution.bias is not None,
            device="meta",
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.activation = nn.Identity() if activation is None else activation
        self.made: dict[object, Any] = {}

    def forward(
        self,
        input: Float[Tensor, "B C H W"],
        shortcut: Float[Tensor, "B D h w"] | None = None,
        *,
        overwrite: bool = False,
    ) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride], sizes rounded up.

        Args:
            overwrite: the result may take the memory of the shortcut.
        """
        operators = convolution_operators(input, self.weight)
        if operators is None:
            result = super().forward(input)
            return self.activation(result if shortcut is None else result + shortcut)
        image = input.contiguous(memory_format=torch.channels_last)
        if shortcut is not None:
            shortcut = shortcut.contiguous(memory_format=torch.channels_last)
        height, width = image.shape[2:]
        if self.rows_pay(height, width):
            return self._by_rows(operators, image, shortcut)
        ((weight, bias),) = self._in_order(operators, (height, width), by_rows=False)
        name, numbers, form = _post_operation(self.activation)
        settings = (weight, bias, self.padding, self.stride, self.dilation, self.groups)
        if shortcut is None:
            result = operators.apply(image, *settings, name, numbers, form)
        else:
            # After a sum oneDNN takes no other activation.
            name = name if name == "relu" else "none"
            after = ("add", 1.0, None if name == "none" else name, [], "")
            if overwrite:
                result = operators.add_in_place(shortcut, image, *settings, *after)
            else:
                result = operators.add(image, shortcut, *settings, *after)
        return self.activation(result) if name == "none" else result

    def over_joined(
        self, maps: Sequence[Float[Tensor, "B _ _ _"]], size: tuple[int, int], *, align_corners: bool
    ) -> Float[Tensor, "B D h w"]:
        """Return the convolution of maps that are resized to ``size`` and joined, without doing so where that pays."""
        if pays(self, maps, size):
            return convolve_resized(self, maps, size, align_corners=align_corners)
        return self(joined(maps, size, align_corners=align_corners))

    def _by_rows(self, operators: ConvolutionOperators, image: Tensor, shortcut: Tensor | None) -> Tensor:
        kernels, rate = self._in_order(operators, (1, image.shape[3]), by_rows=True), self.dilation[0]

        def convolve(kernel: int, lines: Tensor) -> Tensor:
            return operators.apply(lines, *kernels[kernel], (0, rate), (1, 1), (1, rate), 1, "none", [], "")

        def finish(strip: Tensor, number: int, top: int) -> None:
            if shortcut is not None:
                beside = shortcut[number : number + 1, :, top : top + strip.shape[2]]
                strip[:, :, : beside.shape[2]] += beside
            if isinstance(self.activation, nn.ReLU):
                strip.relu_()

        result = convolve_by_rows(image, self.out_channels, rate, convolve, finish)
        return result if isinstance(self.activation, nn.ReLU) else self.activation(result)

    def rows_pay(self, height: int, width: int) -> bool:
        """Return True if a map of this size is faster convolved by rows."""
        rate = self.dilation[0]
        computed = -(-height // (ROWS * rate)) * ROWS * rate
        return (
            self.kernel_size == (3, 3)
            and (self.stride, self.groups) == ((1, 1), 1)
            and self.padding == self.dilation == (rate, rate)
            and min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS
            and self.in_channels * self.out_channels * height * width >= LEAST_PRODUCTS
            and computed <= MOST_ROWS * height
        )

    def derived(self, key: object, make: Callable[[Tensor, Tensor | None], Derived]) -> Derived:
        """Return what is made from weight and bias, from the last time if it is still there."""
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        if traced():
            return make(weight, bias)
        # Other threads may set `made` at any moment.
        made = self.made
        if key not in made:
            # A tensor of inference mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                new = make(weight, bias)
            made = self.made = dict([*list(made.items())[1 - KEPT :], (key, new)])
        return made[key]

    def _in_order(
        self, operators: ConvolutionOperators, size: tuple[int, int], *, by_rows: bool
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return kernels as oneDNN likes them for maps of ``size``, and biases."""

        def make(weight: Tensor, bias: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
            kernels, padding, dilation = [(weight, bias)], self.padding, self.dilation
            if by_rows:
                kernels = row_kernels(weight, weight.new_zeros(len(weight)) if bias is None else bias)
                padding, dilation = (0, self.padding[1]), (1, self.dilation[1])
            settings = (padding, self.stride, dilation, self.groups, (1, self.in_channels, *size))
            return [(operators.order(kernel.contiguous().to_mkldnn(), *settings), bias) for kernel, bias in kernels]

        return self.derived((size, by_rows), make)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FusedConvolution":
        self.made = {}
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, object]:
        # Weights in oneDNN's order can be neither copied nor pickled; they are made again from the parameter.
        return {**self.__dict__, "made": {}}


def _post_operation(activation: nn.Module) -> tuple[str, list[float], str]:
    """Return oneDNN's name of an activation, its numbers and its form; "none" for one that it must not make."""
    if isinstance(activation, nn.ReLU6):
        return "hardtanh", [0.0, 6.0], ""
    if isinstance(activation, nn.ReLU):
        return "relu", [], ""
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        return "gelu", [], "none"
    return "none", [], ""


def folded_brick(brick: ConvNorm) -> FusedConvolution:
    """Return the brick with its batch norm, if it has one, folded into the convolution."""
    merged = brick.convolution if isinstance(brick.norm, nn.Identity) else folded(brick.convolution, brick.norm)
    assert isinstance(merged, nn.Conv2d)
    return FusedConvolution(merged, brick.activation)


def with_folded_norm(module: Any) -> nn.Module:
    """Fold a module's batch norm ``norm`` into the convolution ``convolution`` before it, in place."""
    if not isinstance(module.norm, nn.Identity):
        module.convolution, module.norm = folded(module.convolution, module.norm), nn.Identity()
    return module


def folded(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    """Return one convolution, plain or transposed, that equals it and the batch norm after it, in evaluation."""
    assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    scale, shift = scale_and_shift(norm)
    merged = copy.deepcopy(convolution)
    # Outputs are the first axis of a convolution's weight, and the second of a transposed one's (without groups).
    by_output = scale[:, None, None, None] if isinstance(convolution, nn.Conv2d) else scale[:, None, None]
    merged.weight = nn.Parameter(convolution.weight * by_output)
    merged.bias = nn.Parameter(shift if convolution.bias is None else shift + convolution.bias * scale)
    return merged


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return what a batch norm multiplies with and adds, in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
