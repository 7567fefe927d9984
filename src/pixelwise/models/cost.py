"""What one image costs: parameters, operations, memory and traffic."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.models.segmenter import Segmenter


@dataclass(frozen=True)
class Cost:
    """Of one image of a given size, as the network really computes it, in evaluation mode and in its own type.

    SegFormer's decoder is rearranged here (see `AllMLPDecoder`), so its count lies below that of the published graph:
    for B0 at 512x512 and 150 classes 16.8 GFLOP are published.
    """

    parameters: int
    flops: int
    """Floating-point operations of matrix products, convolutions and attention; one multiply-add counts as two."""
    activation_bytes: int
    """Sum of all tensors that functions of torch newly make, attention being one function; views and changes in place
    make none. It is about what training without checkpointing keeps, and an upper bound of what inference holds."""
    traffic_bytes: int
    """Sum of the inputs, parameters and outputs of all functions that make or change a tensor: what is moved if
    nothing stays in cache."""


def cost(model: Segmenter, *, size: tuple[int, int] = (512, 512)) -> Cost:
    """Count the cost of `Segmenter.decode` for one image; nothing is computed if the model is on the meta device.

    Args:
        size: height and width of the image.
    """
    measured = _measured(model, size, lambda counters: None)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, *measured)


def layer_costs(model: Segmenter, *, size: tuple[int, int] = (512, 512)) -> dict[str, Cost]:
    """Return the cost of each module by its name, in the order of their first use; each counts what it does itself.

    A module's own parameters and operations count, not those of the modules inside it, so the rows add up to `cost`.
    Modules without any cost are left out.
    """
    rows: dict[str, list[int]] = {}
    stack, seen, handles = [""], [0, 0, 0], []

    def attribute(counters: Callable[[], list[int]]) -> None:
        now = counters()
        row = rows.setdefault(stack[-1], [0, 0, 0])
        for i in range(3):
            row[i] += now[i] - seen[i]
            seen[i] = now[i]

    def watch(counters: Callable[[], list[int]]) -> None:
        for name, module in model.named_modules():

            def enter(module: nn.Module, inputs: object, name: str = name) -> None:
                attribute(counters)
                stack.append(name)

            def leave(module: nn.Module, inputs: object, output: object) -> None:
                attribute(counters)
                stack.pop()

            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))

    try:
        _measured(model, size, watch)
    finally:
        for handle in handles:
            handle.remove()
    own = {name: sum(p.numel() for p in module.parameters(recurse=False)) for name, module in model.named_modules()}
    for name, count in own.items():
        if count:
            rows.setdefault(name, [0, 0, 0])
    return {name or "(network)": Cost(own[name], *row) for name, row in rows.items() if own[name] or any(row)}


def _measured(
    model: Segmenter, size: tuple[int, int], watch: Callable[[Callable[[], list[int]]], None]
) -> tuple[int, int, int]:
    """Decode one image and return FLOPs, bytes made and bytes moved; ``watch`` gets a reader of these first."""
    training = model.training
    parameter = next(model.parameters())
    image = torch.zeros(1, model.architecture.bands, *size, device=parameter.device, dtype=parameter.dtype)
    try:
        # The counter knows the plain form of attention on every device, the fused ones only on some.
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as operations,
            _Memory() as memory,
        ):
            watch(lambda: [int(operations.get_total_flops()), memory.made, memory.moved])
            model.eval().decode(image)
    finally:
        model.train(training)
    return int(operations.get_total_flops()), memory.made, memory.moved


class _Memory(TorchFunctionMode):
    """Counts the bytes that functions make and move; what a function calls inside itself is not counted again."""

    made = 0
    moved = 0

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> object:
        inputs = _tensors([*args, *(kwargs or {}).values()])
        versions = [tensor._version for tensor in inputs]
        output = func(*args, **(kwargs or {}))
        roots = [_root(tensor) for tensor in inputs]
        new = [tensor for tensor in _tensors([output]) if not any(_root(tensor) is root for root in roots)]
        changed = [tensor for tensor, version in zip(inputs, versions, strict=True) if tensor._version != version]
        self.made += _bytes(new)
        if new or changed:
            self.moved += _bytes([*inputs, *new, *changed])
        return output


def _root(tensor: Tensor) -> Tensor:
    return tensor if tensor._base is None else tensor._base


def _tensors(values: Iterable[object]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value))
    return found


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
