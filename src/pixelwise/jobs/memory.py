"""Memory of a training step: what the allocator does with freed blocks, and what waits for the backward pass."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of two parameters of glibc's mallopt (malloc.h)."""
KEPT = 2**30
LARGE_PAGE, MADV_HUGEPAGE = 2**21, 14
"""Bytes of a large page, and what asks for such (Linux's mman.h)."""


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB for the next request, instead of giving them back to the system.

    Each step asks for the same large tensors again, and fresh pages must be cleared: a third of a training step on a
    CPU (`docs/performance.md`). Elsewhere than on Linux with glibc nothing happens.

    That memory is asked for in large pages, which is a matter of a few per cent more.

    Returns:
        whether freed blocks are kept.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        system = ctypes.CDLL(None)
        kept = bool(system.mallopt(MMAP_THRESHOLD, KEPT)) and bool(system.mallopt(TRIM_THRESHOLD, 2 * KEPT - 1))
        if kept:
            _ask_for_large_pages(system)
    except (AttributeError, OSError):
        return False
    return kept


def _ask_for_large_pages(system: ctypes.CDLL) -> None:
    # A block that is never touched takes no memory; given back, it is where the next ones will lie.
    system.malloc.restype, system.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    system.madvise.argtypes, system.free.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], [ctypes.c_void_p]
    size = KEPT - 2 * LARGE_PAGE
    block = system.malloc(size)
    if block:
        first, last = -(-block // LARGE_PAGE), (block + size) // LARGE_PAGE
        system.madvise(first * LARGE_PAGE, (last - first) * LARGE_PAGE, MADV_HUGEPAGE)
        system.free(block)


def recompute_blocks(encoder: nn.Module) -> int:
    """Let each block of an encoder keep its input alone, and compute its inner maps again in the backward pass.

    Gradients, running statistics and random draws are those of the plain pass. A block is what stands in an
    `nn.Sequential` or, where there is none, in an `nn.ModuleList`; of nested ones the outermost counts.

    Returns:
        the number of blocks.
    """
    blocks = _blocks(encoder, nn.Sequential) or _blocks(encoder, nn.ModuleList)
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=partial(_recomputing, block))
    return len(blocks)


def _blocks(module: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    found = []
    for child in module.children():
        if isinstance(child, kind):
            found += [block for block in child.children() if any(True for _ in block.parameters())]
        else:
            found += _blocks(child, kind)
    return found


def _recomputing(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _still_statistics(block)


@contextmanager
def _still_statistics(block: nn.Module) -> Iterator[None]:
    # A batch norm would count the same batch twice.
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches
