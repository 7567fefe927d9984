"""How long work is shown: on a terminal a bar with the time left, elsewhere a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from pixelwise.training.train import Progress

EVERY = 30.0
"""Seconds between two lines without a terminal."""


@contextmanager
def shown_training() -> Iterator["Callable[[Progress | str], None]"]:
    """Give the function that `pixelwise.train` reports to: steps, time left, loss and score, and sentences."""
    console = Console()
    if not console.is_terminal:
        yield _training_lines()
        return
    bar = Bar(
        TextColumn("Training"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:

        def report(event: "Progress | str") -> None:
            if isinstance(event, str):
                bar.console.print(event, highlight=False, markup=False)
                return
            # The bar of a resumed run starts where the run goes on. Else earlier steps would count as made in no time.
            task = bar.task_ids[0] if bar.task_ids else bar.add_task("", total=event.steps, completed=event.step - 1)
            bar.update(task, completed=event.step, description=_state(event))

        yield report


def _training_lines() -> "Callable[[Progress | str], None]":
    first_seen: list[tuple[int, float]] = []
    said = 0.0

    def report(event: "Progress | str") -> None:
        nonlocal said
        now = time.monotonic()
        if isinstance(event, str):
            print(event, flush=True)
            return
        if not first_seen:
            first_seen.append((event.step, now))
        if now - said < EVERY and event.step < event.steps:
            return
        said = now
        first, start = first_seen[0]
        left = (now - start) / max(1, event.step - first) * (event.steps - event.step)
        ahead = f", {_duration(left)} left" if first < event.step < event.steps else ""
        print(f"step {event.step} of {event.steps}, {_state(event)}{ahead}", flush=True)

    return report


def _state(event: "Progress") -> str:
    score = "" if event.score is None else f", mIoU {event.score:.3f}"
    return f"loss {event.loss:.3f}{score}"


@contextmanager
def shown_steps(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of ``total`` pieces; without a terminal it shows nothing."""
    console = Console()
    if not console.is_terminal or not total:
        yield lambda: None
        return
    with Bar(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


@contextmanager
def shown_share(what: str) -> Iterator[Callable[[float], None]]:
    """Give a function to call with the share that is done, 0 to 1; without a terminal it shows nothing."""
    console = Console()
    if not console.is_terminal:
        yield lambda share: None
        return
    with Bar(
        TextColumn(what), BarColumn(), TaskProgressColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)


@contextmanager
def shown_download() -> Iterator[Callable[[int, int | None], None]]:
    """Give a function to call with the bytes that are there, and all bytes; without a terminal it shows nothing."""
    console = Console()
    if not console.is_terminal:
        yield lambda done, size: None
        return
    columns = (TextColumn("Fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"))
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:

        def advance(done: int, size: int | None) -> None:
            # The bar begins with the first byte: a file that is kept needs none.
            task = bar.task_ids[0] if bar.task_ids else bar.add_task("", total=size)
            bar.update(task, completed=done, total=size)

        yield advance


@contextmanager
def shown_stages() -> Iterator[Callable[[str, float], None]]:
    """Give a function to call with a stage's name and its share that is done; without a terminal it shows nothing.

    Each stage has a bar of its own, below those of the stages before.
    """
    console = Console()
    if not console.is_terminal:
        yield lambda stage, share: None
        return
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("left"))
    with Bar(*columns, TimeRemainingColumn(), console=console) as bar:

        def advance(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=share)

        yield advance


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
