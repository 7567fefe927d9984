"""What one image costs: parameters, operations, memory and traffic."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.models.segmenter import Segmenter


@dataclass(frozen=True)
class Cost:
    """Of one image of a given size, in evaluation mode and in the network's own type.

    What counts are the functions of torch that the network is made of, on any machine alike. A convolution that takes
    half of the products on some machine counts as the convolution that it is.

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
    """Count the cost of `Segmenter.decode` for one image, without computing it.

    Args:
        size: height and width of the image.
    """
    measured = _measured(model, size, lambda twin, counters: None)
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, *measured)


def layer_costs(model: Segmenter, *, size: tuple[int, int] = (512, 512)) -> dict[str, Cost]:
    """Return the cost of each module by its name, in the order of their first use; each counts what it does itself.

    A module's own parameters and operations count, not those of the modules inside it, so the rows add up to `cost`.
    Modules without any cost are left out.
    """
    rows: dict[str, list[int]] = {}
    stack, seen = [""], [0, 0, 0]

    def attribute(counters: Callable[[], list[int]]) -> None:
        now = counters()
        row = rows.setdefault(stack[-1], [0, 0, 0])
        for i in range(3):
            row[i] += now[i] - seen[i]
            seen[i] = now[i]

    def watch(twin: Segmenter, counters: Callable[[], list[int]]) -> None:
        for name, module in twin.named_modules():

            def enter(module: nn.Module, inputs: object, name: str = name) -> None:
                attribute(counters)
                stack.append(name)

            def leave(module: nn.Module, inputs: object, output: object) -> None:
                attribute(counters)
                stack.pop()

            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)

    _measured(model, size, watch)
    own = {name: sum(p.numel() for p in module.parameters(recurse=False)) for name, module in model.named_modules()}
    for name, count in own.items():
        if count:
            rows.setdefault(name, [0, 0, 0])
    return {name or "(network)": Cost(own[name], *row) for name, row in rows.items() if own[name] or any(row)}


def on_meta(model: Segmenter) -> Segmenter:
    """Return a copy in evaluation mode that computes nothing but shapes, whose weights take no memory."""
    without_memory = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, without_memory).to("meta").eval()


def _measured(
    model: Segmenter, size: tuple[int, int], watch: Callable[[Segmenter, Callable[[], list[int]]], None]
) -> tuple[int, int, int]:
    """Decode one image on a twin of the model and return FLOPs, bytes made and bytes moved.

    ``watch`` gets the twin and a reader of these first.
    """
    twin = on_meta(model)
    image = torch.zeros(1, model.architecture.bands, *size, device="meta", dtype=next(model.parameters()).dtype)
    # The counter knows the plain form of attention on every device, the fused ones only on some.
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as operations,
        _Memory() as memory,
    ):
        watch(twin, lambda: [int(operations.get_total_flops()), memory.made, memory.moved])
        twin.decode(image)
    return int(operations.get_total_flops()), memory.made, memory.moved


class _Memory(TorchFunctionMode):
    """Counts the bytes that functions make and move; what a function calls inside itself is not counted again."""

    made = 0
    moved = 0

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if getattr(func, "__name__", "") == "__get__":
            # A shape or a type is read, which is most of what passes here.
            return func(*args)
        inputs = _tensors([*args, *(kwargs or {}).values()])
        versions = [tensor._version for tensor in inputs]
        # A batch norm keeps the shape, which takes torch a millisecond to find out.
        output = torch.empty_like(inputs[0]) if func is F.batch_norm else func(*args, **(kwargs or {}))
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
