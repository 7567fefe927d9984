"""The grid of overlapping tiles that covers a scene, and the weights that blend them."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from pixelwise.geo.raster import Window

GRID = 32
"""Tiles start at multiples of this, so that every network's coarse pixels of different tiles coincide."""
PIECE = 4096
"""Width of the pieces that strips are cut into: memory does not grow with what lies beside. Whole blocks of a map."""

Place = tuple[int, int]
"""A piece of a map: its strip, from the top, and its column of pieces, from the left."""


@dataclass(frozen=True)
class Rect:
    """A rectangle of pixels or of cells. `bottom` and `right` are the first row and column behind it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def empty(self) -> bool:
        """It holds nothing."""
        return 0 in self.shape

    def __and__(self, other: "Rect") -> "Rect":
        """Return what two rectangles share; an empty one where that is nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Rect(top, left, max(top, min(self.bottom, other.bottom)), max(left, min(self.right, other.right)))

    def times(self, stride: int) -> "Rect":
        """Return the pixels of these cells."""
        return Rect(self.top * stride, self.left * stride, self.bottom * stride, self.right * stride)

    def grown(self, cells: int) -> "Rect":
        """Return it with so many more cells on each side."""
        return Rect(self.top - cells, self.left - cells, self.bottom + cells, self.right + cells)

    def short_of(self, outer: "Rect") -> tuple[tuple[int, int], tuple[int, int]]:
        """Return how many rows above and below, and columns on the left and right, only `outer` has."""
        rows = (self.top - outer.top, outer.bottom - self.bottom)
        return rows, (self.left - outer.left, outer.right - self.right)

    def inside(self, outer: "Rect") -> tuple[slice, slice]:
        """Return where it lies in an array that holds `outer`."""
        rows = slice(self.top - outer.top, self.bottom - outer.top)
        return rows, slice(self.left - outer.left, self.right - outer.left)


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
class Cuts:
    """Where a raster is cut along one axis, counted in cells."""

    edges: tuple[int, ...]
    """The first cell of each part, and the end of the last one, which may lie beyond the raster."""

    def __len__(self) -> int:
        return len(self.edges) - 1

    def reach(self, part: int) -> tuple[int, int]:
        """Return the cells of a part and one more on each side: pixels between two cells mix both."""
        return max(0, self.edges[part] - 1), min(self.edges[part + 1] + 1, self.edges[-1])

    def meeting(self, first: int, last: int) -> range:
        """Return the parts that hold cells from ``first`` on, up to but not with ``last``."""
        return range(bisect_right(self.edges, first) - 1, min(bisect_left(self.edges, last), len(self)))


@dataclass(frozen=True)
class StripPlan:
    """A raster cut into rows of overlapping tiles, into the strips that a row of tiles finishes, and these into pieces.

    Strip i needs rows of tiles up to i only, so that each can be made, kept and written by itself; it ends one row of
    cells above the tiles that follow. Pieces have one width whatever the machine, so that no byte depends on it.
    """

    height: int
    width: int
    stride: int
    tile: int
    """Side that was asked for; tiles of a small raster are smaller."""
    overlap: int
    rows: tuple[tuple[Window, ...], ...]
    """Tiles by row, all of one size."""
    down: Cuts
    """The strips."""
    across: Cuts
    """The columns of pieces."""

    @property
    def cells(self) -> Rect:
        """All cells; the last ones may lie beyond the raster."""
        return Rect(0, 0, self.down.edges[-1], self.across.edges[-1])

    @property
    def raster(self) -> Rect:
        """All pixels."""
        return Rect(0, 0, self.height, self.width)

    def piece(self, place: Place) -> Rect:
        """Return the cells of a piece. A strip may have none."""
        (row, column), down, across = place, self.down.edges, self.across.edges
        return Rect(down[row], across[column], down[row + 1], across[column + 1])

    def pixels(self, cells: Rect) -> Rect:
        """Return the pixels of the raster that cells cover."""
        return cells.times(self.stride) & self.raster

    def covering(self, pixels: Rect) -> Rect:
        """Return the cells that cover pixels."""
        s = self.stride
        return Rect(pixels.top // s, pixels.left // s, -(-pixels.bottom // s), -(-pixels.right // s))

    def places(self, cells: Rect) -> list[Place]:
        """Return the pieces that hold any of these cells."""
        rows, columns = self.down.meeting(cells.top, cells.bottom), self.across.meeting(cells.left, cells.right)
        return [(row, column) for row in rows for column in columns]

    def tile_cells(self, tile: Window) -> Rect:
        """Return the cells of a tile."""
        top, left, stride = tile.top // self.stride, tile.left // self.stride, self.stride
        return Rect(top, left, top + tile.height // stride, left + tile.width // stride)

    def sum_cells(self, row: int, column: int) -> Rect:
        """Return the cells that a row of tiles is summed in for a column of pieces: all that its tiles cover from the
        column's `Cuts.reach` on.
        """
        first, last = self.across.reach(column)
        tiles = [self.tile_cells(tile) for tile in self.tiles(row, column, begun=False)]
        above = self.tile_cells(self.rows[row][0])
        return Rect(above.top, first, above.bottom, max([last, *(tile.right for tile in tiles)]))

    def below(self, place: Place) -> Rect:
        """Return the cells of the sums of a piece that the piece below needs; none in the lowest strip."""
        (row, column), bottom = place, self.down.edges[-1]
        first, last = self.across.reach(column)
        return Rect(self.down.reach(row + 1)[0] if row + 1 < len(self.down) else bottom, first, bottom, last)

    def needed(self, strip: int) -> list[int]:
        """Return the rows of tiles that a strip is made of, from the top."""
        top, bottom = (cell * self.stride for cell in self.down.reach(strip))
        return [i for i, (tile, *_) in enumerate(self.rows) if tile.top < bottom and tile.top + tile.height > top]

    def tiles(self, row: int, column: int, *, begun: bool) -> list[Window]:
        """Return the tiles of a row that a column of pieces needs; if ``begun``, those that none before it does."""
        left, right = (cell * self.stride for cell in self.across.reach(column))
        before = self.across.reach(column - 1)[1] * self.stride if begun and column else 0
        return [tile for tile in self.rows[row] if before <= tile.left < right and tile.left + tile.width > left]


def plan_strips(height: int, width: int, tile: int, overlap: int, stride: int, *, piece: int = PIECE) -> StripPlan:
    """Return the strips of a raster for tiles of ``tile`` pixels that share ``overlap``, and a network's stride.

    Pieces are ``piece`` pixels wide, a multiple of `GRID`; a raster of one column of tiles is one piece wide.
    """
    rows = tuple(tuple(row) for row in tile_windows(height, width, tile, overlap))
    last = rows[-1][-1]
    tops = (0, *(row[0].top // stride - 1 for row in rows[1:]), (last.top + last.height) // stride)
    lefts = [*range(0, width if len(rows[0]) > 1 else 1, piece), last.left + last.width]
    down, across = Cuts(tops), Cuts(tuple(left // stride for left in lefts))
    return StripPlan(height, width, stride, tile, overlap, rows, down, across)
