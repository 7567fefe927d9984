"""Processes that train together: which one this is, and sums and means over all of them.

`pixelwise.training.joining` joins them. In a process that is alone, or not in `working_together`, every function here
gives back what it got. All processes must call the functions that exchange something in the same order.

Each process has its share of a batch. Its loss is made so that the **mean** of the processes' losses is the loss of the
whole batch: what a loss divides by is the mean of the processes' counts (`mean_count`). Gradients are then averaged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")

_together = False


@contextmanager
def working_together() -> Iterator[None]:
    """Let the functions of this module exchange, in a block that all processes go through."""
    global _together
    before, _together = _together, True
    try:
        yield
    finally:
        _together = before


def world() -> int:
    """Return how many processes work together."""
    return dist.get_world_size() if _together else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _together else 0


def is_first() -> bool:
    """Return whether this process is the one that writes files and talks; also before and after the common work."""
    return int(os.environ.get("RANK", "0")) == 0 if not _together else rank() == 0


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _together else 0


class _Sum(torch.autograd.Function):
    """A sum over the processes; so is its gradient, since every process's loss may depend on every share."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def all_sum(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes; it can be differentiated."""
    if world() == 1:
        return tensor
    total = _Sum.apply(tensor)
    assert isinstance(total, Tensor), "apply has no type"
    return total


def all_mean(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes; it can be differentiated."""
    return tensor if world() == 1 else all_sum(tensor) / world()


def mean_count(count: Tensor) -> Tensor:
    """Return what a mean over the whole batch divides by in this process: the mean of the processes' counts.

    It is never 0: where nothing counts, it stands for one in the whole batch.
    """
    return count.clamp(min=1) if world() == 1 else all_mean(count).clamp(min=1 / world())


def agreed(*flags: bool | Tensor) -> tuple[bool, ...]:
    """Return for each flag whether it is set in any process."""
    if world() == 1:
        return tuple(map(bool, flags))
    return tuple((all_sum(torch.tensor([float(flag) for flag in flags])) > 0).tolist())


def gathered(tensor: Tensor) -> Tensor:
    """Return the tensors of all processes in their order, joined along the first axis, which may differ in length."""
    if world() == 1:
        return tensor
    lengths = [torch.zeros(1, dtype=torch.long, device=tensor.device) for _ in range(world())]
    dist.all_gather(lengths, torch.tensor([len(tensor)], device=tensor.device))
    longest = max(int(length) for length in lengths)
    padded = tensor.new_zeros(longest, *tensor.shape[1:])
    padded[: len(tensor)] = tensor.detach()
    parts = [torch.empty_like(padded) for _ in range(world())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(length)] for part, length in zip(parts, lengths, strict=True)])


def collected(value: Value) -> list[Value]:
    """Return the values of all processes in their order; they are pickled on the way."""
    if world() == 1:
        return [value]
    values: list = [None] * world()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Value) -> Value:
    """Return the value of the first process; it is pickled on the way."""
    if world() == 1:
        return value
    values: list = [value if is_first() else None]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def own_range(size: int) -> range:
    """Return the positions in a batch of ``size`` that this process takes; the number of processes divides it."""
    share = size // world()
    return range(rank() * share, (rank() + 1) * share)


def followers(own: Tensor) -> Tensor:
    """Return, for each row of a batch of which this process has a share, the next row; the first follows the last."""
    firsts = gathered(own[:1])
    following = (rank() + 1) % world()
    return torch.cat([own[1:], firsts[following : following + 1]])


def own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that FSDP shares out, in the same memory; others as they are."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def own_share(whole: Tensor) -> Tensor:
    """Return this process's part of what stands for the whole batch along the first axis."""
    return whole if world() == 1 else whole.chunk(world())[rank()]
