"""What mapping a scene will take: time, memory and disk, after one tile was tried."""

import math
import time
from dataclasses import dataclass

import numpy as np

from pixelwise.geo.map_file import WRITTEN_PER_SECOND
from pixelwise.geo.raster import RasterInfo
from pixelwise.inference.networks import arithmetic_of
from pixelwise.inference.prefetch import read_ahead
from pixelwise.inference.tiling import AHEAD, ReadTile, Tiling, read_tile
from pixelwise.mapping.capacity import WASTE, peak_memory, piece_bytes, threads
from pixelwise.mapping.options import MapOptions
from pixelwise.mapping.pieces import wanted_tiles
from pixelwise.threads import thread_count


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
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return f"{math.ceil(count / 1e6):,} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


@dataclass(frozen=True)
class _Trial:
    """Seconds that one tile takes."""

    tile: ReadTile
    reading: float
    decoding: float
    deciding: float
    """Its own share of the map, without the overlap."""


def _tried(tiling: Tiling, *, confidence: bool) -> _Trial:
    plan, middle = tiling.plan, tiling.plan.rows[len(tiling.plan.rows) // 2]
    started = time.monotonic()
    tile = read_tile(tiling.reader, middle[len(middle) // 2], tiling.card)
    reading = time.monotonic() - started
    batches = [np.stack([tile.image] * tiling.batch)] * tiling.streams

    ops = arithmetic_of(tiling.model)
    taken = ops.taken

    def decode() -> list[np.ndarray]:
        return list(read_ahead(lambda batch: taken(tiling.logits(batch)), batches, len(batches), threads=len(batches)))

    with threads(thread_count() // tiling.streams):
        # The first time memory is asked for and kernels are chosen.
        decode()
        started = time.monotonic()
        logits, *_ = decode()
        decoding = (time.monotonic() - started) / (tiling.batch * tiling.streams)
        started = time.monotonic()
        logits = ops.placed(tiling.model, logits[:1])
        size = (tile.window.height, tile.window.width)
        # A GPU has decided when its answer is here.
        ops.taken(ops.argmax_upsampled(logits[:1], size, confidence=confidence)[0])
    own = ((plan.tile - plan.overlap) / plan.tile) ** 2
    return _Trial(tile, reading, decoding, own * (time.monotonic() - started))


def forecast(tiling: Tiling, options: MapOptions, *, cache: int) -> Forecast:
    """Try one tile, and tell what the scene will take.

    Args:
        cache: bytes that GDAL may keep.
    """
    plan, info, classes = tiling.plan, tiling.reader.info, len(tiling.card.classes)
    trial = _tried(tiling, confidence=options.confidence)
    tiles = sum(len(wanted_tiles(tiling, row)) for row in plan.rows)
    pixels, (down, across) = info.height * info.width, plan.cells.shape
    # Bytes of a pixel.
    label, share, shares = 1 if classes <= 255 else 2, int(options.confidence), classes * options.probabilities
    written = (label + share + shares) * pixels
    cells = 4 * classes * down * across if options.probabilities else 0
    carry = 4 * classes * (plan.overlap // plan.stride + 2) * across
    ahead = 2 * max(AHEAD, 2 * tiling.batch) * (trial.tile.values.nbytes + trial.tile.valid.nbytes)
    output = written * 4 // 3
    memory = peak_memory() + int(WASTE * piece_bytes(plan, classes, cells=options.probabilities))
    return Forecast(
        tile=plan.tile,
        overlap=plan.overlap,
        batch=tiling.batch,
        streams=tiling.streams,
        tiles=tiles,
        strips=len(plan.rows),
        seconds=tiles * max(trial.decoding + trial.deciding, trial.reading) + written / WRITTEN_PER_SECOND,
        memory_bytes=memory + ahead + min(cache, _raw_bytes(info) + output),
        output_bytes=output,
        journal_bytes=pixels * (label + share) + pixels * label * 4 // 3 + cells + 2 * carry,
    )


def _raw_bytes(info: RasterInfo) -> int:
    return info.height * info.width * info.count * np.dtype(info.dtype).itemsize
