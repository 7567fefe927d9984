"""Strips of a scene's map made on a Ray cluster, with the same bytes as on one machine.

A worker is an actor that keeps the network in its memory, one for each GPU, or one for each machine where there are
none. It sums a row of tiles, and blends a strip from the sums of the rows it needs. Only what neighbouring rows share
travels between machines. The order of additions is that of `Tiling`, so it does not matter who made what.

A worker whose machine dies is given up: what it was doing is done by another, sums that lay in its memory are made
again where they are still needed, and a new worker is asked for, which comes when there is a place for it.
"""

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch

from pixelwise.errors import ConfigError, MissingExtraError, PixelwiseError
from pixelwise.jobs.capacity import with_batch
from pixelwise.jobs.tiling import RowSum, Strip, Tiling

AHEAD = 2
"""Rows of tiles for each worker that may be summed before they are needed."""
PATIENCE = 600.0
"""Seconds without any worker after which the work is given up."""


class Worker:
    """Makes rows and strips; lives on a machine of the cluster."""

    def __init__(self, tiling: Tiling, device: str, threads: int, batch: int | None) -> None:
        torch.set_num_threads(threads)
        self.tiling = with_batch(replace(tiling, model=tiling.model.to(device)), batch)

    def ready(self) -> bool:
        """Return once the network is in memory."""
        return True

    def sum_row(self, row: int) -> tuple[bool, RowSum, RowSum | None]:
        """Return that it worked, the sum of a row of tiles, and the part of it that strips below need."""
        plan = self.tiling.plan
        part = next(self.tiling.row_sums([row]))
        below = part.from_cell(plan.reach(row + 1)[0], plan.stride) if row + 1 < len(plan) else None
        return True, part, below

    def finish(self, strip: int, confidence: bool, cells: bool, *sums: RowSum) -> tuple[bool, Strip]:
        """Return that it worked, and a strip made of the rows it needs."""
        if self.tiling.single:
            return True, self.tiling.whole(confidence=confidence, cells=cells)
        parts = dict(zip(self.tiling.plan.needed(strip), sums, strict=True))
        return True, self.tiling.finish(strip, parts, confidence=confidence, cells=cells)


@dataclass(frozen=True)
class _Task:
    kind: str
    """'row', 'strip', or 'ready' of a new worker."""
    number: int
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
        self.running[worker.ready.remote()] = _Task("ready", 0, worker)

    def run(self, kind: str, number: int, *arguments: Any) -> None:
        worker = self.idle.pop(0)
        if kind == "row":
            results = worker.sum_row.options(num_returns=3).remote(number)
        else:
            results = worker.finish.options(num_returns=2).remote(number, *arguments)
        self.running[results[0]] = _Task(kind, number, worker, tuple(results[1:]))

    def working(self, kind: str) -> set[int]:
        return {task.number for task in self.running.values() if task.kind == kind}

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


def make_strips(
    tiling: Tiling,
    wanted: Sequence[int],
    carry: Mapping[int, RowSum],
    done: Callable[[int], None] = lambda tiles: None,
    *,
    confidence: bool = False,
    cells: bool = False,
    batch: int | None = None,
) -> Iterator[tuple[int, Strip, dict[int, RowSum]]]:
    """Make strips as `Tiling.make` does, but on a cluster, and in the order in which they are finished.

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
    # For each row of tiles: the whole sum, and what strips below need of it.
    sums: dict[int, tuple[Any, Any]] = {}
    for row, part in carry.items():
        kept = ray.put(part)
        sums[row] = (kept, kept)
    rows = [] if tiling.single else sorted({row for strip in wanted for row in plan.needed(strip)})
    open_strips, left = list(wanted), sum(len(plan.rows[row]) for row in rows if row not in sums)
    try:
        places = _places(ray, device)
        for _ in range(min(places, max(1, len(rows)))):
            cluster.hire()
        while open_strips:
            _assign(cluster, tiling, open_strips, sums, places, (confidence, cells))
            task, error = cluster.next()
            if error is not None:
                if isinstance(cause := getattr(error, "cause", None), PixelwiseError):
                    raise cause
                if task.kind == "strip":
                    # Sums that lay on a machine that is gone; who made them is not known, so all come again.
                    for row in plan.needed(task.number):
                        sums.pop(row, None)
                elif not isinstance(error, (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)):
                    raise error
            elif task.kind == "row":
                sums[task.number] = (task.results[0], task.results[1])
                left -= len(plan.rows[task.number])
                done(max(0, left))
            elif task.kind == "strip":
                try:
                    strip = ray.get(task.results[0])
                except (ray.exceptions.ObjectLostError, ray.exceptions.RayActorError):
                    continue
                open_strips.remove(task.number)
                needed = set() if tiling.single else {row for each in open_strips for row in plan.needed(each)}
                sums = {row: parts for row, parts in sums.items() if row in needed}
                yield task.number, strip, {}
        done(0)
    finally:
        for worker in [*cluster.idle, *(task.worker for task in cluster.running.values())]:
            ray.kill(worker)


def _assign(
    cluster: _Cluster,
    tiling: Tiling,
    open_strips: Sequence[int],
    sums: Mapping[int, tuple[Any, Any]],
    places: int,
    products: tuple[bool, bool],
) -> None:
    """Give idle workers something to do: strips whose rows are there, else rows, the topmost first."""
    plan = tiling.plan
    making, summing = cluster.working("strip"), cluster.working("row")
    needed = {strip: [] if tiling.single else plan.needed(strip) for strip in open_strips}
    for strip in open_strips:
        if cluster.idle and strip not in making and all(row in sums for row in needed[strip]):
            parts = [sums[row][0 if row == strip else 1] for row in needed[strip]]
            cluster.run("strip", strip, *products, *parts)
    # No further ahead than workers are busy with: sums are large.
    rows = dict.fromkeys(row for strip in open_strips[: AHEAD * places + 1] for row in needed[strip])
    for row in rows:
        if cluster.idle and row not in sums and row not in summing:
            cluster.run("row", row)


def connected() -> ModuleType:
    """Return Ray, connected to the cluster that RAY_ADDRESS names or that runs on this machine, or to one begun here.

    Raises:
        MissingExtraError: the extra ``ray`` is not installed.
        ConfigError: the cluster does not answer.
    """
    try:
        ray = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise MissingExtraError("Clusters need ray. Install it with: pip install 'pixelwise[ray]'") from None
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
