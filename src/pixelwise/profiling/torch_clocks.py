"""Clocks for what torch computes: in each module of a network, and around each operation of a program."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.exported.torch_program import TorchProgram
from pixelwise.profiling.counters import Counted
from pixelwise.profiling.timeline import Call
from pixelwise.profiling.words import in_words


def module_calls(model: nn.Module, run: Callable[[], object]) -> Counted:
    """Return a function that runs a torch network with a clock in each module."""
    on_gpu = next(model.parameters()).is_cuda

    def now() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def counted() -> list[Call]:
        # Of each module that is at work: when it began, and the seconds of those inside it.
        calls, at_work, handles, began = list[Call](), list[list[float]](), list[Any](), now()

        def before(module: nn.Module, given: object) -> None:
            at_work.append([now(), 0.0])

        def after(name: str, kind: str, weights: int) -> Callable[[nn.Module, object, object], None]:
            def hook(module: nn.Module, given: object, answer: object) -> None:
                start, inner = at_work.pop()
                seconds = now() - start
                if at_work:
                    at_work[-1][1] += seconds
                calls.append(Call(name, kind, start - began, seconds, seconds - inner, _bytes(answer), weights))

            return hook

        for name, module in model.named_modules():
            if name:
                weights = sum(each.numel() * each.element_size() for each in module.parameters(recurse=False))
                handles.append(module.register_forward_pre_hook(before))
                handles.append(module.register_forward_hook(after(name, in_words(type(module).__name__), weights)))
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        return calls

    return counted


def program_calls(file: TorchProgram, image: np.ndarray) -> Counted:
    """Return a function that runs a program of torch.export operation by operation.

    Raises:
        ConfigError: machine code, which has no operations to look at.
    """
    if file.compiled:
        raise ConfigError(f"{file.path} is machine code, so its layers cannot be timed. Export it without --compile.")
    given = torch.from_numpy(image).to(file.on)

    def run() -> list[Call]:
        calls, began = list[Call](), time.perf_counter()

        class Timed(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                start = time.perf_counter()
                answer = super().run_node(n)
                seconds = time.perf_counter() - start
                if n.op == "call_function":
                    stack = list((n.meta.get("nn_module_stack") or {}).values())
                    size = answer.numel() * answer.element_size() if isinstance(answer, torch.Tensor) else None
                    name = stack[-1][0] if stack else ""
                    kind = in_words(str(n.target).split(".")[1] if "." in str(n.target) else n.name)
                    calls.append(Call(name or "the graph", kind, start - began, seconds, seconds, size))
                return answer

        with torch.no_grad():
            Timed(file.program).run(given)
        return calls

    return run


def _bytes(answer: object) -> int:
    if isinstance(answer, Tensor):
        return answer.numel() * answer.element_size()
    if isinstance(answer, list | tuple):
        return sum(map(_bytes, answer))
    return _bytes(answer.logits) if hasattr(answer, "logits") else 0  # pyright: ignore[reportAttributeAccessIssue]
