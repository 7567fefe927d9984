"""Memory of a training step: what waits for the backward pass."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


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
