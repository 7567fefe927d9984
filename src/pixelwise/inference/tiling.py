"""From a raster to pieces of a label map, tile by tile, in memory that grows neither with its height nor its width.

Tiles overlap. Their logits are weighted and added at the network's stride; bilinear upsampling is linear, so it comes
once, after the blending, and only for the cells at hand. Memory holds one piece of a row of tiles, and what overlaps
it.

Tiles are added in one order only: tiles within a row from the left, then rows from the top. So a piece has the same
bytes whoever makes it: one process from top to bottom, one that goes on where another was killed, or many machines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Integer, Shaped
from torch import Tensor

from pixelwise.device import DECIDED_AT_ONCE
from pixelwise.geo.polygon_labels import PolygonLabels
from pixelwise.geo.raster import Readable, Window, clip_window, normalize
from pixelwise.inference.augmented import averaged_logits, output_stride
from pixelwise.inference.options import TileOptions
from pixelwise.inference.prefetch import read_ahead
from pixelwise.inference.tile_grid import GRID, Place, Rect, StripPlan, blend_weight, plan_strips
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
        """Normalised, and mirrored where it reaches beyond the raster; computed each time."""
        image = normalize(self.values, self.valid, self.card.mean, self.card.std)
        beyond = any(map(any, self.outside))
        return np.pad(image, ((0, 0), *self.outside), mode="symmetric") if beyond else image


DecodedTile = tuple[ReadTile, Float[Tensor, "K h w"] | None]
"""A tile and its logits at the stride, where the network left them; None where no pixel holds data."""


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
    """Tiles of one row, weighted and added: a partial sum of a blended map."""

    cells: Rect
    """Where it lies."""
    total: Float[Tensor, "K h w"]
    weights: Float[Tensor, "h w"]
    valid: Bool[np.ndarray, "H W"]
    """Which of its pixels hold data (`StripPlan.pixels`)."""
    digest: int
    """CRC-32 of what was read for it, and not already for a sum to the left."""

    def on(self, device: torch.device | str) -> "TileSum":
        """Return it with its sums on a device."""
        return replace(self, total=self.total.to(device), weights=self.weights.to(device))

    def part(self, wanted: Rect, plan: StripPlan) -> "TileSum":
        """Return a copy of the cells that lie within a rectangle, so that the rest can be forgotten."""
        cells = self.cells & wanted
        own, pixels = cells.inside(self.cells), plan.pixels(cells).inside(plan.pixels(self.cells))
        total, weights = self.total[:, *own].clone(), self.weights[own].clone()
        return TileSum(cells, total, weights, self.valid[pixels].copy(), self.digest)


@dataclass(frozen=True)
class Tiling:
    """All that is needed to make any piece of a raster's map, on this machine or on another."""

    model: Segmenter
    reader: Readable
    card: ModelCard
    plan: StripPlan
    options: TileOptions = field(default_factory=TileOptions)
    """Of these flips and scales; the plan has the tile, and ``batch`` below is the one in use."""
    batch: int = 1
    """Tiles that go through the network together, where that changes no byte (`with_batch`)."""
    streams: int = 1
    """Batches that are in the network at the same time, each with torch's number of threads (`fitting_streams`)."""
    aoi: PolygonLabels | None = None
    """What is wanted of a scene: 1 inside, 0 outside; None: everything."""

    @property
    def device(self) -> torch.device:
        """Where the network is; tiles are added, upsampled and decided there too."""
        return next(self.model.parameters()).device

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
            found = self.logits(batch)
            if self.model.align_corners and self.plan.stride > 1:
                found = recentred(found, batch.shape[2:])
            logits += found
        rest = iter(logits)
        return [(tile, next(rest) if tile.valid.any() else None) for tile in tiles]

    def logits(self, images: Float32[np.ndarray, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """Run the network on normalised images, with the flips and scales that were asked for."""
        flips, scales = self.options.flips, self.options.scales
        # A raster of one piece meets no other, so its cells can be the network's own.
        stride = None if self.single else self.plan.stride
        return averaged_logits(self.model, images, stride=stride, flips=flips, scales=scales)

    @torch.no_grad()
    def sum_of(self, row: int, column: int, begun: TileSum | None, tiles: Iterable[DecodedTile]) -> TileSum:
        """Add tiles of a row, from the left, to what those before have in a column of pieces.

        ``begun`` is the sum of those before, from the column's `Cuts.reach` on; None: they are among the tiles.
        """
        plan, first = self.plan, self.plan.rows[row][0]
        stride, new = plan.stride, plan.tiles(row, column, begun=True)
        weight = torch.from_numpy(blend_weight(first.height // stride, first.width // stride, plan.overlap // stride))
        cells = plan.sum_cells(row, column)
        pixels, digest = plan.pixels(cells), 0
        device, classes, weight = self.device, len(self.card.classes), weight.to(self.device)
        total, weights = (torch.zeros(*size, *cells.shape, device=device) for size in ((classes,), ()))
        valid = np.zeros(pixels.shape, bool)
        if begun is not None:
            there = begun.cells.inside(cells)
            total[:, *there], weights[there] = begun.total, begun.weights
            valid[plan.pixels(begun.cells).inside(pixels)] = begun.valid
        for tile, logits in tiles:
            digest = crc32(tile.digest, digest) if tile.window in new else digest
            its_cells = plan.tile_cells(tile.window)
            its_pixels = plan.pixels(its_cells)
            # What lies to the left of the piece is not its own.
            shared, seen = its_cells & cells, its_pixels & pixels
            valid[seen.inside(pixels)] |= tile.valid[seen.inside(its_pixels)]
            if logits is not None:
                own, there = shared.inside(its_cells), shared.inside(cells)
                total[:, *there] += (logits * weight)[:, *own]
                weights[there] += weight[own]
        return TileSum(cells, total, weights, valid, digest)

    def below(self, place: Place, sums: Mapping[int, TileSum]) -> dict[int, TileSum]:
        """Return what the piece below needs of the sums of a piece."""
        row, plan = place[0], self.plan
        if row + 1 == len(plan.down):
            return {}
        return {each: sums[each].part(plan.below(place), plan) for each in plan.needed(row + 1) if each <= row}

    def finish(
        self, place: Place, sums: Mapping[int, TileSum], *, confidence: bool = False, cells: bool = False
    ) -> Piece:
        """Blend the rows of tiles that a piece needs (`StripPlan.needed`), upsample and decide.

        Where no tile held data the sum is 0, and the label there means nothing.
        """
        plan, classes, device = self.plan, len(self.card.classes), self.device
        # What an earlier start kept, or another device made, is elsewhere.
        needed = [sums[each].on(device) for each in plan.needed(place[0])]
        piece = plan.piece(place)
        pixels = plan.pixels(piece)
        valid, labels = np.zeros(pixels.shape, bool), np.zeros(pixels.shape, label_dtype(classes))
        shares = np.zeros(pixels.shape, np.float32) if confidence else None
        kept = np.zeros((classes, *piece.shape), np.float32) if cells else None
        for each in needed:
            known = plan.pixels(each.cells)
            shared = known & pixels
            valid[shared.inside(pixels)] |= each.valid[shared.inside(known)]
        at_once = DECIDED_AT_ONCE.get(device.type, 1)
        for upper, lower in strips(torch.Size((1, classes)), piece.shape, times=at_once):
            strip = Rect(piece.top + upper, piece.left, piece.top + lower, piece.right)
            decided, probability, blended = self._decide(needed, strip, confidence)
            # The last tiles reach beyond the raster.
            seen = plan.pixels(strip) & pixels
            (rows, columns), there = seen.inside(strip.times(plan.stride)), seen.inside(pixels)
            labels[there] = decided[0, rows, columns].cpu().numpy()
            if shares is not None and probability is not None:
                shares[there] = probability[0, rows, columns].cpu().numpy()
            if kept is not None:
                kept[:, upper:lower] = blended.cpu().numpy()
        return Piece(pixels.top, pixels.left, labels, shares, valid, kept, sums[place[0]].digest)

    def _decide(
        self, sums: Sequence[TileSum], strip: Rect, confidence: bool
    ) -> tuple[Integer[Tensor, "1 H W"], Float[Tensor, "1 H W"] | None, Float[Tensor, "K h w"]]:
        """Return the labels of a strip's pixels, their confidence if asked for, and its blended cells."""
        around = strip.grown(1)
        there = around & self.plan.cells
        # At the rim of the raster the outermost cell stands for the one beyond.
        rows, columns = there.short_of(around)
        padded = F.pad(_blended(sums, there), (*columns, *rows), mode="replicate")
        labels, probability = decide_cells(padded, self.plan.stride, confidence=confidence)
        return labels, probability, padded[0, :, 1:-1, 1:-1]

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
        logits = self.logits(image[None])
        labels, probability = argmax_upsampled(logits, (rows, columns), confidence=confidence, align_corners=aligned)
        shares = None if probability is None else probability[0, :height, :width].cpu().numpy()
        kept = None
        if cells:
            full = upsample(logits, (rows, columns), align_corners=aligned)
            kept = full[0, :, :height, :width].contiguous().cpu().numpy()
        return Piece(0, 0, labels[0, :height, :width].cpu().numpy(), shares, tile.valid, kept, crc32(tile.digest))


def predict_strips(
    model: Segmenter,
    reader: Readable,
    card: ModelCard,
    options: TileOptions,
    *,
    confidence: bool = False,
    advance: Callable[[float], None] | None = None,
) -> Iterator[Piece]:
    """Predict a raster of any size; strips of its full width come from top to bottom and cover it.

    A raster that is no larger than a tile goes through the network in one piece and at its own size, so that its
    labels are those of `Segmenter.label_map`.

    Args:
        advance: called with the share that is done, 0 to 1, after each tile.

    Raises:
        DataError: the raster is corrupt.
        ConfigError: a tile or an overlap that does not work.
    """
    height, width = reader.info.height, reader.info.width
    plan = plan_strips(height, width, *options.grid(card), output_stride(model), piece=width)
    tiling = Tiling(model, reader, card, plan, options)
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


def _blended(sums: Sequence[TileSum], wanted: Rect) -> Float[Tensor, "1 K n w"]:
    """Return a rectangle of cells: the weighted mean over all tiles."""
    device, classes = sums[0].total.device, len(sums[0].total)
    total, weights = (torch.zeros(*size, *wanted.shape, device=device) for size in ((1, classes), ()))
    for each in sums:
        shared = each.cells & wanted
        own, there = shared.inside(each.cells), shared.inside(wanted)
        total[0, :, *there] += each.total[:, *own]
        weights[there] += each.weights[own]
    largest = largest_logit(total.dtype)
    return total.div_(weights.clamp_(min=1e-12)).clamp_(-largest, largest)


def read_tile(reader: Readable, window: Window, card: ModelCard) -> ReadTile:
    """Read what of a window lies within the raster."""
    inside, *outside = clip_window(window, reader.info.height, reader.info.width)
    values, valid = reader.read(inside)
    digest = crc32(np.packbits(valid).data, crc32(np.ascontiguousarray(values).data))
    return ReadTile(window, values, valid, digest.to_bytes(4), (outside[0], outside[1]), card)
