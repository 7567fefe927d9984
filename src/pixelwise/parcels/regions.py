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


PIECE = np.dtype([("key", np.int64), ("pixels", np.int64), ("x", np.float64), ("y", np.float64)])
"""A region's part in one strip: its key, its pixels, and the sums of the columns and rows of their centres."""
CONTACT = np.dtype([("upper", np.int64), ("lower", np.int64)])
"""Two pieces of one region that meet at the border of two strips."""


def label_regions(read: Reader, height: int, width: int, scratch: Path, *, advance: Advance | None = None) -> Regions:
    """Number the regions of pixels that hold the same number and join by edges.

    Each strip is labelled by itself. Pieces that meet at the border of two strips are then one region. The result
    does not depend on the height of the strips.

    Args:
        read: gives the numbers, 0 or more; negative ones are nowhere.
        scratch: a file to be made, of 4 bytes per pixel.
        advance: called with the share that is done.

    Raises:
        MissingExtraError: the extra ``geo`` is not installed.
    """
    measure = optional_module("skimage.measure")
    raster = RowFile(scratch, height, width, np.int32)
    pieces, contacts = [np.array([(-1, 0, 0, 0)], PIECE)], [np.zeros(0, CONTACT)]
    count, above, numbers_above = 1, None, None
    for strip in strips(height, width, advance):
        numbers = read(strip)
        piece = measure.label(numbers, background=-1, connectivity=1).astype(np.int32)
        piece[numbers < 0] = 0
        new = _measured(piece, numbers, strip)
        piece[piece > 0] += count - 1
        if above is not None:
            meet = (piece[0] > 0) & (above > 0) & (numbers[0] == numbers_above)
            contact = np.empty(meet.sum(), CONTACT)
            contact["upper"], contact["lower"] = above[meet], piece[0][meet]
            contacts.append(np.unique(contact))
        raster.write(strip, piece)
        pieces.append(new)
        count += len(new)
        above, numbers_above = piece[-1], numbers[-1]
    return _joined(np.concatenate(pieces), np.concatenate(contacts), raster)


def _measured(piece: Int[np.ndarray, "h w"], numbers: Integer[np.ndarray, "h w"], strip: Window) -> np.ndarray:
    """Return a `PIECE` for each piece of a strip; pieces are counted from 1."""
    flat, count = piece.ravel(), int(piece.max()) + 1
    out = np.empty(count, PIECE)
    out["key"][flat] = numbers.ravel()
    out["pixels"] = np.bincount(flat, minlength=count)
    out["x"] = np.bincount(flat, np.tile(np.arange(strip.width) + 0.5, strip.height), count)
    out["y"] = np.bincount(flat, np.repeat(np.arange(strip.height) + strip.top + 0.5, strip.width), count)
    return out[1:]


def _joined(pieces: np.ndarray, contacts: np.ndarray, raster: RowFile) -> Regions:
    """Return the regions that pieces form.

    Args:
        pieces: a `PIECE` for each number in the raster; the first one is nowhere.
        contacts: of type `CONTACT`.
    """
    graph, sparse = optional_module("scipy.sparse.csgraph"), optional_module("scipy.sparse")
    ones = np.ones(len(contacts), bool)
    links = sparse.coo_array((ones, (contacts["upper"], contacts["lower"])), shape=(len(pieces), len(pieces)))
    group = graph.connected_components(links, directed=False)[1]
    # Pieces are numbered by their first pixels, so a region's first piece holds its first pixel. Nowhere comes first.
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    region_of = rank[number] - 1
    real, own, count = region_of[1:], pieces[1:], len(first) - 1
    pixels = np.bincount(real, own["pixels"], count)
    centres = np.stack([np.bincount(real, own[axis], count) for axis in ("x", "y")], axis=1) / pixels[:, None]
    return Regions(pieces["key"][np.sort(first)][1:], pixels.astype(np.int64), centres, raster, region_of)


@dataclass(frozen=True)
class Borders:
    """Which regions share an edge of pixels, each pair once."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    across: Int[np.ndarray, " n"]
    """How many edges between a pixel and the one below."""
    upright: Int[np.ndarray, " n"]
    """How many edges between a pixel and the one to its right."""


EDGES = np.dtype([("pair", np.int64), ("across", np.int64), ("upright", np.int64)])
"""Edges that a pair of regions shares in one strip. The pair is one number: first * regions + second."""


def borders(regions: Regions, wanted: Bool[np.ndarray, " regions"], *, advance: Advance | None = None) -> Borders:
    """Count the edges that each wanted region shares with every other region."""
    height, width = regions.pieces.shape
    count = len(regions.keys)
    found = [np.zeros(0, EDGES)]
    for strip in strips(height, width, advance):
        top = max(0, strip.top - 1)
        number = regions.read(Window(top, 0, strip.top + strip.height - top, width))
        own = number[strip.top - top :]
        for kind, one, other in (("across", number[:-1], number[1:]), ("upright", own[:, :-1], own[:, 1:])):
            meet = (one != other) & (one >= 0) & (other >= 0)
            one, other = one[meet], other[meet]
            meet = wanted[one] | wanted[other]
            one, other = one[meet], other[meet]
            pairs, lengths = np.unique(np.minimum(one, other) * count + np.maximum(one, other), return_counts=True)
            edges = np.zeros(len(pairs), EDGES)
            edges["pair"], edges[kind] = pairs, lengths
            found.append(edges)
    edges = np.concatenate(found)
    pairs, which = np.unique(edges["pair"], return_inverse=True)
    across, upright = (np.bincount(which, edges[kind], len(pairs)).astype(np.int64) for kind in ("across", "upright"))
    return Borders(pairs // max(count, 1), pairs % max(count, 1), across, upright)


@dataclass(frozen=True)
class RegionConfidence:
    """The confidence of regions, 0 to 1; NaN where none of a region's pixels has one."""

    mean: Float64[np.ndarray, " n"]
    lowest: Float64[np.ndarray, " n"]


def region_confidence(
    regions: Regions, final: Int[np.ndarray, " regions"], count: int, read: Reader, *, advance: Advance | None = None
) -> RegionConfidence:
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
        number, confidence = of[regions.read(strip)], read(strip)
        known = (number >= 0) & (confidence >= 0)
        number, confidence = number[known], confidence[known].astype(np.int64)
        pixels += np.bincount(number, minlength=count)
        sums += np.bincount(number, confidence, count)
        np.minimum.at(lowest, number, confidence)
    return RegionConfidence(
        np.divide(sums, pixels * 254, out=np.full(count, np.nan), where=pixels > 0),
        np.where(pixels > 0, lowest / 254, np.nan),
    )
