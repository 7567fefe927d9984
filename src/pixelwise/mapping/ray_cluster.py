"""Pieces of a scene's map made on a Ray cluster, with the same bytes as on one machine.

A worker is an actor that keeps the network in its memory: one for each GPU, or one for each machine where there are
none. It sums a row of tiles over the full width, and blends a piece from the sums of the rows it needs. Only what
neighbouring rows share travels between machines. The order of additions is that of `Tiling`, so it does not matter who
made what.

A worker whose machine dies is given up. Another one does what it was doing, and makes the sums again that lay in its
memory and are still needed. A new worker is asked for, and comes when there is a place for it.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.inference.tile_grid import Place
from pixelwise.inference.tiling import Piece, TileSum, Tiling
from pixelwise.mapping.capacity import fitting_streams, free_memory, with_batch
from pixelwise.mapping.pieces import Carry, finished, sum_row
from pixelwise.optional import optional_module
from pixelwise.threads import set_thread_count, thread_count

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorMethod

    DoneRef = ObjectRef[bool]
    SumRef = ObjectRef[TileSum]
    PieceRef = ObjectRef[Piece]
else:
    # Ray is an extra: where it is missing, this module can still be imported.
    ActorMethod = DoneRef = SumRef = PieceRef = object

AHEAD = 2
"""Rows of tiles for each worker that may be summed before they are needed."""
PATIENCE = 600.0
"""Seconds without any worker after which the work is given up."""


class Worker:
    """Makes rows and pieces; lives on a machine of the cluster."""

    def __init__(self, tiling: Tiling, device: str, threads: int, batch: int | None) -> None:
        # Bytes depend on a network's threads, but not on how many tiles are in it.
        set_thread_count(threads)
        keep_freed_memory()
        tiling = replace(tiling, model=tiling.model.to(device))
        cores, room = (os.cpu_count() or 1) // threads, free_memory()
        streams = fitting_streams(tiling, batch, cores=cores, room=room)
        self.tiling = with_batch(replace(tiling, streams=streams), batch)

    def ready(self) -> bool:
        """Return once the network is in memory."""
        return True

    def sum_row(self, row: int) -> tuple[bool | TileSum, ...]:
        """Return that it worked, the sums of a row of tiles by column of pieces, and what strips below need of each."""
        # Sums travel between machines, whose devices differ.
        whole, below = ([each.in_memory() for each in sums] for sums in sum_row(self.tiling, row))
        return True, *whole, *below

    def finish(self, place: Place, confidence: bool, cells: bool, *sums: TileSum) -> tuple[bool, Piece]:
        """Return that it worked, and a piece made of the rows it needs."""
        return True, finished(self.tiling, place, sums, confidence=confidence, cells=cells)


@runtime_checkable
class _Handle(Protocol):
    """A `Worker` on another machine."""

    ready: ActorMethod
    sum_row: ActorMethod
    finish: ActorMethod


@dataclass(frozen=True)
class _Sum:
    """A row of tiles in a column of pieces, in the memory of the cluster."""

    whole: SumRef
    below: SumRef
    """What pieces below need of it."""


@dataclass(frozen=True)
class _Start:
    """A worker is starting."""

    worker: _Handle


@dataclass(frozen=True)
class _Row:
    """A worker sums a row of tiles."""

    worker: _Handle
    row: int
    sums: tuple[_Sum, ...]
    """By column of pieces."""


@dataclass(frozen=True)
class _Finish:
    """A worker makes a piece."""

    worker: _Handle
    place: Place
    piece: PieceRef


_Task = _Start | _Row | _Finish


@dataclass
class _Cluster:
    """Workers, and what each of them is doing."""

    ray: ModuleType
    start: Callable[[], _Handle]
    idle: list[_Handle] = field(default_factory=list)
    alive: int = 0
    running: dict[DoneRef, _Task] = field(default_factory=dict)
    """By the first result, which is small and tells whether the task failed."""

    def hire(self) -> None:
        worker = self.start()
        worked = worker.ready.remote()
        assert worked is not None, "only a method without results returns none"
        self.running[worked] = _Start(worker)

    def sum_row(self, row: int, columns: int) -> None:
        """Have a row of tiles summed."""
        worker = self.idle.pop(0)
        worked, *parts = worker.sum_row.options(num_returns=1 + 2 * columns).remote(row)
        sums = map(_Sum, parts[:columns], parts[columns:])
        self.running[worked] = _Row(worker, row, tuple(sums))

    def finish(self, place: Place, confidence: bool, cells: bool, sums: Sequence[SumRef]) -> None:
        """Have a piece made."""
        worker = self.idle.pop(0)
        worked, piece = worker.finish.options(num_returns=2).remote(place, confidence, cells, *sums)
        self.running[worked] = _Finish(worker, place, piece)

    def next(self) -> tuple[_Task, BaseException | None]:
        """Wait for a task to end, well or badly. A worker that is gone is replaced."""
        exceptions = self.ray.exceptions
        patience = PATIENCE if self.alive == 0 else None
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=patience)
        if not ended:
            raise ConfigError(
                f"The Ray cluster gave no worker within {PATIENCE:.0f} s. See `ray status`; start machines, and give "
                "the same command again.",
                code="PW611",
            )
        task = self.running.pop(ended[0])
        started = isinstance(task, _Start)
        try:
            self.ray.get(ended[0])
        except exceptions.RayActorError as error:
            if error.actor_init_failed:
                # It would fail again wherever it is started.
                reason = str(error).strip().splitlines()[-1].strip()
                raise ConfigError(
                    f"A worker of the Ray cluster could not start: {reason}. Every machine needs the same pixelwise, "
                    "torch and Python as this one.",
                    code="PW611",
                ) from None
            self.alive -= not started
            self.hire()
            return task, error
        except exceptions.RayError as error:
            self.idle.append(task.worker)
            return task, error
        self.alive += started
        self.idle.append(task.worker)
        return task, None


def make_pieces(
    tiling: Tiling,
    wanted: Sequence[Place],
    kept: Mapping[Place, Carry],
    done: Callable[[int], None] = lambda tiles: None,
    *,
    confidence: bool = False,
    cells: bool = False,
    batch: int | None = None,
) -> Iterator[tuple[Place, Piece, None]]:
    """Make pieces as `pieces.make_pieces` does, but on a cluster, and in the order in which they are finished.

    Raises:
        DataError: a worker cannot read the scene.
        ConfigError: the cluster gives no worker.
        MissingExtraError: the extra ``ray`` is not installed.
    """
    ray, plan = connected(), tiling.plan
    device = cluster_device()
    travelling = ray.put(replace(tiling, model=copy.deepcopy(tiling.model).to("cpu")))
    actor = ray.remote(num_cpus=1, num_gpus=int(device == "cuda"), scheduling_strategy="SPREAD")(Worker)
    threads = thread_count()
    cluster = _Cluster(ray, lambda: actor.remote(travelling, device, threads, batch))
    sums = _kept_sums(ray, wanted, kept)
    # The rows of tiles of each piece that is still to be made, each with its column of pieces.
    needed = {(row, column): [(each, column) for each in plan.needed(row)] for row, column in wanted}
    if tiling.single:
        needed = {place: [] for place in wanted}
    rows = {row for places in needed.values() for row, column in places if (row, column) not in sums}
    left = sum(len(plan.rows[row]) for row in rows)
    try:
        workers = _room_for_workers(ray, device)
        for _ in range(min(workers, max(1, len(rows)))):
            cluster.hire()
        while needed:
            _assign(cluster, needed, sums, columns=len(plan.across), workers=workers, products=(confidence, cells))
            task, error = cluster.next()
            if error is not None:
                _forgive(ray, task, error, needed, sums)
            elif isinstance(task, _Row):
                sums |= {(task.row, column): each for column, each in enumerate(task.sums)}
                left -= len(plan.rows[task.row])
                done(max(0, left))
            elif isinstance(task, _Finish):
                try:
                    piece = ray.get(task.piece)
                except (ray.exceptions.ObjectLostError, ray.exceptions.RayActorError):
                    # It was on a machine that is gone.
                    continue
                del needed[task.place]
                asked = {place for places in needed.values() for place in places}
                sums = {place: each for place, each in sums.items() if place in asked}
                yield task.place, piece, None
        done(0)
    finally:
        for worker in [*cluster.idle, *(task.worker for task in cluster.running.values())]:
            ray.kill(worker)


def _kept_sums(ray: ModuleType, wanted: Sequence[Place], kept: Mapping[Place, Carry]) -> dict[Place, _Sum]:
    """Hand to the cluster what pieces above left; return it by row of tiles and column of pieces."""
    sums: dict[Place, _Sum] = {}
    for row, column in wanted:
        if (row - 1, column) in kept:
            for above, part in kept[row - 1, column].below.items():
                there = ray.put(part)
                sums[above, column] = _Sum(there, there)
    return sums


def _forgive(
    ray: ModuleType,
    task: _Task,
    error: BaseException,
    needed: Mapping[Place, Sequence[Place]],
    sums: dict[Place, _Sum],
) -> None:
    """Let a task be done again if its machine is gone.

    Raises:
        BaseException: what went wrong, if it would go wrong again.
    """
    if isinstance(cause := getattr(error, "cause", None), PixelwiseError):
        raise cause
    if isinstance(task, _Finish):
        # Sums that lay on a machine that is gone; who made them is not known, so all are made again.
        for place in needed[task.place]:
            sums.pop(place, None)
    elif not isinstance(error, (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)):
        raise error


def _assign(
    cluster: _Cluster,
    needed: Mapping[Place, Sequence[Place]],
    sums: Mapping[Place, _Sum],
    *,
    columns: int,
    workers: int,
    products: tuple[bool, bool],
) -> None:
    """Give idle workers something to do: pieces whose rows are there, else rows, the topmost first."""
    running = cluster.running.values()
    making = {task.place for task in running if isinstance(task, _Finish)}
    summing = {task.row for task in running if isinstance(task, _Row)}
    for place, rows in needed.items():
        if cluster.idle and place not in making and all(each in sums for each in rows):
            cluster.finish(place, *products, [sums[each].whole if each == place else sums[each].below for each in rows])
    # No further ahead than workers are busy with: sums are large.
    strips = list(dict.fromkeys(row for row, _ in needed))[: AHEAD * workers + 1]
    lacking = dict.fromkeys(
        row for place, rows in needed.items() if place[0] in strips for row, column in rows if (row, column) not in sums
    )
    for row in lacking:
        if cluster.idle and row not in summing:
            cluster.sum_row(row, columns)


def connected() -> ModuleType:
    """Return Ray, connected to the cluster that RAY_ADDRESS names or that runs on this machine, or to one begun here.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        ConfigError: the cluster does not answer.
    """
    ray = optional_module("ray")
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"The Ray cluster does not answer: {reason}. Start it with `ray start --head`, or fix RAY_ADDRESS.",
                code="PW611",
            ) from None
    return ray


def cluster_device() -> str:
    """Return what the workers of the cluster compute on: 'cuda' if any machine has a GPU, else 'cpu'."""
    return "cuda" if connected().cluster_resources().get("GPU", 0) >= 1 else "cpu"


def _room_for_workers(ray: ModuleType, device: str) -> int:
    """Return how many workers the cluster has room for."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        return int(sum(resources.get("GPU", 0) for resources in alive))
    room = sum(resources.get("CPU", 0) >= 1 for resources in alive)
    if not room:
        raise ConfigError(
            "No machine of the Ray cluster offers a processor. Start one with `ray start --num-cpus=N`.", code="PW611"
        )
    return room
