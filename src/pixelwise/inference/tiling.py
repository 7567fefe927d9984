"""From a raster to pieces of a label map, tile by tile, in memory that grows neither with its height nor its width.

Tiles overlap. Their logits are weighted and added at the network's stride; bilinear upsampling is linear, so it comes
once, after the blending, and only for the cells at hand. In memory is a piece of a row of tiles, and what overlaps it.

Sums are made in one order only: tiles within a row from the left, then rows from the top. So a piece has the same bytes
whoever makes it: one process from top to bottom, one that goes on where another was killed, or many machines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Integer, Shaped
from torch import Tensor

from pixelwise.errors import enough_memory
from pixelwise.geo.polygon_labels import PolygonLabels
from pixelwise.geo.raster import Readable, Window, clip_window, normalize
from pixelwise.inference.prefetch import read_ahead
from pixelwise.inference.tile_grid import GRID, Place, StripPlan, blend_weight, plan_strips
from pixelwise.labels import label_dtype
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard
from pixelwise.upsampling import argmax_upsampled, decide_cells, largest_logit, recentred, strips, upsample

AHEAD = 8
"""Tiles that are read before the network asks for them, at least two batches."""


@dataclass(frozen=True)
class ReadTile:
    """A tile as it was read, in a quarter of the memory that 8-bit bands take as the network wants them."""

    window: Window
    values: Shaped[np.ndarray, "C h w"]
    """Raw, within the raster."""
    valid: Bool[np.ndarray, "h w"]
    """Which pixels hold data, within the raster."""
    digest: bytes
    """CRC-32 of what was read."""
    outside: tuple[tuple[int, int], tuple[int, int]]
    """How many rows and columns lie beyond the raster, before and after."""
    card: ModelCard

    @property
    def image(self) -> Float32[np.ndarray, "C H W"]:
        """Normalised, and mirrored where it reaches beyond the raster; made anew each time."""
        image = normalize(self.values, self.valid, self.card.mean, self.card.std)
        beyond = any(map(any, self.outside))
        return np.pad(image, ((0, 0), *self.outside), mode="symmetric") if beyond else image


DecodedTile = tuple[ReadTile, Float[Tensor, "K h w"] | None]
"""A tile and its logits at the stride; None where no pixel holds data."""


@dataclass(frozen=True)
class Piece:
    """A finished rectangle of a label map."""

    top: int
    left: int
    labels: Integer[np.ndarray, "n m"]
    confidence: Float32[np.ndarray, "n m"] | None
    """Softmax probability of the label, 0 to 1; None where it was not asked for."""
    valid: Bool[np.ndarray, "n m"]
    """False where the raster holds no data; the label there means nothing."""
    cells: Float32[np.ndarray, "K h w"] | None = None
    """The blended logits at the stride, if asked for."""
    digest: int = 0
    """CRC-32 of all that was read for it, and not already for a piece to the left or above."""


@dataclass(frozen=True)
class TileSum:
    """Tiles of one row, weighted and added."""

    top: int
    left: int
    """First row and column of cells."""
    total: Float[Tensor, "K h w"]
    weights: Float[Tensor, "h w"]
    valid: Bool[np.ndarray, "H W"]
    """Which pixels hold data, from the first pixel of the first cell."""
    digest: int

    def part(self, top: int, left: int, right: int, stride: int) -> "TileSum":
        """Return a copy of the cells from row ``top`` on in a range of columns, so that the rest can be forgotten."""
        rows, start, end = max(0, top - self.top), left - self.left, right - self.left
        valid = self.valid[rows * stride :, start * stride : end * stride].copy()
        total, weights = self.total[:, rows:, start:end].clone(), self.weights[rows:, start:end].clone()
        return TileSum(self.top + rows, left, total, weights, valid, self.digest)


@dataclass(frozen=True)
class Tiling:
    """All that is needed to make any piece of a raster's map, on this machine or on another."""

    model: Segmenter
    reader: Readable
    card: ModelCard
    plan: StripPlan
    flips: bool = False
    scales: tuple[float, ...] = (1.0,)
    batch: int = 1
    """Tiles that go through the network together, where that changes no byte (`with_batch`)."""
    streams: int = 1
    """Batches that are in the network at the same time, each with torch's number of threads (`fitting_streams`)."""
    area: PolygonLabels | None = None
    """What is wanted of a scene: 1 inside, 0 outside; None: everything."""

    @property
    def single(self) -> bool:
        """The raster is no larger than a tile, and goes through the network at its own size."""
        return len(self.plan.rows) == len(self.plan.rows[0]) == 1

    def read(self, tiles: Iterable[Window]) -> Iterator[ReadTile]:
        """Read tiles, some before they are asked for."""
        return read_ahead(lambda tile: read_tile(self.reader, tile, self.card), tiles, max(AHEAD, 2 * self.batch))

    def decoded(self, tiles: Iterable[Window]) -> Iterator[DecodedTile]:
        """Read tiles and run the network on them, some before they are asked for."""
        read = self.read(tiles)
        batches = iter(lambda: list(islice(read, self.batch)), [])
        yield from chain.from_iterable(read_ahead(self._decode, batches, self.streams + 1, threads=self.streams))

    def _decode(self, tiles: list[ReadTile]) -> list[DecodedTile]:
        full = [tile.image for tile in tiles if tile.valid.any()]
        # A batch that is not full goes tile by tile: only full ones were proven to change no byte.
        size, logits = self.batch if len(full) == self.batch else 1, list[Tensor]()
        for start in range(0, len(full), size):
            batch = np.stack(full[start : start + size])
            found = averaged_logits(self.model, batch, stride=self.plan.stride, flips=self.flips, scales=self.scales)
            if self.model.align_corners and self.plan.stride > 1:
                found = recentred(found, batch.shape[2:])
            logits += found.cpu()
        rest = iter(logits)
        return [(tile, next(rest) if tile.valid.any() else None) for tile in tiles]

    @torch.no_grad()
    def sum_of(self, row: int, column: int, begun: TileSum | None, tiles: Iterable[DecodedTile]) -> TileSum:
        """Add tiles of a row, from the left, to what those before have in a column of pieces.

        ``begun`` is the sum of those before, from the column's `Cuts.reach` on; None: they are among the tiles.
        """
        plan, stride, (top, *_) = self.plan, self.plan.stride, self.plan.rows[row]
        height, wide, (first, last) = top.height // stride, top.width // stride, plan.across.reach(column)
        own = plan.tiles(row, column, begun=True)
        end = max([last, *(tile.left // stride + wide for tile in plan.tiles(row, column, begun=False))])
        weight = torch.from_numpy(blend_weight(height, wide, plan.overlap // stride))
        total, weights = torch.zeros(len(self.card.classes), height, end - first), torch.zeros(height, end - first)
        pixels = min(end * stride, plan.width) - first * stride
        valid, digest = np.zeros((min(top.height, plan.height - top.top), pixels), bool), 0
        if begun is not None:
            shared = begun.weights.shape[1]
            total[..., :shared], weights[:, :shared] = begun.total, begun.weights
            valid[:, : begun.valid.shape[1]] = begun.valid
        for tile, logits in tiles:
            digest = crc32(tile.digest, digest) if tile.window in own else digest
            left = tile.window.left - first * stride
            valid[:, max(0, left) : left + tile.window.width] |= tile.valid[:, max(0, -left) :]
            if logits is not None:
                # What lies to the left of the piece is not its own.
                left //= stride
                columns, inside = slice(max(0, left), left + wide), slice(max(0, -left), None)
                total[..., columns] += (logits * weight)[..., inside]
                weights[:, columns] += weight[:, inside]
        return TileSum(top.top // stride, first, total, weights, valid, digest)

    def below(self, place: Place, sums: Mapping[int, TileSum]) -> dict[int, TileSum]:
        """Return what the piece below needs of the sums of a piece."""
        (row, column), plan = place, self.plan
        if row + 1 == len(plan.down):
            return {}
        top, reach = plan.down.reach(row + 1)[0], plan.across.reach(column)
        return {each: sums[each].part(top, *reach, plan.stride) for each in plan.needed(row + 1) if each <= row}

    def finish(
        self, place: Place, sums: Mapping[int, TileSum], *, confidence: bool = False, cells: bool = False
    ) -> Piece:
        """Blend the rows of tiles that a piece needs (`StripPlan.needed`), upsample and decide.

        Where no tile held data the sum is 0, and the label there means nothing.
        """
        (row, column), plan, stride = place, self.plan, self.plan.stride
        (first, last), (top, bottom) = plan.down.cells(row), plan.down.pixels(row)
        (start, end), (left, right) = plan.across.reach(column), plan.across.pixels(column)
        needed = [sums[each] for each in plan.needed(row)]
        valid = np.zeros((bottom - top, right - left), bool)
        for part in needed:
            begin, columns = part.top * stride, slice(left - start * stride, right - start * stride)
            own = part.valid[max(0, top - begin) : max(0, bottom - begin), columns]
            valid[max(0, begin - top) :][: len(own)] |= own
        classes, wide = len(self.card.classes), plan.across.edges[column + 1] - plan.across.edges[column]
        labels = np.zeros(valid.shape, label_dtype(classes))
        sure = np.zeros(valid.shape, np.float32) if confidence else None
        kept = np.zeros((classes, last - first, wide), np.float32) if cells else None
        rim = int(column == 0), int(column + 1 == len(plan.across))
        for upper, lower in strips(torch.Size((1, classes)), (last - first, wide)):
            upper, lower = upper + first, lower + first
            blended = _blended(needed, max(0, upper - 1), min(lower + 1, plan.down.edges[-1]), end - start)
            # At the rim the outermost cell stands for the one beyond.
            padded = F.pad(blended, (*rim, int(upper == 0), int(lower == plan.down.edges[-1])), mode="replicate")
            decided, probability = decide_cells(padded, stride, confidence=confidence)
            # The last tiles reach beyond the raster.
            rows = slice(upper * stride - top, min(lower * stride, bottom) - top)
            if rows.start < rows.stop:
                labels[rows] = decided[0, : rows.stop - rows.start, : right - left].numpy()
                if sure is not None and probability is not None:
                    sure[rows] = probability[0, : rows.stop - rows.start, : right - left].numpy()
            if kept is not None:
                kept[:, upper - first : lower - first] = padded[0, :, 1:-1, 1:-1].numpy()
        return Piece(top, left, labels, sure, valid, kept, sums[row].digest)

    def whole(self, *, confidence: bool = False, cells: bool = False) -> Piece:
        """Predict a `single` raster in one piece: its labels are those of `Segmenter.label_map`.

        Its cells, if asked for, are pixels: the image is small, and padding may have given it odd strides.
        """
        model, aligned, plan = self.model, self.model.align_corners, self.plan
        height, width = plan.height, plan.width
        tile = read_tile(self.reader, Window(0, 0, max(GRID, height), max(GRID, width)), self.card)
        image = tile.image
        rows, columns = model.padded_size(image.shape[1:])
        image = np.pad(image, ((0, 0), (0, rows - image.shape[1]), (0, columns - image.shape[2])))
        logits = averaged_logits(model, image[None], stride=plan.stride, flips=self.flips, scales=self.scales).cpu()
        labels, probability = argmax_upsampled(logits, (rows, columns), confidence=confidence, align_corners=aligned)
        sure = None if probability is None else probability[0, :height, :width].numpy()
        kept = None
        if cells:
            full = upsample(logits, (rows, columns), align_corners=aligned)
            kept = full[0, :, :height, :width].contiguous().numpy()
        return Piece(0, 0, labels[0, :height, :width].numpy(), sure, tile.valid, kept, crc32(tile.digest))


def predict_strips(
    model: Segmenter,
    reader: Readable,
    card: ModelCard,
    *,
    tile: int,
    overlap: int,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    confidence: bool = False,
    advance: Callable[[float], None] | None = None,
) -> Iterator[Piece]:
    """Predict a raster of any size; strips of its full width come from top to bottom and cover it.

    A raster that is no larger than a tile goes through the network in one piece and at its own size, so that its
    labels are those of `Segmenter.label_map`.

    Args:
        tile, overlap: in pixels; multiples of 32, the overlap at most half a tile.
        flips, scales: as in `averaged_logits`.
        advance: called with the share that is done, 0 to 1, after each tile.

    Raises:
        DataError: the raster is corrupt.
    """
    height, width = reader.info.height, reader.info.width
    plan = plan_strips(height, width, tile, overlap, output_stride(model), piece=width)
    tiling = Tiling(model, reader, card, plan, flips, tuple(scales))
    if tiling.single:
        yield tiling.whole(confidence=confidence)
        if advance:
            advance(1)
        return
    decoded, sums, across = tiling.decoded(chain(*plan.rows)), dict[int, TileSum](), len(plan.rows[0])

    def tiles(row: int) -> Iterator[DecodedTile]:
        for number, tile in enumerate(islice(decoded, across), start=row * across + 1):
            yield tile
            if advance:
                advance(number / (len(plan.rows) * across))

    for row in range(len(plan.rows)):
        sums[row] = tiling.sum_of(row, 0, None, tiles(row))
        made, sums = tiling.finish((row, 0), sums, confidence=confidence), tiling.below((row, 0), sums)
        if len(made.labels):
            yield made


def _blended(parts: Sequence[TileSum], top: int, bottom: int, width: int) -> Float[Tensor, "1 K n w"]:
    """Return rows of cells, ``width`` of each: the weighted mean over all tiles."""
    total, weights = torch.zeros(1, len(parts[0].total), bottom - top, width), torch.zeros(bottom - top, width)
    for part in parts:
        first, last = max(top, part.top), min(bottom, part.top + len(part.weights))
        if first < last:
            rows, own = slice(first - top, last - top), slice(first - part.top, last - part.top)
            total[0, :, rows] += part.total[:, own, :width]
            weights[rows] += part.weights[own, :width]
    largest = largest_logit(total.dtype)
    return total.div_(weights.clamp_(min=1e-12)).clamp_(-largest, largest)


def read_tile(reader: Readable, window: Window, card: ModelCard) -> ReadTile:
    """Read what of a window lies within the raster."""
    inside, *outside = clip_window(window, reader.info.height, reader.info.width)
    values, valid = reader.read(inside)
    digest = crc32(np.packbits(valid).data, crc32(np.ascontiguousarray(values).data))
    return ReadTile(window, values, valid, digest.to_bytes(4), (outside[0], outside[1]), card)


@torch.no_grad()
def averaged_logits(
    model: Segmenter, images: Float32[np.ndarray, "B C H W"], *, stride: int, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "B K h w"]:
    """Return logits at the network's stride, averaged over mirrored and zoomed copies of normalised images.

    The network must not have to pad the images (see `Segmenter.padded_size`). Zoomed copies have sides that are
    multiples of 32; their logits are resized to the grid of the unzoomed image.
    """
    with enough_memory(lambda: _smaller_tile(images.shape, scales)):
        return _averaged(model, torch.from_numpy(images).to(next(model.parameters()).device), stride, flips, scales)


def _averaged(
    model: Segmenter, batch: Float[Tensor, "B C H W"], stride: int, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "B K h w"]:
    coarse = (-(-batch.shape[2] // stride), -(-batch.shape[3] // stride))
    copies = []
    for scale in scales:
        sides = [max(GRID, round(side * scale / GRID) * GRID) for side in batch.shape[2:]]
        zoomed = batch if scale == 1 else F.interpolate(batch, size=sides, mode="bilinear", align_corners=False)
        logits = model.decode(zoomed).logits.float()
        if flips:
            logits = (logits + model.decode(zoomed.flip(-1)).logits.float().flip(-1)) / 2
        copies.append(logits if scale == 1 else upsample(logits, coarse, align_corners=model.align_corners))
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)


def _smaller_tile(shape: tuple[int, ...], scales: Sequence[float]) -> str:
    """Say what did not fit into memory, and what may."""
    count, _, height, width = shape
    side = max(64, max(height, width) // 64 * 32)
    together = f"{count} tiles" if count > 1 else "A tile"
    zoomed = f", zoomed by {max(scales):g}," if max(scales) > 1 else ""
    fewer = f"a batch of {max(1, count // 2)} or " if count > 1 else ""
    return (
        f"There is not enough memory to predict: {together} of {height} x {width} pixels{zoomed} did not fit. Take "
        f"{fewer}a tile of {side} pixels, which needs about a quarter (--tile {side}; in a configuration "
        f"[predict].tile = {side})."
    )


@torch.no_grad()
def output_stride(model: Segmenter) -> int:
    """Return how many pixels one logit covers along each axis, measured on a small empty image."""
    device = next(model.parameters()).device
    probe = torch.zeros(1, model.architecture.bands, 2 * GRID, 2 * GRID, device=device)
    stride = 2 * GRID // model.decode(probe).logits.shape[-1]
    assert GRID % stride == 0, "tiles start at multiples of GRID, so their logits must too"
    return stride
