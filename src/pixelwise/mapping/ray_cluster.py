"""Pieces of a scene's map made on a Ray cluster, with the same bytes as on one machine.

A worker is an actor that keeps the network in its memory, one for each GPU, or one for each machine where there are
none. It sums a row of tiles over the full width, and blends a piece from the sums of the rows it needs. Only what
neighbouring rows share travels between machines. The order of additions is that of `Tiling`, so it does not matter who
made what.

A worker whose machine dies is given up: what it was doing is done by another, sums that lay in its memory are made
again where they are still needed, and a new worker is asked for, which comes when there is a place for it.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from types import ModuleType
from typing import Any

import torch

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.inference.tile_grid import Place
from pixelwise.inference.tiling import Piece, TileSum, Tiling
from pixelwise.mapping.capacity import fitting_streams, free_memory, with_batch
from pixelwise.mapping.pieces import Carry, beside_of, wanted_tiles
from pixelwise.optional import optional_module

AHEAD = 2
"""Rows of tiles for each worker that may be summed before they are needed."""
PATIENCE = 600.0
"""Seconds without any worker after which the work is given up."""


class Worker:
    """Makes rows and pieces; lives on a machine of the cluster."""

    def __init__(self, tiling: Tiling, device: str, threads: int, batch: int | None) -> None:
        # Bytes depend on a network's threads, but not on how many tiles are in it.
        torch.set_num_threads(threads)
        keep_freed_memory()
        tiling = replace(tiling, model=tiling.model.to(device))
        cores, room = (os.cpu_count() or 1) // threads, free_memory(torch.device("cpu"))
        streams = fitting_streams(tiling, batch, cores=cores, room=room)
        self.tiling = with_batch(replace(tiling, streams=streams), batch)

    def ready(self) -> bool:
        """Return once the network is in memory."""
        return True

    def sum_row(self, row: int) -> tuple[Any, ...]:
        """Return that it worked, the sums of a row of tiles by column of pieces, and what strips below need."""
        tiling, plan = self.tiling, self.tiling.plan
        columns = [wanted_tiles(tiling, plan.tiles(row, column, begun=True)) for column in range(len(plan.across))]
        decoded, sums, below, beside = tiling.decoded(chain(*columns)), [], [], None
        for column, tiles in enumerate(columns):
            own = tiling.sum_of(row, column, beside, islice(decoded, len(tiles)))
            sums.append(own)
            beside = beside_of(plan, column, own)
            if row + 1 < len(plan.down):
                own = own.part(plan.down.reach(row + 1)[0], *plan.across.reach(column), plan.stride)
            below.append(own)
        return True, *sums, *below

    def finish(self, place: Place, confidence: bool, cells: bool, *sums: TileSum) -> tuple[bool, Piece]:
        """Return that it worked, and a piece made of the rows it needs."""
        if self.tiling.single:
            return True, self.tiling.whole(confidence=confidence, cells=cells)
        parts = dict(zip(self.tiling.plan.needed(place[0]), sums, strict=True))
        return True, self.tiling.finish(place, parts, confidence=confidence, cells=cells)


@dataclass(frozen=True)
class _Task:
    kind: str
    """'row', 'piece', or 'ready' of a new worker."""
    place: Place
    """Of a row, with column 0."""
    worker: Any
    results: tuple[Any, ...] = ()


@dataclass
class _Cluster:
    """Workers, and what each of them is doing."""

    ray: ModuleType
    start: Callable[[], Any]
    idle: list[Any] = field(default_factory=list)
    alive: int = 0
    running: dict[Any, _Task] = field(default_factory=dict)
    """By the first result, which is small and tells whether the task failed."""

    def hire(self) -> None:
        worker = self.start()
        self.running[worker.ready.remote()] = _Task("ready", (0, 0), worker)

    def sum_row(self, row: int, columns: int) -> None:
        """Have a row of tiles summed: a sum and what is needed below, for each column of pieces."""
        worker = self.idle.pop(0)
        self._note("row", (row, 0), worker, worker.sum_row.options(num_returns=1 + 2 * columns).remote(row))

    def finish(self, place: Place, *arguments: Any) -> None:
        """Have a piece made."""
        worker = self.idle.pop(0)
        self._note("piece", place, worker, worker.finish.options(num_returns=2).remote(place, *arguments))

    def _note(self, kind: str, place: Place, worker: Any, results: Sequence[Any]) -> None:
        self.running[results[0]] = _Task(kind, place, worker, tuple(results[1:]))

    def working(self, kind: str) -> set[Place]:
        return {task.place for task in self.running.values() if task.kind == kind}

    def next(self) -> tuple[_Task, BaseException | None]:
        """Wait for a task to end, well or badly; a worker that is gone is replaced."""
        exceptions = self.ray.exceptions
        patience = PATIENCE if self.alive == 0 else None
        ended, _ = self.ray.wait(list(self.running), num_returns=1, timeout=patience)
        if not ended:
            raise ConfigError(
                f"The Ray cluster gave no worker within {PATIENCE:.0f} s. See `ray status`; start machines, and give "
                "the same command again."
            )
        task = self.running.pop(ended[0])
        try:
            self.ray.get(ended[0])
        except exceptions.RayActorError as error:
            if error.actor_init_failed:
                # It would fail again wherever it is started.
                reason = str(error).strip().splitlines()[-1].strip()
                raise ConfigError(
                    f"A worker of the Ray cluster could not start: {reason}. Every machine needs the same pixelwise, "
                    "torch and Python as this one."
                ) from None
            self.alive -= task.kind != "ready"
            self.hire()
            return task, error
        except exceptions.RayError as error:
            self.idle.append(task.worker)
            return task, error
        self.alive += task.kind == "ready"
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
    threads = torch.get_num_threads()
    cluster = _Cluster(ray, lambda: actor.remote(travelling, device, threads, batch))
    # For each row of tiles and column of pieces: the whole sum, and what pieces below need of it.
    sums: dict[Place, tuple[Any, Any]] = {}
    for row, column in wanted:
        if (row - 1, column) in kept:
            for above, part in kept[row - 1, column].below.items():
                there = ray.put(part)
                sums[above, column] = (there, there)
    needed = {place: [] if tiling.single else [(row, place[1]) for row in plan.needed(place[0])] for place in wanted}
    rows = {row for places in needed.values() for row, column in places if (row, column) not in sums}
    open_pieces, left = list(wanted), sum(len(plan.rows[row]) for row in rows)
    try:
        workers = _places(ray, device)
        for _ in range(min(workers, max(1, len(rows)))):
            cluster.hire()
        while open_pieces:
            still = {place: needed[place] for place in open_pieces}
            _assign(cluster, tiling, still, sums, workers, (confidence, cells))
            task, error = cluster.next()
            if error is not None:
                if isinstance(cause := getattr(error, "cause", None), PixelwiseError):
                    raise cause
                if task.kind == "piece":
                    # Sums that lay on a machine that is gone; who made them is not known, so all come again.
                    for place in needed[task.place]:
                        sums.pop(place, None)
                elif not isinstance(error, (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)):
                    raise error
            elif task.kind == "row":
                row, columns = task.place[0], len(plan.across)
                wholes, parts = task.results[:columns], task.results[columns:]
                sums |= {(row, column): both for column, both in enumerate(zip(wholes, parts, strict=True))}
                left -= len(plan.rows[row])
                done(max(0, left))
            elif task.kind == "piece":
                try:
                    piece = ray.get(task.results[0])
                except (ray.exceptions.ObjectLostError, ray.exceptions.RayActorError):
                    continue
                open_pieces.remove(task.place)
                asked = {place for each in open_pieces for place in needed[each]}
                sums = {place: both for place, both in sums.items() if place in asked}
                yield task.place, piece, None
        done(0)
    finally:
        for worker in [*cluster.idle, *(task.worker for task in cluster.running.values())]:
            ray.kill(worker)


def _assign(
    cluster: _Cluster,
    tiling: Tiling,
    needed: Mapping[Place, Sequence[Place]],
    sums: Mapping[Place, tuple[Any, Any]],
    workers: int,
    products: tuple[bool, bool],
) -> None:
    """Give idle workers something to do: pieces whose rows are there, else rows, the topmost first."""
    making, summing = cluster.working("piece"), cluster.working("row")
    for place, rows in needed.items():
        if cluster.idle and place not in making and all(each in sums for each in rows):
            parts = [sums[each][0 if each == place else 1] for each in rows]
            cluster.finish(place, *products, *parts)
    # No further ahead than workers are busy with: sums are large.
    strips = list(dict.fromkeys(row for row, _ in needed))[: AHEAD * workers + 1]
    lacking = dict.fromkeys(
        row for place, rows in needed.items() if place[0] in strips for row, column in rows if (row, column) not in sums
    )
    for row in lacking:
        if cluster.idle and (row, 0) not in summing:
            cluster.sum_row(row, len(tiling.plan.across))


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
                f"The Ray cluster does not answer: {reason}. Start it with `ray start --head`, or mend RAY_ADDRESS."
            ) from None
    return ray


def cluster_device() -> str:
    """Return what the workers of the cluster compute on: 'cuda' if any machine has a GPU, else 'cpu'."""
    return "cuda" if connected().cluster_resources().get("GPU", 0) >= 1 else "cpu"


def _places(ray: ModuleType, device: str) -> int:
    """Return how many workers there is room for."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        return int(sum(resources.get("GPU", 0) for resources in alive))
    places = sum(resources.get("CPU", 0) >= 1 for resources in alive)
    if not places:
        raise ConfigError("No machine of the Ray cluster offers a processor. Start one with `ray start --num-cpus=N`.")
    return places
