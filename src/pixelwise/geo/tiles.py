"""The grid of overlapping tiles that covers a scene, and the weights that blend them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from pixelwise.geo.raster import Window

GRID = 32
"""Tiles start at multiples of this, so that every network's coarse pixels of different tiles coincide."""


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles start along one axis, so that they cover ``length`` pixels and share at least ``overlap``.

    The last tile is moved back to end where the scene does, rounded up to `GRID`: it reaches less than that beyond.
    """
    end = -(-length // GRID) * GRID
    last = max(0, end - tile)
    return [*range(0, last, tile - overlap), last]


def tile_windows(height: int, width: int, tile: int, overlap: int) -> list[list[Window]]:
    """Return the tiles of a scene, a list per row of tiles from the top; all are of one size.

    Where the scene is smaller than a tile, tiles are as large as the scene, rounded up to `GRID`.
    """
    tall, wide = (min(tile, -(-length // GRID) * GRID) for length in (height, width))
    return [
        [Window(top, left, tall, wide) for left in tile_starts(width, wide, min(overlap, wide // 2))]
        for top in tile_starts(height, tall, min(overlap, tall // 2))
    ]


def blend_weight(height: int, width: int, overlap: int) -> Float32[np.ndarray, "h w"]:
    """Return a tile's weights: 1 inside, falling linearly to its rim over the overlap, never 0."""
    down, across = _ramp(height, overlap), _ramp(width, overlap)
    return down[:, None] * across[None, :]


def _ramp(length: int, overlap: int) -> Float32[np.ndarray, " n"]:
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 0.5
    return np.minimum(1, distance / max(overlap, 1)).astype(np.float32)


@dataclass(frozen=True)
class StripPlan:
    """A raster cut into rows of overlapping tiles, and into strips: the rows of the map that a row of tiles finishes.

    Strip i needs rows of tiles up to i only, so that each can be made, kept and written by itself. Rows are counted in
    cells of ``stride`` x ``stride`` pixels. Between two cell rows pixels mix both, so a strip needs one more cell row
    above and below than it has, and ends one cell row above the tiles that follow.
    """

    height: int
    width: int
    stride: int
    tile: int
    """Side that was asked for; tiles of a small raster are smaller."""
    overlap: int
    rows: tuple[tuple[Window, ...], ...]
    """Tiles by row, all of one size."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cell_height(self) -> int:
        """Cell rows in all; the last ones may lie beyond the raster."""
        return (self.rows[-1][0].top + self.rows[-1][0].height) // self.stride

    @property
    def cell_width(self) -> int:
        """Cells in a row."""
        return (self.rows[0][-1].left + self.rows[0][-1].width) // self.stride

    def cells(self, strip: int) -> tuple[int, int]:
        """Return the first cell row of a strip, and the first below it; the two may be the same."""
        edges = [0, *(row[0].top // self.stride - 1 for row in self.rows[1:]), self.cell_height]
        return edges[strip], edges[strip + 1]

    def pixels(self, strip: int) -> tuple[int, int]:
        """Return the first row of pixels of a strip, and the first below it, both within the raster."""
        top, bottom = self.cells(strip)
        return min(self.height, top * self.stride), min(self.height, bottom * self.stride)

    def needed(self, strip: int) -> list[int]:
        """Return the rows of tiles that a strip is made of, from the top."""
        top, bottom = (cell * self.stride for cell in self.reach(strip))
        return [i for i, (tile, *_) in enumerate(self.rows) if tile.top < bottom and tile.top + tile.height > top]

    def reach(self, strip: int) -> tuple[int, int]:
        """Return `cells` with the neighbours above and below, where there are any."""
        first, last = self.cells(strip)
        return max(0, first - 1), min(last + 1, self.cell_height)


def plan_strips(height: int, width: int, tile: int, overlap: int, stride: int) -> StripPlan:
    """Return the strips of a raster for tiles of ``tile`` pixels that share ``overlap``, and a network's stride."""
    rows = tuple(tuple(row) for row in tile_windows(height, width, tile, overlap))
    return StripPlan(height, width, stride, tile, overlap, rows)
