"""What a machine can do: tiles and batches that fit its memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise import machine
from pixelwise.errors import NotEnoughMemoryError
from pixelwise.geo.raster import RasterInfo
from pixelwise.inference.networks import arithmetic_of, device_of
from pixelwise.inference.tile_grid import StripPlan, plan_strips
from pixelwise.inference.tiling import Tiling
from pixelwise.threads import set_thread_count, thread_count

BATCH = 16
"""Largest batch that is chosen without being asked for."""
STREAMS = 8
"""Most tiles that are in the network at the same time: Python starts the operations of all, one after the other."""
PIXEL_BYTES = 6144
"""What a network takes for a pixel of a tile: UNet 3+ needs the most, SegFormer-B0 a twentieth of it
(`docs/performance.md`)."""
SHARE = 0.8
"""Of the memory there is, at most this is planned for."""
WASTE = 1.3
"""What pieces take in practice, over what they hold: buffers of operations, holes between blocks of memory."""


def free_memory(device: Any = None) -> int | None:
    """Return the bytes that are free on a device of torch, or for this process on its machine; None if nobody says."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return machine.free_memory()


def piece_bytes(plan: StripPlan, classes: int, *, cells: bool = False) -> int:
    """Return the memory that pieces of a map and the sums of their tiles take, the network and the reader aside.

    Per row of tiles: 4 (classes + 1) bytes for each cell of stride x stride pixels, and 1 for each pixel. There is one
    piece in the making, with the tiles that reach beyond it; what overlaps it of up to two rows above; what it leaves
    to the pieces below and to the right, twice, since the last is still being written; and four finished pieces of
    labels and confidence, in the making, on their way to disk and in the map's files.
    """
    tall, wide = plan.rows[0][0].height, plan.rows[0][0].width
    across = min(plan.across.edges[-1] * plan.stride, plan.across.edges[1] * plan.stride + wide)
    shared = min(tall, plan.overlap + 2 * plan.stride)
    area = tall * across + 4 * shared * across + 2 * tall * wide
    finished = 4 * 8 * min(plan.height, tall) * across
    kept = 8 * classes * (tall // plan.stride) * (across // plan.stride) if cells else 0
    return 4 * (classes + 1) * area // plan.stride**2 + area + finished + kept


def fitting_tile(
    info: RasterInfo, tile: int, overlap: int, stride: int, classes: int, *, room: int | None
) -> tuple[int, int]:
    """Return a tile and its overlap, halved until a piece fits the memory; 128 pixels are the least.

    Args:
        room: bytes; None: unknown, so nothing is halved.
    """
    while room is not None and tile >= 256:
        if piece_bytes(plan_strips(info.height, info.width, tile, overlap, stride), classes) <= SHARE * room:
            break
        tile, overlap = tile // 64 * 32, overlap // 64 * 32
    return tile, overlap


def fitting_streams(tiling: Tiling, batch: int | None, *, cores: int, room: int | None) -> int:
    """Return how many batches should be in the network at the same time.

    One on a GPU. Cores do more with a tile each than with one tile together, since they never wait for each other; but
    each tile takes memory.

    Args:
        batch: what was asked for; None: single tiles.
        cores: how many there are for the network.
        room: bytes; None: unknown, so taken as enough.
    """
    if device_of(tiling.model) != "cpu":
        return 1
    rows = tiling.plan.rows
    pixels = (batch or 1) * rows[0][0].height * rows[0][0].width * max(1, *tiling.options.scales) ** 2
    fitting = STREAMS if room is None else int(SHARE * room / (PIXEL_BYTES * pixels))
    return max(1, min(STREAMS, fitting, cores, len(rows) * len(rows[0])))


def exact_batch(tiling: Tiling, most: int) -> int:
    """Return how many tiles can go through the network together: the largest batch that changes no byte.

    Libraries choose their algorithms by shape, so a tile can come out with other last digits in a batch than
    alone. Random tiles are tried both ways; from the largest size down, by halves, the first is taken whose answers are
    the same to the byte and that fits the memory. 1 always does.
    """
    window, taken = tiling.plan.rows[0][0], arithmetic_of(tiling.model).taken
    while most > 1:
        shape = (most, len(tiling.card.bands), window.height, window.width)
        images = np.random.default_rng(0).standard_normal(shape, np.float32)
        try:
            together = tiling.logits(images)
            if all(np.array_equal(taken(tiling.logits(images[i : i + 1])[0]), taken(together[i])) for i in range(most)):
                return most
        except NotEnoughMemoryError:
            arithmetic_of(tiling.model).forget()
        most //= 2
    return 1


def with_batch(tiling: Tiling, batch: int | None) -> Tiling:
    """Return a tiling with the batch that was asked for, or one that suits the device, if it changes no byte.

    A processor is as quick with single tiles.
    """
    if batch is None:
        batch = BATCH if device_of(tiling.model) == "cuda" else 1
    tiles = max(len(row) for row in tiling.plan.rows)
    return replace(tiling, batch=exact_batch(tiling, min(batch, tiles)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let networks compute with this many threads for a while."""
    before = thread_count()
    set_thread_count(count)
    try:
        yield
    finally:
        set_thread_count(before)


def peak_memory() -> int:
    """Return the largest memory this process has had so far, in bytes; 0 where the system does not say."""
    try:
        lines: Sequence[str] = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
