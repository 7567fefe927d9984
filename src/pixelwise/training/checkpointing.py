"""Memory of a training step: keep less for the backward pass, and say what would fit."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from pixelwise.hub.catalog import step_bytes
from pixelwise.models import Segmenter
from pixelwise.models.cost import cost

SHARE = 0.8
"""A step may take at most this share of the memory that was free."""


def recompute_blocks(encoder: nn.Module) -> int:
    """Let each block of an encoder keep only its input, and compute its inner maps again in the backward pass.

    Gradients, running statistics and random draws stay the same. The blocks are those of `blocks_of`.

    Returns:
        the number of blocks.
    """
    blocks = blocks_of(encoder)
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=partial(_recomputing, block))
    return len(blocks)


def blocks_of(encoder: nn.Module) -> list[nn.Module]:
    """Return the members of an encoder's outermost `nn.Sequential`s, else of its outermost `nn.ModuleList`s."""
    return _blocks(encoder, nn.Sequential) or _blocks(encoder, nn.ModuleList)


def _blocks(module: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    found = []
    for child in module.children():
        if isinstance(child, kind):
            found += [block for block in child.children() if any(True for _ in block.parameters())]
        else:
            found += _blocks(child, kind)
    return found


def _recomputing(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), still_statistics(block)


@contextmanager
def still_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch norms leave their running statistics alone, where a batch goes through them a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def training_bytes(model: Segmenter, batch: int, crop: int) -> int:
    """Estimate the memory of a training step: weights, gradients, two moments, the EMA, and all maps."""
    spent = cost(model, size=(crop, crop))
    return step_bytes(spent.parameters, spent.activation_bytes, batch)


def smaller_step(model: Segmenter, batch: int, crop: int, room: int | None) -> str:
    """Say how much memory a step takes that did not fit, and which one would fit.

    Args:
        room: bytes that were free before training; None: unknown.
    """
    fits, side = batch, crop
    while (fits, side) == (batch, crop) or (room is not None and training_bytes(model, fits, side) > SHARE * room):
        if fits > 1:
            fits //= 2
        elif side >= 128:
            side = side // 64 * 32
        else:
            break
    smaller = f"[train].batch_size = {fits}" + (f" and [train].crop_size = {side}" if side < crop else "")
    free = "" if room is None else f"; {room / 1e9:.1f} GB were free before"
    return (
        f"There is not enough memory to train: a step of [train].batch_size = {batch} crops of [train].crop_size = "
        f"{crop} pixels takes about {training_bytes(model, batch, crop) / 1e9:.1f} GB{free}. Try {smaller}, for which "
        f"about {training_bytes(model, fits, side) / 1e9:.1f} GB are enough. [train].activation_checkpointing = true "
        "saves memory too, and [train].accumulate takes the same step in parts."
    )
