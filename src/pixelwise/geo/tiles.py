"""The grid of overlapping tiles that covers a scene, and the weights that blend them."""

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
