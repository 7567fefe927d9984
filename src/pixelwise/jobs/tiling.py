"""From a raster to strips of labels, tile by tile, in memory that does not grow with the raster's height.

Tiles overlap. Their logits are weighted and added at the network's stride; bilinear upsampling is linear, so it comes
once, after the blending, and only for the rows at hand. What stays in memory is one row of tiles at the stride:
classes x tile/s x width/s numbers, and the part of the row above that overlaps it.

Sums are made in one order only: tiles within a row from the left, then rows from the top. So a strip has the same bytes
whoever makes it: one process from top to bottom, one that goes on where another was killed, or many machines.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Integer
from torch import Tensor

from pixelwise.geo.raster import Readable, Window, clip_window, normalize
from pixelwise.geo.tiles import GRID, StripPlan, blend_weight, plan_strips
from pixelwise.geo.vector import PolygonLabels
from pixelwise.jobs.model_folder import ModelCard
from pixelwise.jobs.read_ahead import read_ahead
from pixelwise.labels import label_dtype
from pixelwise.models import Segmenter
from pixelwise.models.upsampling import argmax_upsampled, decide_cells, recentred, strips, upsample

AHEAD = 8
"""Tiles that are read before the network asks for them, at least two batches."""


@dataclass(frozen=True)
class Strip:
    """Finished rows of a label map."""

    top: int
    labels: Integer[np.ndarray, "n W"]
    confidence: Float32[np.ndarray, "n W"] | None
    """Softmax probability of the label, 0 to 1; None where it was not asked for."""
    valid: Bool[np.ndarray, "n W"]
    """False where the raster holds no data; the label there means nothing."""
    cells: Float32[np.ndarray, "K m w"] | None = None
    """The blended logits at the stride, if asked for."""
    digest: int = 0
    """CRC-32 of all that was read for the row of tiles that finished the strip."""


@dataclass(frozen=True)
class RowSum:
    """A row of tiles, weighted and added."""

    top: int
    """First row of cells."""
    total: Float[Tensor, "K h w"]
    weights: Float[Tensor, "h w"]
    valid: Bool[np.ndarray, "H W"]
    """Which pixels hold data: full width, from the row's first pixel."""
    digest: int
    """CRC-32 of all that was read."""

    def from_cell(self, cell: int, stride: int) -> "RowSum":
        """Return a copy of what lies at and below a row of cells, so that the rest can be forgotten."""
        rows = max(0, cell - self.top)
        valid = self.valid[rows * stride :].copy()
        return RowSum(self.top + rows, self.total[:, rows:].clone(), self.weights[rows:].clone(), valid, self.digest)


@dataclass(frozen=True)
class Tiling:
    """All that is needed to make any strip of a raster's map, on this machine or on another."""

    model: Segmenter
    reader: Readable
    card: ModelCard
    plan: StripPlan
    flips: bool = False
    scales: tuple[float, ...] = (1.0,)
    batch: int = 1
    """Tiles that go through the network together, where that changes no byte (`exact_batch`)."""
    area: PolygonLabels | None = None
    """What is wanted: 1 inside, 0 outside; None: everything."""

    @property
    def single(self) -> bool:
        """The raster is no larger than a tile, and goes through the network at its own size."""
        return len(self.plan.rows) == len(self.plan.rows[0]) == 1

    def wanted(self, row: int) -> list[Window]:
        """Return the tiles of a row that touch the area of interest, or lie less than `GRID` pixels beside it.

        Pixels next to a tile still depend on it, through upsampling.
        """
        tiles, area, (height, width) = self.plan.rows[row], self.area, (self.plan.height, self.plan.width)
        return [tile for tile in tiles if area is None or area.touches(tile, GRID, height, width)]

    def make(
        self,
        wanted: Sequence[int],
        carry: Mapping[int, RowSum],
        done: Callable[[int], None] = lambda tiles: None,
        *,
        confidence: bool = False,
        cells: bool = False,
    ) -> Iterator[tuple[int, Strip, dict[int, RowSum]]]:
        """Make strips, from the top; yield each with its number, and what those below it need of rows of tiles.

        Args:
            carry: what an earlier strip left of rows of tiles; what lacks is computed.
            done: called after each tile with the number of those that are left.
        """
        if self.single and wanted:
            yield 0, self.whole(confidence=confidence, cells=cells), {}
            done(0)
            return
        rows, held = [], set(carry)
        for strip in wanted:
            rows += [row for row in self.plan.needed(strip) if row not in held]
            held |= set(rows)
        left = sum(len(self.plan.rows[row]) for row in rows)

        def count() -> None:
            nonlocal left
            left -= 1
            done(left)

        sums, computed = dict(carry), self.row_sums(rows, count)
        for strip, following in zip(wanted, [*wanted[1:], len(self.plan)], strict=True):
            for row in self.plan.needed(strip):
                if row not in sums:
                    sums[row] = next(computed)
            made = self.finish(strip, sums, confidence=confidence, cells=cells)
            kept, top = [], 0
            if following < len(self.plan):
                kept, top = self.plan.needed(following), self.plan.reach(following)[0]
            sums = {row: part.from_cell(top, self.plan.stride) for row, part in sums.items() if row in kept}
            yield strip, made, dict(sums)

    @torch.no_grad()
    def row_sums(self, rows: Iterable[int], done: Callable[[], None] = lambda: None) -> Iterator[RowSum]:
        """Decode rows of tiles, one after the other; tiles are read ahead, also those of the next row.

        Args:
            done: called after each tile of the row, wanted or not.
        """
        rows = list(rows)
        # None marks the end of a row.
        tiles = (tile for row in rows for tile in [*self.wanted(row), None])
        read = read_ahead(lambda tile: tile and (tile, *self.read(tile)), tiles, max(AHEAD, 2 * self.batch))
        for row in rows:
            yield self._sum_of(row, iter(lambda: next(read), None), done)

    def read(self, window: Window) -> tuple[Float32[np.ndarray, "C H W"], Bool[np.ndarray, "h w"], bytes]:
        """Return a normalised tile, which of its pixels hold data, and a digest of both."""
        image, valid = read_normalized(self.reader, window, self.card)
        return image, valid, crc32(np.packbits(valid).tobytes(), crc32(image.tobytes())).to_bytes(4)

    def _sum_of(
        self, row: int, tiles: Iterator[tuple[Window, np.ndarray, np.ndarray, bytes]], done: Callable[[], None]
    ) -> RowSum:
        plan, stride, first = self.plan, self.plan.stride, self.plan.rows[row][0]
        height, width = first.height // stride, plan.cell_width
        weight = torch.from_numpy(blend_weight(height, first.width // stride, plan.overlap // stride))
        total, weights = torch.zeros(len(self.card.classes), height, width), torch.zeros(height, width)
        valid = np.zeros((min(first.height, plan.height - first.top), plan.width), bool)
        digest, waiting, left = 0, [], len(plan.rows[row])

        def add() -> None:
            for window, logits in zip([w for w, _ in waiting], self._logits([i for _, i in waiting]), strict=True):
                columns = slice(window.left // stride, (window.left + window.width) // stride)
                total[..., columns] += logits * weight
                weights[:, columns] += weight
                done()
            waiting.clear()

        for window, image, held, read in tiles:
            digest, left = crc32(read, digest), left - 1
            valid[:, window.left : window.left + window.width] |= held
            if held.any():
                waiting.append((window, image))
                if len(waiting) == self.batch:
                    add()
            else:
                done()
        add()
        for _ in range(left):
            done()
        return RowSum(first.top // stride, total, weights, valid, digest)

    def _logits(self, images: list[Float32[np.ndarray, "C H W"]]) -> Iterator[Float[Tensor, "K h w"]]:
        # A batch that is not full goes tile by tile: only full ones were proven to change no byte.
        size = self.batch if len(images) == self.batch else 1
        for start in range(0, len(images), size):
            batch = np.stack(images[start : start + size])
            logits = averaged_logits(self.model, batch, stride=self.plan.stride, flips=self.flips, scales=self.scales)
            if self.model.align_corners and self.plan.stride > 1:
                logits = recentred(logits, batch.shape[2:])
            yield from logits.cpu()

    def finish(self, strip: int, sums: Mapping[int, RowSum], *, confidence: bool = False, cells: bool = False) -> Strip:
        """Blend the rows of tiles that a strip needs (`StripPlan.needed`), upsample and decide.

        Where no tile held data the sum is 0, and the label there means nothing.
        """
        plan, stride = self.plan, self.plan.stride
        (first, last), (top, bottom) = plan.cells(strip), plan.pixels(strip)
        needed = [sums[row] for row in plan.needed(strip)]
        valid = np.zeros((bottom - top, plan.width), bool)
        for part in needed:
            start = part.top * stride
            above, below = max(top, start), min(bottom, start + len(part.valid))
            if above < below:
                valid[above - top : below - top] |= part.valid[above - start : below - start]
        if self.area is not None and bottom > top:
            valid &= self.area.read(Window(top, 0, bottom - top, plan.width)) > 0
        classes = len(self.card.classes)
        labels = np.zeros((bottom - top, plan.width), label_dtype(classes))
        sure = np.zeros(labels.shape, np.float32) if confidence else None
        kept = np.zeros((classes, last - first, plan.cell_width), np.float32) if cells else None
        for start, end in strips(torch.Size((1, classes)), (last - first, plan.cell_width)):
            start, end = start + first, end + first
            blended = _blended(needed, max(0, start - 1), min(end + 1, plan.cell_height))
            # At the rim the outermost cell stands for the one beyond.
            padded = F.pad(blended, (1, 1, int(start == 0), int(end == plan.cell_height)), mode="replicate")
            decided, probability = decide_cells(padded, stride, confidence=confidence)
            # The last tiles reach beyond the raster.
            rows = slice(start * stride - top, min(end * stride, bottom) - top)
            if rows.start < rows.stop:
                labels[rows] = decided[0, : rows.stop - rows.start, : plan.width].numpy()
                if sure is not None and probability is not None:
                    sure[rows] = probability[0, : rows.stop - rows.start, : plan.width].numpy()
            if kept is not None:
                kept[:, start - first : end - first] = padded[0, :, 1:-1, 1:-1].numpy()
        return Strip(top, labels, sure, valid, kept, sums[strip].digest)

    def whole(self, *, confidence: bool = False, cells: bool = False) -> Strip:
        """Predict a `single` raster in one piece: its labels are those of `Segmenter.label_map`.

        Its cells, if asked for, are pixels: the image is small, and padding may have given it odd strides.
        """
        height, width = self.plan.height, self.plan.width
        image, valid = read_normalized(self.reader, Window(0, 0, max(GRID, height), max(GRID, width)), self.card)
        rows, columns = self.model.padded_size(image.shape[1:])
        image = np.pad(image, ((0, 0), (0, rows - image.shape[1]), (0, columns - image.shape[2])))
        logits = averaged_logits(
            self.model, image[None], stride=self.plan.stride, flips=self.flips, scales=self.scales
        ).cpu()
        labels, probability = argmax_upsampled(
            logits, (rows, columns), confidence=confidence, align_corners=self.model.align_corners
        )
        sure = None if probability is None else probability[0, :height, :width].numpy()
        if self.area is not None:
            valid = valid & (self.area.read(Window(0, 0, height, width)) > 0)
        kept = None
        if cells:
            full = upsample(logits, (rows, columns), align_corners=self.model.align_corners)
            kept = full[0, :, :height, :width].contiguous().numpy()
        return Strip(0, labels[0, :height, :width].numpy(), sure, valid, kept)


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
) -> Iterator[Strip]:
    """Predict a raster of any size; strips come from top to bottom and cover it.

    A raster that is no larger than a tile goes through the network in one piece and at its own size, so that its
    labels are those of `Segmenter.label_map`.

    Args:
        tile, overlap: in pixels; multiples of 32, the overlap at most half a tile.
        flips, scales: as in `averaged_logits`.
        advance: called with the share that is done, 0 to 1, after each tile.

    Raises:
        DataError: the raster is corrupt.
    """
    plan = plan_strips(reader.info.height, reader.info.width, tile, overlap, output_stride(model))
    tiling = Tiling(model, reader, card, plan, flips, tuple(scales))
    tiles = len(plan) * len(plan.rows[0])
    done = (lambda left: advance(1 - left / tiles)) if advance else (lambda left: None)
    for _, made, _ in tiling.make(range(len(plan)), {}, done, confidence=confidence):
        if len(made.labels):
            yield made


def _blended(parts: Sequence[RowSum], top: int, bottom: int) -> Float[Tensor, "1 K n w"]:
    """Return rows of cells: the weighted mean over all tiles."""
    classes, _, width = parts[0].total.shape
    total, weights = torch.zeros(1, classes, bottom - top, width), torch.zeros(bottom - top, width)
    for part in parts:
        first, last = max(top, part.top), min(bottom, part.top + len(part.weights))
        if first < last:
            rows, own = slice(first - top, last - top), slice(first - part.top, last - part.top)
            total[0, :, rows] += part.total[:, own]
            weights[rows] += part.weights[own]
    return total.div_(weights.clamp_(min=1e-12))


def read_normalized(
    reader: Readable, window: Window, card: ModelCard
) -> tuple[Float32[np.ndarray, "C H W"], Bool[np.ndarray, "h w"]]:
    """Return a normalised window, mirrored where it reaches beyond the raster, and the validity of the part inside."""
    inside, rows, columns = clip_window(window, reader.info.height, reader.info.width)
    values, valid = reader.read(inside)
    image = normalize(values, valid, card.mean, card.std)
    return np.pad(image, ((0, 0), rows, columns), mode="symmetric"), valid


@torch.no_grad()
def averaged_logits(
    model: Segmenter, images: Float32[np.ndarray, "B C H W"], *, stride: int, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "B K h w"]:
    """Return logits at the network's stride, averaged over mirrored and zoomed copies of normalised images.

    The network must not have to pad the images (see `Segmenter.padded_size`). Zoomed copies have sides that are
    multiples of 32; their logits are resized to the grid of the unzoomed image.
    """
    batch = torch.from_numpy(images).to(next(model.parameters()).device)
    coarse = (-(-images.shape[2] // stride), -(-images.shape[3] // stride))
    copies = []
    for scale in scales:
        sides = [max(GRID, round(side * scale / GRID) * GRID) for side in images.shape[2:]]
        zoomed = batch if scale == 1 else F.interpolate(batch, size=sides, mode="bilinear", align_corners=False)
        logits = model.decode(zoomed).logits.float()
        if flips:
            logits = (logits + model.decode(zoomed.flip(-1)).logits.float().flip(-1)) / 2
        copies.append(logits if scale == 1 else upsample(logits, coarse, align_corners=model.align_corners))
    return copies[0] if len(copies) == 1 else torch.stack(copies).mean(dim=0)


@torch.no_grad()
def output_stride(model: Segmenter) -> int:
    """Return how many pixels one logit covers along each axis, measured on a small empty image."""
    device = next(model.parameters()).device
    probe = torch.zeros(1, model.architecture.bands, 2 * GRID, 2 * GRID, device=device)
    stride = 2 * GRID // model.decode(probe).logits.shape[-1]
    assert GRID % stride == 0, "tiles start at multiples of GRID, so their logits must too"
    return stride
