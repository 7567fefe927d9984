"""Pieces of a scene's map made by several devices of one machine, such as its GPUs.

Each device has a copy of the network and a thread. It sums a row of tiles over the full width, and blends a piece from
the sums of the rows it needs; sums go from device to device as pieces ask for them. The order of additions is that of
`Tiling`, so it does not matter which device made what.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import torch

from pixelwise.inference.tile_grid import Place
from pixelwise.inference.tiling import Piece, TileSum, Tiling
from pixelwise.mapping.capacity import with_batch
from pixelwise.mapping.pieces import Carry, finished, sum_row

AHEAD = 2
"""Rows of tiles for each device that may be summed before they are needed."""


def make_pieces(
    tiling: Tiling,
    wanted: Sequence[Place],
    kept: Mapping[Place, Carry],
    done: Callable[[int], None] = lambda tiles: None,
    *,
    confidence: bool = False,
    cells: bool = False,
    devices: Sequence[torch.device],
    batch: int | None = None,
) -> Iterator[tuple[Place, Piece, None]]:
    """Make pieces as `pieces.make_pieces` does, but on several devices, and in the order in which they are finished.

    Args:
        devices: at least one.
        batch: tiles that go through a network together; None: what suits the device.
    """
    plan = tiling.plan
    needed = {(row, column): [(each, column) for each in plan.needed(row)] for row, column in wanted}
    if tiling.single:
        needed = {place: [] for place in wanted}
    sums = {
        (above, column): _Sum(part, part)
        for row, column in wanted
        if (row - 1, column) in kept
        for above, part in kept[row - 1, column].below.items()
    }
    rows = {row for places in needed.values() for row, column in places if (row, column) not in sums}
    left = sum(len(plan.rows[row]) for row in rows)
    share = torch.get_num_threads()
    with ThreadPoolExecutor(len(devices), initializer=torch.set_num_threads, initargs=(share,)) as pool:
        work = _Work(pool, [_on(tiling, device, batch) for device in devices], (confidence, cells))
        try:
            while needed:
                work.assign(needed, sums)
                for task in work.ended():
                    if isinstance(task.what, int):
                        whole, below = task.result()
                        sums |= {
                            (task.what, column): _Sum(*each)
                            for column, each in enumerate(zip(whole, below, strict=True))
                        }
                        left -= len(plan.rows[task.what])
                        done(max(0, left))
                        continue
                    del needed[task.what]
                    asked = {place for places in needed.values() for place in places}
                    sums = {place: each for place, each in sums.items() if place in asked}
                    yield task.what, task.result(), None
            done(0)
        finally:
            for future in work.running:
                future.cancel()


@dataclass(frozen=True)
class _Sum:
    """A row of tiles in a column of pieces, on the device that summed it."""

    whole: TileSum
    below: TileSum
    """What pieces below need of it."""


@dataclass(frozen=True)
class _Task:
    """What a device does: it sums a row of tiles (a number), or makes a piece (a place)."""

    tiling: Tiling
    what: int | Place
    future: Future

    def result(self):
        """Return what came of it, or raise what went wrong."""
        return self.future.result()


@dataclass
class _Work:
    """Devices, and what each of them is doing."""

    pool: ThreadPoolExecutor
    idle: list[Tiling]
    products: tuple[bool, bool]
    """Whether confidence and cells are wanted."""
    running: dict[Future, _Task] = field(default_factory=dict)

    def assign(self, needed: Mapping[Place, Sequence[Place]], sums: Mapping[Place, _Sum]) -> None:
        """Give idle devices something to do: pieces whose rows are there, else rows, the topmost first."""
        busy, devices = [task.what for task in self.running.values()], len(self.idle) + len(self.running)
        confidence, cells = self.products
        for place, rows in needed.items():
            if self.idle and place not in busy and all(each in sums for each in rows):
                parts = [sums[each].whole if each == place else sums[each].below for each in rows]
                self._begin(place, finished, place, parts, confidence=confidence, cells=cells)
        # No further ahead than devices are busy with: sums are large.
        strips = list(dict.fromkeys(row for row, _ in needed))[: AHEAD * devices + 1]
        lacking = dict.fromkeys(
            row
            for place, rows in needed.items()
            if place[0] in strips
            for row, column in rows
            if (row, column) not in sums
        )
        for row in lacking:
            if self.idle and row not in busy:
                self._begin(row, sum_row, row)

    def _begin(self, what: int | Place, function: Callable, *arguments: object, **options: bool) -> None:
        tiling = self.idle.pop(0)
        future = self.pool.submit(function, tiling, *arguments, **options)
        self.running[future] = _Task(tiling, what, future)

    def ended(self) -> list[_Task]:
        """Wait for at least one task to end, and return those that have."""
        over, _ = wait(self.running, return_when=FIRST_COMPLETED)
        tasks = [self.running.pop(future) for future in over]
        self.idle += [task.tiling for task in tasks]
        return tasks


def _on(tiling: Tiling, device: torch.device, batch: int | None) -> Tiling:
    """Return a tiling whose network is a copy on a device."""
    model = copy.deepcopy(tiling.model).to(device)
    return with_batch(replace(tiling, model=model), batch)
