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
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float32, Integer, Shaped

from pixelwise.array_upsampling import largest_logit, strips
from pixelwise.geo.polygon_labels import PolygonLabels
from pixelwise.geo.raster import Readable, Window, clip_window, normalize
from pixelwise.inference.augmented import averaged_logits, output_stride
from pixelwise.inference.networks import Arithmetic, Network, arithmetic_of
from pixelwise.inference.options import TileOptions
from pixelwise.inference.prefetch import read_ahead
from pixelwise.inference.sampled_logits import Cells, Watch
from pixelwise.inference.tile_grid import GRID, Place, Rect, StripPlan, blend_weight, plan_strips
from pixelwise.labels import label_dtype
from pixelwise.runs.model_card import ModelCard

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


DecodedTile = tuple[ReadTile, Any]
"""A tile and its logits [K,h,w] at the stride, where the network left them; None where no pixel holds data."""


@dataclass(frozen=True)
class Piece:
    """A finished rectangle of a label map."""

    top: int
    left: int
    labels: Integer[np.ndarray, "n m"]
    confidence: Float32[np.ndarray, "n m"] | None
    """Softmax probability of the label at the card's temperature, 0 to 1; None where it was not asked for."""
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
    total: Any
    """[K,h,w], where the network computes; as an array once it was kept or has travelled."""
    weights: Any
    """[h,w], there too."""
    valid: Bool[np.ndarray, "H W"]
    """Which of its pixels hold data (`StripPlan.pixels`)."""
    digest: int
    """CRC-32 of what was read for it, and not already for a sum to the left."""

    def in_memory(self) -> "TileSum":
        """Return it with its sums as arrays, to be kept or to travel."""
        total, weights = (each if isinstance(each, np.ndarray) else each.cpu().numpy() for each in self.sums)
        return replace(self, total=total, weights=weights)

    def placed(self, ops: Arithmetic, model: Network) -> "TileSum":
        """Return it with its sums where a network computes."""
        total, weights = (ops.placed(model, each) for each in self.sums)
        return replace(self, total=total, weights=weights)

    @property
    def sums(self) -> tuple[Any, Any]:
        """Both."""
        return self.total, self.weights

    def part(self, wanted: Rect, plan: StripPlan) -> "TileSum":
        """Return a copy of the cells that lie within a rectangle, so that the rest can be forgotten."""
        cells = self.cells & wanted
        own, pixels = cells.inside(self.cells), plan.pixels(cells).inside(plan.pixels(self.cells))
        total, weights = (
            each.copy() if isinstance(each, np.ndarray) else each.clone()
            for each in (self.total[:, *own], self.weights[own])
        )
        return TileSum(cells, total, weights, self.valid[pixels].copy(), self.digest)


@dataclass(frozen=True)
class Tiling:
    """All that is needed to make any piece of a raster's map, on this machine or on another."""

    model: Network
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
        size, logits = self.batch if len(full) == self.batch else 1, list[Any]()
        for start in range(0, len(full), size):
            logits += [*self.logits(np.stack(full[start : start + size]))]
        rest = iter(logits)
        return [(tile, next(rest) if tile.valid.any() else None) for tile in tiles]

    def logits(self, images: Float32[np.ndarray, "B C H W"]) -> Any:
        """Run the network on normalised images, with the flips and scales that were asked for; return [B,K,h,w]."""
        ops = arithmetic_of(self.model)
        flips, scales = self.options.flips, self.options.scales
        # A raster of one piece meets no other, so its cells can be the network's own.
        stride = None if self.single else self.plan.stride
        found = averaged_logits(self.model, images, stride=stride, flips=flips, scales=scales)
        if self.model.align_corners and not self.single and self.plan.stride > 1:
            found = ops.recentred(found, images.shape[2:])
        return found

    def sum_of(self, row: int, column: int, begun: TileSum | None, tiles: Iterable[DecodedTile]) -> TileSum:
        """Add tiles of a row, from the left, to what those before have in a column of pieces.

        ``begun`` is the sum of those before, from the column's `Cuts.reach` on; None: they are among the tiles.
        """
        plan, first = self.plan, self.plan.rows[row][0]
        stride, new = plan.stride, plan.tiles(row, column, begun=True)
        ops, model = arithmetic_of(self.model), self.model
        weight = blend_weight(first.height // stride, first.width // stride, plan.overlap // stride)
        weight = ops.placed(model, weight)
        cells = plan.sum_cells(row, column)
        pixels, digest = plan.pixels(cells), 0
        total = ops.zeros(model, (len(self.card.classes), *cells.shape))
        weights = ops.zeros(model, cells.shape)
        valid = np.zeros(pixels.shape, bool)
        if begun is not None:
            there = begun.cells.inside(cells)
            total[:, *there], weights[there] = (ops.placed(model, each) for each in begun.sums)
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
        self,
        place: Place,
        sums: Mapping[int, TileSum],
        *,
        confidence: bool = False,
        cells: bool = False,
        watch: Watch | None = None,
    ) -> Piece:
        """Blend the rows of tiles that a piece needs (`StripPlan.needed`), upsample and decide.

        Where no tile held data the sum is 0, and the label there means nothing.

        Args:
            watch: called with the logits of each strip.
        """
        plan, classes, ops, model = self.plan, len(self.card.classes), arithmetic_of(self.model), self.model
        # What an earlier start kept, or another device made, is elsewhere.
        needed = [sums[each].placed(ops, model) for each in plan.needed(place[0])]
        piece = plan.piece(place)
        pixels = plan.pixels(piece)
        valid, labels = np.zeros(pixels.shape, bool), np.zeros(pixels.shape, label_dtype(classes))
        shares = np.zeros(pixels.shape, np.float32) if confidence else None
        kept = np.zeros((classes, *piece.shape), np.float32) if cells else None
        for each in needed:
            known = plan.pixels(each.cells)
            shared = known & pixels
            valid[shared.inside(pixels)] |= each.valid[shared.inside(known)]
        for upper, lower in strips((1, classes), piece.shape, times=ops.at_once(model)):
            strip = Rect(piece.top + upper, piece.left, piece.top + lower, piece.right)
            decided, probability, padded = self._decide(needed, strip, confidence)
            # The last tiles reach beyond the raster.
            seen = plan.pixels(strip) & pixels
            if watch is not None:
                watch(Cells.blended(ops.taken(padded), strip, plan.stride, seen))
            (rows, columns), there = seen.inside(strip.times(plan.stride)), seen.inside(pixels)
            labels[there] = ops.taken(decided[0, rows, columns])
            if shares is not None and probability is not None:
                shares[there] = ops.taken(probability[0, rows, columns])
            if kept is not None:
                kept[:, upper:lower] = ops.taken(padded[:, 1:-1, 1:-1])
        return Piece(pixels.top, pixels.left, labels, shares, valid, kept, sums[place[0]].digest)

    def _decide(self, sums: Sequence[TileSum], strip: Rect, confidence: bool) -> tuple[Any, Any, Any]:
        """Return the labels of a strip's pixels, their confidence if asked for, and its cells [K,n,w] with a rim."""
        around = strip.grown(1)
        there = around & self.plan.cells
        # At the rim of the raster the outermost cell stands for the one beyond.
        ops = arithmetic_of(self.model)
        padded = ops.edged(_blended(ops, self.model, sums, there), *there.short_of(around))
        labels, probability = ops.decide_cells(
            padded, self.plan.stride, confidence=confidence, temperature=self.card.temperature
        )
        return labels, probability, padded[0]

    def whole(self, *, confidence: bool = False, cells: bool = False, watch: Watch | None = None) -> Piece:
        """Predict a `single` raster in one piece: its labels are those of `Segmenter.label_map`.

        Its cells, if asked for, are pixels: the image is small, and padding may have given it odd strides.
        """
        model, aligned, plan = self.model, self.model.align_corners, self.plan
        ops = arithmetic_of(model)
        height, width = plan.height, plan.width
        tile = read_tile(self.reader, Window(0, 0, max(GRID, height), max(GRID, width)), self.card)
        image = tile.image
        rows, columns = model.padded_size((image.shape[1], image.shape[2]))
        image = np.pad(image, ((0, 0), (0, rows - image.shape[1]), (0, columns - image.shape[2])))
        logits, full = self.logits(image[None]), (rows, columns)
        labels, probability = ops.argmax_upsampled(
            logits, full, confidence=confidence, temperature=self.card.temperature, align_corners=aligned
        )
        if watch is not None:
            watch(Cells.whole(ops.taken(logits[0]), full, plan.raster, align_corners=aligned))
        shares = None if probability is None else ops.taken(probability[0, :height, :width])
        kept = None
        if cells:
            whole = ops.upsampled(logits, full, align_corners=aligned)
            kept = np.ascontiguousarray(ops.taken(whole[0, :, :height, :width]))
        return Piece(0, 0, ops.taken(labels[0, :height, :width]), shares, tile.valid, kept, crc32(tile.digest))


def predict_strips(
    model: Network,
    reader: Readable,
    card: ModelCard,
    options: TileOptions,
    *,
    confidence: bool = False,
    watch: Watch | None = None,
    advance: Callable[[float], None] | None = None,
    stride: int | None = None,
) -> Iterator[Piece]:
    """Predict a raster of any size; strips of its full width come from top to bottom and cover it.

    A raster that is no larger than a tile goes through the network in one piece and at its own size, so that its
    labels are those of `Segmenter.label_map`.

    Args:
        watch: called with the logits of all pixels, strip by strip, before the piece that they are in comes.
        advance: called with the share that is done, 0 to 1, after each tile.
        stride: what `output_stride` gives for the network; None: it is found by a small image.

    Raises:
        DataError: the raster is corrupt.
        ConfigError: a tile or an overlap that does not work.
    """
    height, width = reader.info.height, reader.info.width
    plan = plan_strips(height, width, *options.grid(card), stride or output_stride(model), piece=width)
    tiling = Tiling(model, reader, card, plan, options)
    if tiling.single:
        yield tiling.whole(confidence=confidence, watch=watch)
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
        made = tiling.finish((row, 0), sums, confidence=confidence, watch=watch)
        sums = tiling.below((row, 0), sums)
        if len(made.labels):
            yield made


def _blended(ops: Arithmetic, model: Network, sums: Sequence[TileSum], wanted: Rect) -> Any:
    """Return a rectangle of cells [1,K,n,w]: the weighted mean over all tiles."""
    total = ops.zeros(model, (1, len(sums[0].total), *wanted.shape))
    weights = ops.zeros(model, wanted.shape)
    for each in sums:
        shared = each.cells & wanted
        own, there = shared.inside(each.cells), shared.inside(wanted)
        total[0, :, *there] += each.total[:, *own]
        weights[there] += each.weights[own]
    total /= weights.clip(1e-12, None)
    largest = largest_logit(np.dtype(np.float32))
    return total.clip(-largest, largest)


def read_tile(reader: Readable, window: Window, card: ModelCard) -> ReadTile:
    """Read what of a window lies within the raster."""
    inside, *outside = clip_window(window, reader.info.height, reader.info.width)
    values, valid = reader.read(inside)
    digest = crc32(np.packbits(valid).data, crc32(np.ascontiguousarray(values).data))
    return ReadTile(window, values, valid, digest.to_bytes(4), (outside[0], outside[1]), card)
