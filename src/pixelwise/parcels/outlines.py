"""The outlines of regions as polygons, exact to the pixel's corner.

A corner of the pixel grid is a vertex of a region if its outline turns there, or if three or more regions meet there.
So two neighbours have the same vertices along the border that they share: the polygons are a coverage. Whether a
corner is a vertex shows in the four pixels around it, so the polygons do not depend on strips, and nothing has to be
joined where two strips meet.
"""

import numpy as np
from jaxtyping import Int, Integer

from pixelwise.optional import optional_module
from pixelwise.parcels.regions import Advance, Reader, strips

EAST, SOUTH, WEST, NORTH = range(4)
# Outlines are walked with the region on the right hand. Which of the pixels around a corner belong to it (1: upper
# left, 2: upper right, 4: lower left, 8: lower right) says from where the outline comes, and where it goes on.
TURNS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((SOUTH, WEST),),
    2: ((WEST, NORTH),),
    4: ((EAST, SOUTH),),
    8: ((NORTH, EAST),),
    7: ((WEST, SOUTH),),
    11: ((NORTH, WEST),),
    13: ((SOUTH, EAST),),
    14: ((EAST, NORTH),),
    # Two pixels that touch at the corner: the outline goes over to the other one. Both belong to one region, so they
    # are joined elsewhere, and one of the two pixels between them is enclosed: a hole that touches the outline.
    9: ((SOUTH, EAST), (NORTH, WEST)),
    6: ((WEST, SOUTH), (EAST, NORTH)),
}
STRAIGHT = {3: (WEST, WEST), 12: (EAST, EAST), 5: (SOUTH, SOUTH), 10: (NORTH, NORTH)}
VERTEX = np.dtype(
    [("region", np.int32), ("row", np.int32), ("column", np.int32), ("arriving", np.int8), ("leaving", np.int8)],
    align=True,
)
"""A vertex of a region: the corner, and the directions in which the outline arrives there and leaves."""


def outline(read: Reader, height: int, width: int, count: int, *, advance: Advance | None = None) -> np.ndarray:
    """Return the polygon of each region, in pixel coordinates (column, row), which are whole numbers.

    Outer rings run clockwise as seen on a map whose rows go south. Memory grows with the vertices, not with the
    pixels.

    Args:
        read: gives the numbers 0 to ``count - 1`` of a window, each a 4-connected region; negative ones are nowhere.
        advance: called with the share that is done.
    """
    found = [np.zeros(0, VERTEX)]
    above = np.full((1, width + 2), -1, np.int64)
    for strip in strips(height, width, advance):
        rows = np.pad(read(strip), ((0, 0), (1, 1)), constant_values=-1)
        found.append(_vertices(np.concatenate([above, rows]), strip.top))
        above = rows[-1:]
    found.append(_vertices(np.concatenate([above, np.full_like(above, -1)]), height))
    vertices = np.concatenate(found)
    return _polygons(vertices, _following(vertices), count)


def _vertices(number: Integer[np.ndarray, "n w"], top: int) -> np.ndarray:
    """Return each `VERTEX` of n-1 rows of corners.

    Args:
        number: rows of regions; the first is that above the row of corners ``top``. Columns have one more on each side.
    """
    around = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]])
    row, column = np.nonzero((around != around[0]).any(axis=0))
    around = around[:, row, column]
    corners = np.zeros(len(row), VERTEX)
    corners["row"], corners["column"] = row + top, column
    out = []
    for place in range(4):
        own = corners["region"] = around[place]
        # Each region once: at the first of its pixels.
        new = (own >= 0) & ~(around[:place] == own).any(axis=0)
        bits = ((around == own) << np.arange(4)[:, None]).sum(axis=0) * new
        for mask, turns in TURNS.items():
            out += [_passed(corners[bits == mask], *turn) for turn in turns]
        for mask, straight in STRAIGHT.items():
            one, other = [i for i in range(4) if not mask >> i & 1]
            out.append(_passed(corners[(bits == mask) & (around[one] != around[other])], *straight))
    found = np.concatenate(out)
    # In an order that does not tell where strips begin.
    return found[np.lexsort((found["leaving"], found["region"], found["column"], found["row"]))]


def _passed(corners: np.ndarray, arriving: int, leaving: int) -> np.ndarray:
    """Return new corners, with the directions in which an outline passes them."""
    vertices = corners.copy()
    vertices["arriving"], vertices["leaving"] = arriving, leaving
    return vertices


def _following(vertices: np.ndarray) -> Int[np.ndarray, " v"]:
    """Return which vertex comes after each."""
    following = np.empty(len(vertices), np.int64)
    for direction in range(4):
        # Along one line of the grid, edges of one region in one direction do not overlap. So the first beginning
        # belongs to the first end, and so on.
        line, along = ("row", "column") if direction in (EAST, WEST) else ("column", "row")
        forward = vertices[along] if direction in (EAST, SOUTH) else -vertices[along]
        begins, ends = (np.flatnonzero(vertices[side] == direction) for side in ("leaving", "arriving"))
        begins = begins[np.lexsort((forward[begins], vertices[line][begins], vertices["region"][begins]))]
        ends = ends[np.lexsort((forward[ends], vertices[line][ends], vertices["region"][ends]))]
        following[begins] = ends
    return following


def _polygons(vertices: np.ndarray, following: Int[np.ndarray, " v"], count: int) -> np.ndarray:
    """Return the polygon of each region, from the vertices of all."""
    shapely = optional_module("shapely")
    order, ring_sizes = _rings(following)
    starts = np.cumsum(ring_sizes) - ring_sizes
    x, y = (vertices[axis][order].astype(np.int64) for axis in ("column", "row"))
    ring_region = vertices["region"][order][starts]
    # The ring's first vertex comes again at its end.
    after = np.arange(1, len(order) + 1)
    after[starts + ring_sizes - 1] = starts
    twice = np.add.reduceat(x * y[after] - x[after] * y, starts) if len(starts) else starts
    hole = twice < 0
    # Regions in order, each with its outer ring before its holes, in the order of their first vertices.
    ring_order = np.lexsort((starts, hole, ring_region))
    sizes = ring_sizes[ring_order] + 1
    ends = np.cumsum(sizes)
    index = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes - starts[ring_order], sizes)
    index[ends - 1] = starts[ring_order]
    of_ring = np.bincount(ring_region, minlength=count)
    return shapely.from_ragged_array(
        shapely.GeometryType.POLYGON,
        np.stack([x, y], axis=1)[index].astype(np.float64),
        (np.append(0, ends), np.append(0, np.cumsum(of_ring))),
    )


def _rings(following: Int[np.ndarray, " v"]) -> tuple[Int[np.ndarray, " v"], Int[np.ndarray, " rings"]]:
    """Return the vertices ring by ring, each from its lowest number on, and the sizes of the rings.

    The lowest number travels around the rings by doubling strides, and so does the distance to it.
    """
    lowest, stride = np.arange(len(following)), following
    while True:
        seen = np.minimum(lowest, lowest[stride])
        if np.array_equal(seen, lowest):
            break
        lowest, stride = seen, stride[stride]
    own = np.arange(len(following))
    head = lowest == own
    left, stride = np.where(head[following], 0, 1), np.where(head[following], own, following)
    # ``left``: how many vertices come after this one in its ring.
    while True:
        further = left + left[stride]
        if np.array_equal(further, left):
            break
        left, stride = further, stride[stride]
    order = np.lexsort((-left, lowest))
    _, sizes = np.unique(lowest, return_counts=True)
    return order, sizes
