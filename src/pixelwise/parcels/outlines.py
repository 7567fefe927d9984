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


def outline(read: Reader, height: int, width: int, count: int, *, advance: Advance | None = None) -> np.ndarray:
    """Return the polygon of each region, in pixel coordinates (column, row), whole numbers all of them.

    Outer rings run clockwise as seen on a map whose rows go south. Memory grows with the vertices, not with the
    pixels.

    Args:
        read: gives the numbers 0 to ``count - 1`` of a window, each a 4-connected region; negative ones are nowhere.
        advance: called with the share that is done.
    """
    found = [np.zeros((5, 0), np.int32)]
    above = np.full((1, width + 2), -1, np.int64)
    for strip in strips(height, width, advance):
        rows = np.pad(read(strip), ((0, 0), (1, 1)), constant_values=-1)
        found.append(_vertices(np.concatenate([above, rows]), strip.top))
        above = rows[-1:]
    found.append(_vertices(np.concatenate([above, np.full_like(above, -1)]), height))
    region, row, column, arriving, leaving = np.concatenate(found, axis=1)
    following = _following(region, row, column, arriving, leaving)
    return _polygons(region, np.stack([column, row], axis=1), following, count)


def _vertices(number: Integer[np.ndarray, "n w"], top: int) -> Int[np.ndarray, "5 v"]:
    """Return region, row, column, and the directions in which the outline arrives and leaves, for n-1 rows of corners.

    Args:
        number: rows of regions; the first is that above the row of corners ``top``. Columns have one more on each side.
    """
    around = np.stack([number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]])
    row, column = np.nonzero((around != around[0]).any(axis=0))
    around = around[:, row, column]
    out = []
    for place in range(4):
        own = around[place]
        # Each region once: at the first of its pixels.
        new = (own >= 0) & ~(around[:place] == own).any(axis=0)
        bits = ((around == own) << np.arange(4)[:, None]).sum(axis=0) * new
        for mask, turns in TURNS.items():
            at = np.flatnonzero(bits == mask)
            out += [_records(own, row + top, column, at, *turn) for turn in turns]
        for mask, straight in STRAIGHT.items():
            one, other = [i for i in range(4) if not mask >> i & 1]
            at = np.flatnonzero((bits == mask) & (around[one] != around[other]))
            out.append(_records(own, row + top, column, at, *straight))
    found = np.concatenate(out, axis=1)
    # In an order that does not tell where strips begin.
    return found[:, np.lexsort((found[4], found[0], found[2], found[1]))]


def _records(
    region: np.ndarray, row: np.ndarray, column: np.ndarray, at: np.ndarray, arriving: int, leaving: int
) -> Int[np.ndarray, "5 v"]:
    directions = np.broadcast_to(np.array([[arriving], [leaving]]), (2, len(at)))
    return np.concatenate([np.stack([region[at], row[at], column[at]]), directions]).astype(np.int32)


def _following(
    region: np.ndarray, row: np.ndarray, column: np.ndarray, arriving: np.ndarray, leaving: np.ndarray
) -> Int[np.ndarray, " v"]:
    """Return which vertex comes after each."""
    following = np.empty(len(region), np.int64)
    for direction in range(4):
        # Along one line of the grid, edges of one region in one direction do not overlap. So the first beginning
        # belongs to the first end, and so on.
        line, along = (row, column) if direction in (EAST, WEST) else (column, row)
        forward = along if direction in (EAST, SOUTH) else -along
        begins, ends = np.flatnonzero(leaving == direction), np.flatnonzero(arriving == direction)
        begins = begins[np.lexsort((forward[begins], line[begins], region[begins]))]
        ends = ends[np.lexsort((forward[ends], line[ends], region[ends]))]
        following[begins] = ends
    return following


def _polygons(
    region: np.ndarray, xy: Int[np.ndarray, "v 2"], following: Int[np.ndarray, " v"], count: int
) -> np.ndarray:
    shapely = optional_module("shapely")
    order, ring_sizes = _rings(following)
    starts = np.cumsum(ring_sizes) - ring_sizes
    xy, ring_region = xy[order].astype(np.int64), region[order][starts]
    # The ring's first vertex comes again at its end.
    after = np.arange(1, len(order) + 1)
    after[starts + ring_sizes - 1] = starts
    twice = np.add.reduceat(xy[:, 0] * xy[after, 1] - xy[after, 0] * xy[:, 1], starts) if len(starts) else starts
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
        xy[index].astype(np.float64),
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
