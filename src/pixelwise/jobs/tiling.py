"""From a raster to strips of labels, tile by tile, in memory that does not grow with the raster's height.

Tiles overlap. Their logits are weighted and added at the network's stride; bilinear upsampling is linear, so it comes
once, after the blending, and only for the strip at hand.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Integer
from torch import Tensor

from pixelwise.data.stats import normalize
from pixelwise.geo.raster import RasterReader, Window
from pixelwise.geo.tiles import GRID, blend_weight, tile_windows
from pixelwise.jobs.model_folder import ModelCard
from pixelwise.models import Segmenter
from pixelwise.models.upsampling import decide, strips, upsample_rows


@dataclass(frozen=True)
class Strip:
    """Finished rows of a label map."""

    top: int
    labels: Integer[np.ndarray, "n W"]
    confidence: Float32[np.ndarray, "n W"]
    """Softmax probability of the label, 0 to 1."""
    valid: Bool[np.ndarray, "n W"]
    """False where the raster holds no data; the label there means nothing."""


def predict_strips(
    model: Segmenter,
    reader: RasterReader,
    card: ModelCard,
    *,
    tile: int,
    overlap: int,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    advance: Callable[[float], None] | None = None,
) -> Iterator[Strip]:
    """Predict a raster of any size; strips come from top to bottom and cover it.

    Args:
        tile, overlap: multiples of 32, the overlap at most half a tile. A raster within one tile is one piece.
        flips: average the logits of each tile with those of its mirror image.
        scales: average the logits of each tile over zoomed copies.
        advance: called with the share that is done, 0 to 1, after each tile.

    Raises:
        DataError: the raster is corrupt.
    """
    height, width = reader.info.height, reader.info.width
    grid = tile_windows(height, width, tile, overlap)
    stride = output_stride(model)
    done = 0

    def logits_of(window: Window) -> Float[Tensor, "1 K h w"] | None:
        nonlocal done
        done += 1
        if advance:
            advance(done / (len(grid) * len(grid[0])))
        values, valid = reader.read_padded(window)
        if not valid.any():
            return None
        return averaged_logits(model, normalize(values, valid, card.mean, card.std), flips=flips, scales=scales)

    rows = blended_rows(logits_of, grid, overlap=overlap, stride=stride, classes=len(card.classes))
    coarse = (grid[-1][0].top + grid[-1][0].height) // stride
    for top, labels, confidence in upsampled_strips(rows, coarse, stride):
        # The last tiles reach beyond the raster; so do their strips.
        count = min(height - top, len(labels))
        if count > 0:
            _, valid = reader.read(Window(top, 0, count, width))
            yield Strip(top, labels[:count, :width].numpy(), confidence[:count, :width].numpy(), valid)


@torch.no_grad()
def averaged_logits(
    model: Segmenter, image: Float32[np.ndarray, "C H W"], *, flips: bool, scales: Sequence[float]
) -> Float[Tensor, "1 K h w"]:
    """Return logits at the network's stride, averaged over mirrored and zoomed copies of a normalised image."""
    device = next(model.parameters()).device
    batch = torch.from_numpy(image)[None].to(device)
    total: Tensor | None = None
    for scale in scales:
        side = [max(GRID, round(n * scale / GRID) * GRID) for n in batch.shape[-2:]]
        zoomed = batch if scale == 1 else F.interpolate(batch, size=side, mode="bilinear", align_corners=False)
        for mirrored in (False, True) if flips else (False,):
            logits = model.decode(zoomed.flip(-1) if mirrored else zoomed).logits.float()
            logits = logits.flip(-1) if mirrored else logits
            if total is not None and logits.shape != total.shape:
                logits = F.interpolate(logits, size=total.shape[-2:], mode="bilinear", align_corners=False)
            total = logits if total is None else total + logits
    assert total is not None
    return total / (len(scales) * (2 if flips else 1))


def output_stride(model: Segmenter) -> int:
    """Return how many pixels one logit covers along each axis, measured on a small empty image."""
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = model.decode(torch.zeros(1, model.architecture.bands, 2 * GRID, 2 * GRID, device=device)).logits
    return 2 * GRID // logits.shape[-1]


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
        # Where no tile held data the sum is 0, and what is divided there means nothing.
        yield total[:, :, :finished] / weights[:finished].clamp(min=1e-12)
        total = F.pad(total[:, :, finished:], (0, 0, 0, finished))
        weights = F.pad(weights[finished:], (0, 0, 0, finished))


def upsampled_strips(
    blended: Iterator[Float[Tensor, "1 K n w"]], coarse: int, stride: int
) -> Iterator[tuple[int, Integer[Tensor, "n W"], Float[Tensor, "n W"]]]:
    """Upsample rows of logits as they come, and decide: yield first row, labels and confidence of each strip.

    A full-size row lies between two coarse ones, so the last coarse row of each piece waits for the next piece.

    Args:
        coarse: how many coarse rows there will be.
    """
    first, top = 0, 0
    held: Tensor | None = None
    for rows in blended:
        held = rows if held is None else torch.cat([held, rows], dim=2)
        known = first + held.shape[2]
        end = coarse * stride if known == coarse else known * stride - (stride + 1) // 2
        size = (coarse * stride, held.shape[3] * stride)
        for a, b in strips(held.shape, (end - top, size[1])):
            piece = upsample_rows(held, size, top + a, top + b, first=first, coarse=coarse)
            labels, confidence = decide(piece, confidence=True)
            assert confidence is not None
            yield top + a, labels[0], confidence[0]
        top = end
        first, held = known - 1, held[:, :, -1:]
