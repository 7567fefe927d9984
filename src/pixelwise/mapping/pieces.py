"""Pieces of a scene's map, one after the other, and what each leaves to others, so that no tile is computed twice.

A tile adds to the piece it lies in, to the one on its right if it reaches there, and to those below. These partial sums
go on to the other pieces, in memory or on disk. Where they were lost, tiles are computed again and added in the same
order, so that the bytes are the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from pixelwise.geo.raster import Window
from pixelwise.inference.tile_grid import GRID, Place, StripPlan
from pixelwise.inference.tiling import DecodedTile, Piece, TileSum, Tiling


@dataclass(frozen=True)
class Carry:
    """What a piece leaves to others."""

    below: dict[int, TileSum]
    """By row of tiles: what the piece below needs; nothing in the lowest strip."""
    beside: TileSum | None
    """What this row of tiles has so far in the piece to the right; None where there is none."""


def places(plan: StripPlan) -> list[Place]:
    """Return all pieces, in the order in which they are made."""
    return [(row, column) for row in range(len(plan.down)) for column in range(len(plan.across))]


def make_pieces(
    tiling: Tiling,
    wanted: Sequence[Place],
    kept: Mapping[Place, Carry],
    done: Callable[[int], None] = lambda tiles: None,
    *,
    confidence: bool = False,
    cells: bool = False,
) -> Iterator[tuple[Place, Piece, Carry]]:
    """Make pieces, in the order of `places`; yield each with its place and what it leaves to others.

    Args:
        kept: what earlier pieces left; what is missing is computed. The caller adds what is yielded, before it asks for
            the next piece but one.
        done: called after each tile with the number of those that are left.
    """
    if tiling.single and wanted:
        yield (0, 0), tiling.whole(confidence=confidence, cells=cells), Carry({}, None)
        done(0)
        return
    work = _planned(tiling, wanted, set(kept))
    rows = [tiles for each in work for tiles in each.rows.values()]
    left, decoded = sum(map(len, rows)), tiling.decoded(chain(*rows))

    def counted(tiles: int) -> Iterator[DecodedTile]:
        nonlocal left
        for tile in islice(decoded, tiles):
            yield tile
            left -= 1
            done(left)

    last: dict[Place, Carry] = {}
    for each in work:
        above, beside = (
            None if place is None else last.get(place) or kept[place] for place in (each.above, each.beside)
        )
        sums = {} if above is None else dict(above.below)
        for row, tiles in each.rows.items():
            begun = beside.beside if beside and row == each.place[0] else None
            sums[row] = tiling.sum_of(row, each.place[1], begun, counted(len(tiles)))
        row, column = each.place
        last = {each.place: Carry(tiling.below(each.place, sums), beside_of(tiling.plan, column, sums[row]))}
        yield each.place, tiling.finish(each.place, sums, confidence=confidence, cells=cells), last[each.place]


@dataclass(frozen=True)
class _Work:
    place: Place
    above: Place | None
    beside: Place | None
    """The neighbours whose carries are used; None: there is none, so that their tiles are among these."""
    rows: dict[int, list[Window]]
    """Tiles to be computed, by row of tiles: those that are wanted."""


def _planned(tiling: Tiling, wanted: Sequence[Place], there: set[Place]) -> list[_Work]:
    plan, work = tiling.plan, []
    for row, column in wanted:
        above, beside = (place if place in there else None for place in ((row - 1, column), (row, column - 1)))
        rows = plan.needed(row) if above is None else [row]
        needed = {each: plan.tiles(each, column, begun=beside is not None and each == row) for each in rows}
        tiles = {each: wanted_tiles(tiling, needed[each]) for each in rows}
        work.append(_Work((row, column), above, beside, tiles))
        there.add((row, column))
    return work


def sum_row(tiling: Tiling, row: int) -> tuple[list[TileSum], list[TileSum]]:
    """Return the sums of a row of tiles by column of pieces, and what the strips below need of each."""
    plan = tiling.plan
    columns = [wanted_tiles(tiling, plan.tiles(row, column, begun=True)) for column in range(len(plan.across))]
    decoded, sums, below, beside = tiling.decoded(chain(*columns)), [], [], None
    for column, tiles in enumerate(columns):
        own = tiling.sum_of(row, column, beside, islice(decoded, len(tiles)))
        sums.append(own)
        beside = beside_of(plan, column, own)
        below.append(own.part(plan.below((row, column)), plan) if row + 1 < len(plan.down) else own)
    return sums, below


def finished(
    tiling: Tiling, place: Place, sums: Sequence[TileSum], *, confidence: bool = False, cells: bool = False
) -> Piece:
    """Return a piece made of the sums of the rows of tiles that it needs, in their order."""
    if tiling.single:
        return tiling.whole(confidence=confidence, cells=cells)
    parts = dict(zip(tiling.plan.needed(place[0]), sums, strict=True))
    return tiling.finish(place, parts, confidence=confidence, cells=cells)


def beside_of(plan: StripPlan, column: int, own: TileSum) -> TileSum | None:
    """Return what a sum has in the piece to the right; None where there is none."""
    if column + 1 == len(plan.across):
        return None
    return own.part(replace(own.cells, left=plan.across.reach(column + 1)[0]), plan)


def wanted_tiles(tiling: Tiling, tiles: Iterable[Window]) -> list[Window]:
    """Return the tiles that touch the area of interest, or lie less than `GRID` pixels beside it.

    Pixels next to a tile still depend on it, through upsampling.
    """
    aoi, height, width = tiling.aoi, tiling.plan.height, tiling.plan.width
    return [tile for tile in tiles if aoi is None or aoi.touches(tile, GRID, height, width)]
