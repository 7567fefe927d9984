"""Connected regions of a raster of any size, found strip by strip."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int, Integer

from pixelwise.geo.raster import Window
from pixelwise.optional import optional_module
from pixelwise.parcels.disk_array import RowFile

STRIP_PIXELS = 2**21
"""About how many pixels are worked on at once."""

Reader = Callable[[Window], Integer[np.ndarray, "h w"]]
"""Gives the numbers of a window; negative ones are nowhere."""
Advance = Callable[[float], None]
"""Is called with the share of a piece of work that is done, 0 to 1."""


def keep_silent(stage: str, share: float) -> None:
    """Tell nobody which stage the work is in, and which share of it is done."""


def strips(height: int, width: int, advance: Advance | None = None) -> Iterator[Window]:
    """Yield full-width windows from top to bottom, each of about `STRIP_PIXELS`.

    Args:
        advance: called with the share of the rows that is done, each time that a window has been worked on.
    """
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = Window(top, 0, min(rows, height - top), width)
        yield strip
        if advance is not None:
            advance((top + strip.height) / height)


@dataclass(frozen=True)
class Regions:
    """The 4-connected regions of equal numbers, in the order of their first pixels, row by row.

    The arrays have one entry for each region; none grows with the pixels.
    """

    keys: Int[np.ndarray, " n"]
    """The number that its pixels hold."""
    pixels: Int[np.ndarray, " n"]
    centres: Float64[np.ndarray, "n 2"]
    """Mean column and row of its pixels' centres."""
    pieces: RowFile
    """For each pixel, the number of the piece that it has in its strip, counted from 1; 0 is nowhere."""
    region_of: Int[np.ndarray, " pieces"]
    """The region of each piece; -1 for nowhere, which is the piece 0."""

    def read(self, window: Window) -> Int[np.ndarray, "h w"]:
        """Return the region of each pixel of a window, and -1 for nowhere."""
        return self.region_of[self.pieces.read(window)]


def label_regions(read: Reader, height: int, width: int, scratch: Path, *, advance: Advance | None = None) -> Regions:
    """Number the regions of pixels that hold the same number and join by edges.

    Each strip is labelled by itself; pieces that meet at the border of two strips are then one region. The result
    does not depend on the height of the strips.

    Args:
        read: gives the numbers, 0 or more; negative ones are nowhere.
        scratch: a file to be made, of 4 bytes per pixel.
        advance: called with the share that is done.

    Raises:
        MissingExtraError: the extra ``geo`` is not installed.
    """
    measure, graph = optional_module("skimage.measure"), optional_module("scipy.sparse.csgraph")
    coo_array = optional_module("scipy.sparse").coo_array
    pieces = RowFile(scratch, height, width, np.int32)
    keys, pixels = [np.array([-1])], [np.array([0])]
    sums: list[np.ndarray] = [np.zeros((1, 2))]
    meetings = [np.zeros((2, 0), np.int64)]
    count, above, numbers_above = 1, None, None
    for strip in strips(height, width, advance):
        numbers = read(strip)
        found = measure.label(numbers, background=-1, connectivity=1).astype(np.int32)
        found[numbers < 0] = 0
        own = int(found.max()) + 1
        flat = found.ravel()
        sizes = np.bincount(flat, minlength=own)[1:]
        first = np.zeros(own, np.int64)
        first[flat] = numbers.ravel()
        keys.append(first[1:])
        pixels.append(sizes)
        columns = np.bincount(flat, np.tile(np.arange(width) + 0.5, strip.height), own)[1:]
        rows = np.bincount(flat, np.repeat(np.arange(strip.height) + strip.top + 0.5, width), own)[1:]
        sums.append(np.stack([columns, rows], axis=1))
        found[found > 0] += count - 1
        if above is not None:
            meet = (found[0] > 0) & (above > 0) & (numbers[0] == numbers_above)
            meetings.append(np.unique(np.stack([above[meet], found[0][meet]]), axis=1))
        pieces.write(strip, found)
        count += own - 1
        above, numbers_above = found[-1], numbers[-1]
    first_piece, second_piece = np.concatenate(meetings, axis=1)
    links = coo_array((np.ones(len(first_piece), bool), (first_piece, second_piece)), shape=(count, count))
    group = graph.connected_components(links, directed=False)[1]
    # Pieces are numbered by their first pixels, so a region's first piece holds its first pixel. Nowhere comes first.
    _, at, number = np.unique(group, return_index=True, return_inverse=True)
    rank = np.empty(len(at), np.int64)
    rank[np.argsort(at)] = np.arange(len(at))
    region_of = rank[number] - 1
    real, regions = region_of[1:], len(at) - 1
    total = np.bincount(real, np.concatenate(pixels)[1:], regions)
    xy = np.concatenate(sums)[1:]
    centres = np.stack([np.bincount(real, xy[:, axis], regions) for axis in (0, 1)], axis=1) / total[:, None]
    return Regions(np.concatenate(keys)[np.sort(at)][1:], total.astype(np.int64), centres, pieces, region_of)


@dataclass(frozen=True)
class Borders:
    """Which regions share an edge of pixels, each pair once."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    across: Int[np.ndarray, " n"]
    """How many edges between a pixel and the one below."""
    upright: Int[np.ndarray, " n"]
    """How many edges between a pixel and the one to its right."""


def borders(regions: Regions, wanted: Bool[np.ndarray, " regions"], *, advance: Advance | None = None) -> Borders:
    """Count the edges that each wanted region shares with every other region."""
    height, width = regions.pieces.shape
    count = len(regions.keys)
    codes, lengths = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)]
    for strip in strips(height, width, advance):
        top = max(0, strip.top - 1)
        number = regions.read(Window(top, 0, strip.top + strip.height - top, width))
        own = number[strip.top - top :]
        for axis, one, other in ((0, number[:-1], number[1:]), (1, own[:, :-1], own[:, 1:])):
            meet = (one != other) & (one >= 0) & (other >= 0)
            one, other = one[meet], other[meet]
            meet = wanted[one] | wanted[other]
            one, other = one[meet], other[meet]
            found, edges = np.unique(np.minimum(one, other) * count + np.maximum(one, other), return_counts=True)
            codes.append(found)
            lengths.append(np.stack([edges, 0 * edges] if axis == 0 else [0 * edges, edges], axis=1))
    pairs, which = np.unique(np.concatenate(codes), return_inverse=True)
    along = np.concatenate(lengths)
    across, upright = (np.bincount(which, along[:, i], len(pairs)).astype(np.int64) for i in (0, 1))
    return Borders(pairs // max(count, 1), pairs % max(count, 1), across, upright)


@dataclass(frozen=True)
class Sureness:
    """The confidence of regions, 0 to 1; NaN where none of a region's pixels has one."""

    mean: Float64[np.ndarray, " n"]
    lowest: Float64[np.ndarray, " n"]


def sureness(
    regions: Regions, final: Int[np.ndarray, " regions"], count: int, read: Reader, *, advance: Advance | None = None
) -> Sureness:
    """Return the mean and the lowest confidence of merged regions.

    Args:
        final: for each region, the number of the merged one that it belongs to.
        count: how many merged ones there are.
        read: gives the confidence of a window, 0 to 254 for 0 to 1; negative numbers are no confidence.
    """
    height, width = regions.pieces.shape
    pixels, sums, lowest = np.zeros(count), np.zeros(count), np.full(count, 255, np.int64)
    of = np.append(final, -1)
    for strip in strips(height, width, advance):
        number, sure = of[regions.read(strip)], read(strip)
        known = (number >= 0) & (sure >= 0)
        number, sure = number[known], sure[known].astype(np.int64)
        pixels += np.bincount(number, minlength=count)
        sums += np.bincount(number, sure, count)
        np.minimum.at(lowest, number, sure)
    return Sureness(
        np.divide(sums, pixels * 254, out=np.full(count, np.nan), where=pixels > 0),
        np.where(pixels > 0, lowest / 254, np.nan),
    )
