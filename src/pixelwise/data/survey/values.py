"""The values or colours of masks: how often each occurs, and which of them are classes."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterReader, Window, describe
from pixelwise.labels import pack_colours

MASKS = 2000
"""Masks that are read, evenly over all."""
WINDOW = 2048
"""Side of the windows of a large mask that are read: at most nine."""
KEPT = 4096
"""Values kept of one mask; a mask with more was compressed with losses, or is none."""
PALETTE = dict[int, tuple[int, int, int, int]]


@dataclass
class MaskValues:
    """What some masks hold."""

    coloured: bool = False
    """Values are colours 0xRRGGBB."""
    masks: int = 0
    of: int = 0
    """Of how many masks these are."""
    pixels: Counter[int] = field(default_factory=Counter)
    inside: Counter[int] = field(default_factory=Counter)
    """Pixels whose eight neighbours have the same value."""
    files: Counter[int] = field(default_factory=Counter)
    """In how many masks."""
    counted: int = 0
    """Masks whose values are 0 or 1 to n without a gap, n above 2."""
    blobs: list[float] = field(default_factory=list)
    """Of values in a mask: share of its bounding box that the value fills; near 1 for single objects."""
    palette: PALETTE | None = None
    """Of paletted masks, if all have the same."""
    lossy: bool = False
    nodata: int | None = None
    """What the files say."""

    @property
    def total(self) -> int:
        """All pixels."""
        return sum(self.pixels.values())

    def share(self, values: Iterable[int]) -> float:
        """The share of the pixels that have one of some values."""
        return sum(self.pixels[value] for value in values) / max(1, self.total)


def read_values(paths: Sequence[Path], *, advance: Callable[[], None] | None = None) -> MaskValues:
    """Read masks, at most `MASKS` of them, and of large ones nine windows."""
    step = max(1, -(-len(paths) // MASKS))
    chosen = paths[::step]
    kinds, palettes = [], []
    for path in chosen[:: max(1, len(chosen) // 50)]:
        try:
            info = describe(path)
        except DataError:
            continue
        kinds.append("palette" if info.paletted else "colours" if len(info.colour_bands) == 3 else "numbers")
        if info.paletted:
            reader = RasterReader(info)
            palettes.append(reader.colour_table())
            reader.close()
    same = len({tuple(sorted(table.items())) for table in palettes}) <= 1
    looked_up = "palette" in kinds and ("colours" in kinds or not same)
    found = MaskValues(of=len(paths), palette=palettes[0] if palettes and same and not looked_up else None)
    found.coloured = looked_up or ("colours" in kinds and not _all_grey(chosen))
    with ThreadPoolExecutor(4) as pool:
        for each in pool.map(lambda path: _read(path, coloured=found.coloured), chosen):
            if each is not None:
                _add(found, each)
            if advance:
                advance()
    return found


@dataclass
class _One:
    values: np.ndarray
    pixels: np.ndarray
    inside: np.ndarray
    blobs: list[float]
    lossy: bool
    nodata: float | None


def _read(path: Path, *, coloured: bool) -> _One | None:
    try:
        info = describe(path)
        reader = RasterReader(info, nodata=math.nan)
        palette = reader.colour_table() if info.paletted and coloured else None
        pixels, inside, blobs = Counter[int](), Counter[int](), list[float]()
        for window in _windows(info.height, info.width):
            raw, _ = reader.read(window)
            if raw.dtype.kind not in "ui":
                return None
            if palette is not None:
                table = np.zeros((256, 3), np.int32)
                for index, colour in palette.items():
                    table[index] = colour[:3]
                raw = np.moveaxis(table[raw[0]], -1, 0)
            plane = pack_colours(np.broadcast_to(raw[:3], (3, *raw.shape[1:]))) if coloured else raw[0]
            _count(plane.astype(np.int64), pixels, inside, blobs)
        reader.close()
    except (DataError, IndexError, ValueError):
        return None
    kept = np.array([value for value, _ in pixels.most_common(KEPT)])
    shown, within = (np.array([counter[value] for value in kept.tolist()]) for counter in (pixels, inside))
    return _One(kept, shown, within, blobs, info.lossy, info.nodata)


def _windows(height: int, width: int) -> list[Window]:
    def starts(length: int) -> list[tuple[int, int]]:
        if length <= 3 * WINDOW:
            return [(0, length)]
        return [(at, WINDOW) for at in (0, (length - WINDOW) // 2, length - WINDOW)]

    return [Window(top, left, h, w) for top, h in starts(height) for left, w in starts(width)]


def _count(plane: Integer[np.ndarray, "h w"], pixels: Counter, inside: Counter, blobs: list[float]) -> None:
    values, index, counts = np.unique(plane, return_inverse=True, return_counts=True)
    index = index.reshape(plane.shape)
    within = np.bincount(index[1:-1, 1:-1][_uniform(plane)], minlength=len(values))
    pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    inside.update({value: count for value, count in zip(values.tolist(), within.tolist(), strict=True) if count})
    # The first value is the background of objects that are counted.
    for at in range(1, min(len(values), 24)):
        rows, columns = (np.flatnonzero((index == at).any(axis=axis)) for axis in (1, 0))
        blobs.append(float(counts[at]) / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)))


def _uniform(plane: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "hi wi"]:
    """Return where a pixel off the border equals its eight neighbours."""
    height, width = plane.shape
    if height < 3 or width < 3:
        return np.zeros((max(0, height - 2), max(0, width - 2)), bool)
    across = (plane[:, 1:-1] == plane[:, :-2]) & (plane[:, 1:-1] == plane[:, 2:])
    same = across[1:-1] & across[:-2] & across[2:]
    return same & (plane[1:-1, 1:-1] == plane[:-2, 1:-1]) & (plane[1:-1, 1:-1] == plane[2:, 1:-1])


def _add(found: MaskValues, each: _One) -> None:
    found.masks += 1
    listed = each.values.tolist()
    found.counted += len(listed) > 3 and max(listed) - max(1, min(listed)) == len(set(listed) - {0}) - 1
    found.pixels.update(dict(zip(listed, each.pixels.tolist(), strict=True)))
    found.inside.update(dict(zip(listed, each.inside.tolist(), strict=True)))
    found.files.update(listed)
    found.blobs += each.blobs
    found.lossy |= each.lossy
    if each.nodata is not None and float(each.nodata).is_integer():
        found.nodata = int(each.nodata)


def _all_grey(paths: Sequence[Path]) -> bool:
    for path in paths[:: max(1, len(paths) // 8)]:
        try:
            info = describe(path)
            reader = RasterReader(info)
            values, _ = reader.read(_windows(info.height, info.width)[0])
            reader.close()
        except DataError:
            continue
        if len(values) >= 3 and (values[:3] != values[0]).any():
            return False
    return True


@dataclass(frozen=True)
class Chosen:
    """Which values are classes."""

    values: tuple[int, ...]
    """From the lowest; colours from the most frequent."""
    strays: tuple[int, ...]
    """Values of too few pixels, or only along edges."""
    instances: bool = False
    """Each value but the first is an object of its own."""


MANY = 40
"""Masks with more values are not read as they stand."""
RARE = 1e-4
"""A colour of a smaller share of the pixels is a stray one, unless something names it."""
THICK = 0.1
"""A value that only lies along edges has a smaller share of its pixels inside."""


def choose_values(found: MaskValues, named: Iterable[int] = ()) -> Chosen:
    """Tell classes from stray values by count, and by whether they fill areas.

    Args:
        named: values or colours that a file beside the masks names.
    """
    named, ordered = set(named), [value for value, _ in found.pixels.most_common()]
    if len(ordered) > MANY and not found.coloured and not found.lossy and _instances(found):
        return Chosen((min(ordered),), (), instances=True)
    exact = not found.lossy and (len(ordered) <= MANY or (not found.coloured and _whole_range(ordered)))
    chosen: list[int] = []
    for value in ordered:
        if value in named:
            chosen.append(value)
        elif exact:
            if not found.coloured or found.pixels[value] >= RARE * found.total:
                chosen.append(value)
        elif found.inside[value] >= max(9, THICK * found.pixels[value]) and found.pixels[value] >= RARE * found.total:
            near = 24 if found.lossy or found.coloured else 2
            if not any(_apart(value, other, coloured=found.coloured) <= near for other in chosen):
                chosen.append(value)
    if exact:
        thick = [value for value in chosen if found.inside[value] >= THICK * found.pixels[value]]
        chosen = [v for v in chosen if v in named or v in thick or not _between(v, thick, found)]
    strays = tuple(value for value in ordered if value not in set(chosen))
    return Chosen(tuple(chosen if found.coloured else sorted(chosen)), strays)


def _between(value: int, thick: Sequence[int], found: MaskValues) -> bool:
    """Return whether a value that fills no area is a mixture of two that do, as smoothing makes at their edges."""
    if found.inside[value] > 0.01 * found.pixels[value]:
        return False
    if not found.coloured:
        # Class numbers lie between others too; but 0 and 255 alone are the two ends of a smoothed mask.
        return set(thick) == {0, 255}
    place = np.array(_channels(value), float)
    for one, other in combinations([np.array(_channels(each), float) for each in thick], 2):
        along = other - one
        at = float((place - one) @ along / (along @ along))
        if 0 < at < 1 and np.abs(one + at * along - place).max() <= 8:
            return True
    # Three areas that meet mix too.
    return len(thick) > 2 and found.pixels[value] < 1e-3 * found.total


def _channels(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255


def _whole_range(values: Sequence[int]) -> bool:
    """Return whether numbers are class numbers without gaps, such as ADE20K's 0 to 150."""
    return max(values) <= 1000 and len(values) >= 0.7 * (max(v for v in values if v != 255) + 1) and max(values) != 255


def _instances(found: MaskValues) -> bool:
    blobs = sorted(found.blobs)
    # Objects are counted from 1 in each mask, or have a number that no other mask has.
    own = sorted(found.files.values())[len(found.files) // 2] == 1 and found.masks > 2
    if not own and found.counted < 0.8 * found.masks:
        return False
    filled = bool(blobs) and blobs[len(blobs) // 2] > 0.3
    return filled and sum(found.inside.values()) > 0.3 * found.total


def _apart(one: int, other: int, *, coloured: bool) -> float:
    if not coloured:
        return abs(one - other)
    return math.dist(_channels(one), _channels(other))
