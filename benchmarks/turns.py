"""Ways to do the same thing take turns, each in a process of its own, as its users run it.

Only one process works at any time, with a pause before each turn. The ratio of a round is taken before the median over
rounds, so that a slow moment of the machine slows all.
"""

import multiprocessing
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from pixelwise.fast.allocator import keep_freed_memory

# Where there is no build of torchvision for this torch, its two operators that others import are only named.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
OPERATORS.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")


@dataclass(frozen=True)
class Way:
    """``make(*arguments)`` prepares, and returns what is measured. It is found by its name in a new process."""

    make: Callable[..., Callable[[], Any]]
    arguments: tuple[object, ...]
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of its process, which libraries read when they start."""


KEPT = " with kept memory"
"""Ends the name of a peer's way in a process that keeps freed memory, which ours do and its users' do not."""


def with_kept_memory(make: Callable[..., Callable[[], Any]], *arguments: object) -> Callable[[], Any]:
    """Prepare a way in a process that keeps freed memory."""
    keep_freed_memory()
    return make(*arguments)


PAUSE = 0.1
"""Seconds before a turn: threads may wait actively for more work after an answer, ours for 9 ms, transformers' not."""


@dataclass(frozen=True)
class Turns:
    """By way."""

    answers: dict[str, Any]
    """Of the first call."""
    peak_mib: dict[str, float]
    """What the first three calls added to the largest memory of the process."""
    seconds: dict[str, float]
    """Of a call: median of the turns."""
    ratios: dict[str, float]
    """Seconds over those of the first way: median of the rounds' ratios."""


def take_turns(ways: dict[str, Way], rounds: int, *, seconds: float = 0.0, clock: str = "perf_counter") -> Turns:
    """Measure all ways.

    Args:
        rounds: turns of each way.
        seconds: a turn lasts at least so long, in calls that follow each other at once; 0: it is one call.
        clock: a function of `time`; "process_time" counts the processor's time and none of other processes.
    """
    context = multiprocessing.get_context("spawn")
    connections, processes, answers, memory = {}, [], {}, {}
    for name, way in ways.items():
        connections[name], theirs = context.Pipe()
        processes.append(context.Process(target=_work, args=(way, theirs, clock)))
        with _environment(way.environment):
            processes[-1].start()
        # Waited for before the next process begins, so that no two work at a time.
        answers[name], memory[name] = connections[name].recv()
    taken = []
    for _ in range(rounds):
        taken.append({})
        for name, connection in connections.items():
            time.sleep(PAUSE)
            connection.send(seconds)
            taken[-1][name] = connection.recv()
    for connection, process in zip(connections.values(), processes, strict=True):
        connection.send(None)
        process.join()
    first = next(iter(ways))
    return Turns(
        answers,
        memory,
        {name: round(statistics.median(each[name] for each in taken), 4) for name in ways},
        {name: round(statistics.median(each[name] / each[first] for each in taken), 2) for name in ways},
    )


@contextmanager
def _environment(variables: tuple[tuple[str, str], ...]) -> Iterator[None]:
    """Set variables for the processes that begin meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def machine() -> dict[str, object]:
    """Return what is worth to know of the machine, and how busy it is."""
    return {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def _work(way: Way, connection: Connection, clock: str) -> None:
    now = getattr(time, clock)
    call = way.make(*way.arguments)
    before = _peak_mib()
    answer = call()
    call()
    call()
    connection.send((answer, round(_peak_mib() - before, 1)))
    while (seconds := connection.recv()) is not None:
        start, calls, taken = now(), 0, 0.0
        while not calls or taken < seconds:
            call()
            calls, taken = calls + 1, now() - start
        connection.send(taken / calls)


def _peak_mib() -> float:
    # getrusage would count the memory of the process which began this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def clocked(owner: object, name: str, part: str, spent: Counter[str]) -> Iterator[None]:
    """Count the seconds of a function's calls."""
    call = getattr(owner, name)

    def measured(*given: object, **named: object) -> object:
        begun = now()
        try:
            return call(*given, **named)
        finally:
            spent[part] += now() - begun

    with patch.object(owner, name, measured):
        yield


def now() -> float:
    """Return the time, when a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
