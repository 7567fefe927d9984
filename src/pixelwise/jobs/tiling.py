"""From a raster to strips of labels, tile by tile, in memory that does not grow with the raster's height.

Tiles overlap. Their logits are weighted and added at the network's stride; bilinear upsampling is linear, so it comes
once, after the blending, and only for the strip at hand. What stays in memory is one row of tiles at the stride:
classes x tile/s x width/s numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Integer
from torch import Tensor

from pixelwise.geo.raster import Readable, Window, clip_window, normalize
from pixelwise.geo.tiles import GRID, blend_weight, tile_windows
from pixelwise.jobs.model_folder import ModelCard
from pixelwise.models import Segmenter
from pixelwise.models.upsampling import argmax_upsampled, decide_cells, recentred, strips, upsample


@dataclass(frozen=True)
class Strip:
    """Finished rows of a label map."""

    top: int
    labels: Integer[np.ndarray, "n W"]
    confidence: Float32[np.ndarray, "n W"] | None
    """Softmax probability of the label, 0 to 1; None where it was not asked for."""
    valid: Bool[np.ndarray, "n W"]
    """False where the raster holds no data; the label there means nothing."""


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
        flips: average the logits of each tile with those of its mirror image (left and right).
        scales: average the logits of each tile over zoomed copies, with sides rounded to multiples of 32.
        confidence: give each label's probability too.
        advance: called with the share that is done, 0 to 1, after each tile.

    Raises:
        DataError: the raster is corrupt.
    """
    height, width = reader.info.height, reader.info.width
    stride = output_stride(model)
    if max(height, width) <= tile:
        yield _whole(model, reader, card, stride=stride, flips=flips, scales=scales, confidence=confidence)
        if advance:
            advance(1.0)
        return
    grid = tile_windows(height, width, tile, overlap)
    validity: list[tuple[int, np.ndarray]] = []
    done = 0

    def logits_of(window: Window) -> Float[Tensor, "1 K h w"] | None:
        nonlocal done
        image, valid = read_normalized(reader, window, card)
        if window.left == 0:
            validity.append((window.top, np.zeros((len(valid), width), bool)))
        validity[-1][1][:, window.left : window.left + window.width] = valid
        logits = None
        if valid.any():
            logits = averaged_logits(model, image, stride=stride, flips=flips, scales=scales)
            if model.align_corners and stride > 1:
                logits = recentred(logits, image.shape[1:])
        done += 1
        if advance:
            advance(done / (len(grid) * len(grid[0])))
        return logits

    rows = blended_rows(logits_of, grid, overlap=overlap, stride=stride, classes=len(card.classes))
    for top, labels, probability in upsampled_strips(rows, stride, confidence=confidence):
        # The last tiles reach beyond the raster; so do their strips.
        count = min(height - top, len(labels))
        if count > 0:
            sure = None if probability is None else probability[:count, :width].numpy()
            yield Strip(top, labels[:count, :width].numpy(), sure, _rows_of(validity, top, top + count))


def _whole(
    model: Segmenter,
    reader: Readable,
    card: ModelCard,
    *,
    stride: int,
    flips: bool,
    scales: Sequence[float],
    confidence: bool,
) -> Strip:
    height, width = reader.info.height, reader.info.width
    image, valid = read_normalized(reader, Window(0, 0, max(GRID, height), max(GRID, width)), card)
    rows, columns = model.padded_size(image.shape[1:])
    image = np.pad(image, ((0, 0), (0, rows - image.shape[1]), (0, columns - image.shape[2])))
    logits = averaged_logits(model, image, stride=stride, flips=flips, scales=scales).cpu()
    labels, probability = argmax_upsampled(
        logits, (rows, columns), confidence=confidence, align_corners=model.align_corners
    )
    sure = None if probability is None else probability[0, :height, :width].numpy()
    return Strip(0, labels[0, :height, :width].numpy(), sure, valid)


def read_normalized(
    reader: Readable, window: Window, card: ModelCard
) -> tuple[Float32[np.ndarray, "C H W"], Bool[np.ndarray, "h w"]]:
    """Return a normalised window, mirrored where it reaches beyond the raster, and the validity of the part inside."""
    inside, rows, columns = clip_window(window, reader.info.height, reader.info.width)
    values, valid = reader.read(inside)
    image = normalize(values, valid, card.mean, card.std)
    return np.pad(image, ((0, 0), rows, columns), mode="symmetric"), valid


def _rows_of(validity: list[tuple[int, np.ndarray]], top: int, bottom: int) -> Bool[np.ndarray, "n W"]:
    """Gather rows from the overlapping rows of tiles that were read, and forget those that end above."""
    while validity[0][0] + len(validity[0][1]) <= top:
        validity.pop(0)
    parts = []
    for first, rows in validity:
        part = rows[top - first : bottom - first]
        parts.append(part)
        top += len(part)
    return np.concatenate(parts)


@torch.no_grad()
def averaged_logits(
    model: Segmenter, image: Float32[np.ndarray, "C H W"], *, stride: int, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "1 K h w"]:
    """Return logits at the network's stride, averaged over mirrored and zoomed copies of a normalised image.

    The network must not have to pad the image (see `Segmenter.padded_size`). Zoomed copies have sides that are
    multiples of 32; their logits are resized to the grid of the unzoomed image.
    """
    device = next(model.parameters()).device
    batch = torch.from_numpy(image)[None].to(device)
    coarse = (-(-image.shape[1] // stride), -(-image.shape[2] // stride))
    copies = []
    for scale in scales:
        sides = [max(GRID, round(side * scale / GRID) * GRID) for side in image.shape[1:]]
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


def blended_rows(
    logits_of: Callable[[Window], Tensor | None], grid: list[list[Window]], *, overlap: int, stride: int, classes: int
) -> Iterator[Float[Tensor, "1 K n w"]]:
    """Blend the logits of overlapping tiles; yield finished rows of them, at the stride, from top to bottom.

    Only one row of tiles is in memory. Tiles are added in the order of the grid, so a map is always the same.

    Args:
        logits_of: the logits [1,K,h/s,w/s] of a window, or None where it holds no data.
        grid: windows by row, all of one size.
    """
    height, width = grid[0][0].height // stride, (grid[0][-1].left + grid[0][-1].width) // stride
    weight = torch.from_numpy(blend_weight(height, grid[0][0].width // stride, overlap // stride))
    total, weights = torch.zeros(1, classes, height, width), torch.zeros(height, width)
    for i, row in enumerate(grid):
        for window in row:
            logits = logits_of(window)
            if logits is None:
                continue
            columns = slice(window.left // stride, (window.left + window.width) // stride)
            total[..., columns] += logits.cpu() * weight
            weights[:, columns] += weight
        finished = (grid[i + 1][0].top - row[0].top) // stride if i + 1 < len(grid) else height
        for top, bottom in strips(total.shape, (finished, width)):
            # Where no tile held data the sum is 0, and what is divided there means nothing.
            yield total[:, :, top:bottom] / weights[top:bottom].clamp(min=1e-12)
        for rows in (total[0], weights[None]):
            rows[:, : height - finished] = rows[:, finished:].clone()
            rows[:, height - finished :] = 0


def upsampled_strips(
    blended: Iterator[Float[Tensor, "1 K n w"]], stride: int, *, confidence: bool
) -> Iterator[tuple[int, Integer[Tensor, "n W"], Float[Tensor, "n W"] | None]]:
    """Upsample rows of logits as they come, and decide: yield first row, labels and confidence of each strip.

    A row of cells needs the rows above and below it, so the last two rows of each piece wait for the next piece.

    Args:
        confidence: give it; else None comes in its place.
    """
    top = 0
    held: Tensor | None = None
    # At the rim the outermost row stands for the one beyond.
    for rows in chain(blended, [None]):
        if held is None:
            assert rows is not None, "a raster has at least one row of tiles"
            held = torch.cat([rows[:, :, :1], rows], dim=2)
        else:
            held = torch.cat([held, held[:, :, -1:] if rows is None else rows], dim=2)
        cells = F.pad(held, (1, 1, 0, 0), mode="replicate")
        for first, last in strips(held.shape, (held.shape[2] - 2, held.shape[3])):
            labels, probability = decide_cells(cells[:, :, first : last + 2], stride, confidence=confidence)
            yield top, labels[0], None if probability is None else probability[0]
            top += labels.shape[1]
        held = held[:, :, -2:]
