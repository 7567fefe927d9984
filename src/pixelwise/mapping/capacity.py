"""What a machine can do: tiles and batches that fit its memory, and how long a scene will take."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pixelwise import machine
from pixelwise.errors import NotEnoughMemoryError
from pixelwise.geo.map_file import WRITTEN_PER_SECOND
from pixelwise.geo.raster import RasterInfo
from pixelwise.inference.prefetch import read_ahead
from pixelwise.inference.tile_grid import StripPlan, plan_strips
from pixelwise.inference.tiling import AHEAD, Tiling, averaged_logits, read_tile
from pixelwise.mapping.pieces import wanted_tiles
from pixelwise.upsampling import argmax_upsampled

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


@dataclass(frozen=True)
class Forecast:
    """What mapping a scene will take, at most: tiles without data cost nothing, but are known only when read."""

    tile: int
    overlap: int
    batch: int
    streams: int
    """Batches that are in the network at the same time."""
    tiles: int
    strips: int
    seconds: float
    memory_bytes: int
    """Of the process, at its peak."""
    output_bytes: int
    """Of the files before compression, smaller copies for viewers included."""
    journal_bytes: int
    """On disk while the work goes on."""

    def __str__(self) -> str:
        return (
            f"{self.tiles:,} tiles of {self.tile} pixels (overlap {self.overlap}, {self.batch * self.streams} at once) "
            f"in {self.strips:,} strips: at most {_duration(self.seconds)}, {_size(self.memory_bytes)} of memory, "
            f"{_size(self.journal_bytes)} of disk on the way, {_size(self.output_bytes)} of output before compression."
        )


def _duration(seconds: float) -> str:
    return (
        f"{math.ceil(seconds)} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else _hours(seconds)
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{math.ceil(count / 1e6):,} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a device, or this process on its machine, may still take; None where nobody says."""
    if device.type == "cuda":
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
    if next(tiling.model.parameters()).device.type != "cpu":
        return 1
    rows = tiling.plan.rows
    pixels = (batch or 1) * rows[0][0].height * rows[0][0].width * max(1, *tiling.scales) ** 2
    fitting = STREAMS if room is None else int(SHARE * room / (PIXEL_BYTES * pixels))
    return max(1, min(STREAMS, fitting, cores, len(rows) * len(rows[0])))


def exact_batch(tiling: Tiling, most: int) -> int:
    """Return how many tiles may go through the network together: the largest batch that changes no byte.

    Libraries choose their algorithms by shape, so that a tile may come out with other last digits in a batch than
    alone. Random tiles are tried both ways; from the largest size down, by halves, the first is taken whose answers are
    the same to the byte and that fits the memory. 1 always does.
    """
    window = tiling.plan.rows[0][0]
    while most > 1:
        shape = (most, len(tiling.card.bands), window.height, window.width)
        images = np.random.default_rng(0).standard_normal(shape, np.float32)
        try:
            together = _logits(tiling, images)
            if all(torch.equal(_logits(tiling, images[i : i + 1])[0], together[i]) for i in range(most)):
                return most
        except NotEnoughMemoryError:
            torch.cuda.empty_cache()
        most //= 2
    return 1


def _logits(tiling: Tiling, images: np.ndarray) -> torch.Tensor:
    return averaged_logits(
        tiling.model, images, stride=tiling.plan.stride, flips=tiling.flips, scales=tiling.scales
    ).cpu()


def with_batch(tiling: Tiling, batch: int | None) -> Tiling:
    """Return a tiling with the batch that was asked for, or one that suits the device, if it changes no byte.

    A processor is as quick with single tiles.
    """
    if batch is None:
        batch = BATCH if next(tiling.model.parameters()).device.type == "cuda" else 1
    tiles = max(len(row) for row in tiling.plan.rows)
    return replace(tiling, batch=exact_batch(tiling, min(batch, tiles)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with this many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forecast(tiling: Tiling, *, confidence: bool, probabilities: bool, cache: int) -> Forecast:
    """Try one tile, and tell what the scene will take.

    Args:
        cache: bytes that GDAL may keep.
    """
    plan, info, classes = tiling.plan, tiling.reader.info, len(tiling.card.classes)
    tiles = sum(len(wanted_tiles(tiling, row)) for row in plan.rows)
    middle = plan.rows[len(plan.rows) // 2]
    window = middle[len(middle) // 2]
    started = time.monotonic()
    tile = read_tile(tiling.reader, window, tiling.card)
    reading = time.monotonic() - started
    batches = [np.stack([tile.image] * tiling.batch)] * tiling.streams

    def decode() -> list[torch.Tensor]:
        return list(read_ahead(partial(_logits, tiling), batches, len(batches), threads=len(batches)))

    with threads(torch.get_num_threads() // tiling.streams):
        # The first time memory is asked for and kernels are chosen.
        decode()
        started = time.monotonic()
        logits, *_ = decode()
        decoding = (time.monotonic() - started) / (tiling.batch * tiling.streams)
        started = time.monotonic()
        argmax_upsampled(logits[:1], (window.height, window.width), confidence=confidence)
    step = (plan.tile - plan.overlap) / plan.tile
    deciding = (time.monotonic() - started) * step**2
    pixels = info.height * info.width
    bands = [1 if classes <= 255 else 2, *([1] if confidence else []), *([classes] if probabilities else [])]
    cells = 4 * classes * plan.down.edges[-1] * plan.across.edges[-1] if probabilities else 0
    carry = 4 * classes * (plan.overlap // plan.stride + 2) * plan.across.edges[-1]
    ahead = 2 * max(AHEAD, 2 * tiling.batch) * (tile.values.nbytes + tile.valid.nbytes)
    output = sum(bands) * pixels * 4 // 3
    memory = peak_memory() + int(WASTE * piece_bytes(plan, classes, cells=probabilities))
    return Forecast(
        tile=plan.tile,
        overlap=plan.overlap,
        batch=tiling.batch,
        streams=tiling.streams,
        tiles=tiles,
        strips=len(plan.rows),
        seconds=tiles * max(decoding + deciding, reading) + sum(bands) * pixels / WRITTEN_PER_SECOND,
        memory_bytes=memory + ahead + min(cache, _raw_bytes(info) + output),
        output_bytes=output,
        journal_bytes=pixels * sum(bands[: 1 + confidence]) + pixels * bands[0] * 4 // 3 + cells + 2 * carry,
    )


def _raw_bytes(info: RasterInfo) -> int:
    return info.height * info.width * info.count * np.dtype(info.dtype).itemsize


def peak_memory() -> int:
    """Return the largest memory this process has had so far, in bytes; 0 where the system does not say."""
    try:
        lines: Sequence[str] = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
