"""What a run has written so far. Only what is new is read, so that a long log costs nothing to follow."""

import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pixelwise.config import Config
from pixelwise.errors import PixelwiseError
from pixelwise.evaluation.pictures import Picture, load_pictures
from pixelwise.files import HOLDER
from pixelwise.labels import Classes
from pixelwise.runs.model_folder import read_card
from pixelwise.runs.run_folder import Run, log_rows, open_finished_run
from pixelwise.runs.run_notes import NOTES, RunNote, read_notes
from pixelwise.training.events import Reason

QUIET = 120.0
"""A run of another machine counts as stopped after so many seconds, or `PAUSES` steps, without a line in its files."""
PAUSES = 20
RECENT = 50
"""Steps that the time per step is measured over, at least."""
MOST = 1e9
"""Seconds that no run takes."""

State = Literal["running", "stopped"] | Reason
"""``stopped``: neither does it run, nor has it said how it ended, as after a kill."""


@dataclass(frozen=True)
class Pace:
    """How fast a run goes."""

    step: float
    """Seconds per step, evaluations included."""
    left: float
    """Seconds until the last step."""
    waited: float
    """Share of the time in which the network waited for crops, 0 to 1."""


@dataclass
class LiveRun:
    """A run's folder, as far as it was read."""

    folder: Path
    config: Config
    rows: list[tuple[int, float | None, float | None, float, float]] = field(default_factory=list)
    """Step, loss, learning rate, seconds and waited seconds of each row of the log."""
    evaluations: list[dict] = field(default_factory=list)
    """Rows of the log that have scores."""
    notes: list[RunNote] = field(default_factory=list)
    samples: list[Picture] = field(default_factory=list)
    classes: Classes | None = None
    """With the colours of the model; None before there is one."""
    version: int = 0
    """Another one whenever something has changed."""
    _file: tuple[int, int] = (0, 0)
    _offset: int = 0
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def refresh(self) -> None:
        """Read what is new since the last time.

        Raises:
            ConfigError: the run is gone, or its configuration is damaged.
        """
        if self._changed("config.toml"):
            _, self.config = open_finished_run(self.folder)
        self._read_log()
        if self._changed(NOTES):
            self.notes = read_notes(self.folder)
        samples = Run(self.folder).samples
        if self._changed(samples.name):
            try:
                self.samples, _ = load_pictures(samples)
                self.classes = read_card(self.folder / "model")[0].classes
            except PixelwiseError:
                # Damaged pictures are none; the next evaluation replaces them.
                self.samples = []

    @property
    def step(self) -> int:
        """The newest step."""
        return self.rows[-1][0] if self.rows else 0

    @property
    def steps(self) -> int:
        """Steps that are to be made in all."""
        return self.config.train.steps

    @property
    def state(self) -> State:
        """Whether it runs, or how it ended."""
        last = self.notes[-1] if self.notes else None
        for note in reversed(self.notes):
            if note.kind == "began":
                break
            if note.kind == "ended" and note.code in ("complete", "patience", "callback", "interrupted", "error"):
                return note.code
        if last is None and self.step >= self.steps:
            # An earlier version wrote no notes.
            return "complete"
        alive = _alive(self.folder)
        if alive is None:
            pace = self.pace
            alive = self._age() < max(QUIET, PAUSES * pace.step if pace else 0)
        return "running" if alive else "stopped"

    @property
    def pace(self) -> Pace | None:
        """How fast it goes; None before a few steps are made."""
        every = self.config.train.evaluate_every or max(1, self.steps // 10)
        rows = self.rows[-max(RECENT, every) - 1 :]
        spent, made = (rows[-1][3] - rows[0][3], rows[-1][0] - rows[0][0]) if len(rows) > 2 else (0.0, 0)
        if not 0 < spent < MOST or made <= 0:
            # Of a damaged log.
            return None
        waited = min(1.0, sum(row[4] for row in rows[1:]) / spent)
        return Pace(spent / made, spent / made * max(0, self.steps - self.step), waited)

    def points(self, column: Literal[1, 2]) -> list[tuple[int, float]]:
        """Return (step, value) of the loss (1) or the learning rate (2), where it is a number that can be drawn."""
        return [(row[0], value) for row in self.rows if (value := row[column]) is not None and abs(value) < 1e30]

    def scores(self, key: str) -> list[tuple[int, float]]:
        """Return (step, value) of the evaluations."""
        return [(row["step"], row[key]) for row in self.evaluations if row.get(key) is not None]

    def _read_log(self) -> None:
        path = self.folder / "log.jsonl"
        try:
            with path.open("rb") as file:
                about = os.fstat(file.fileno())
                kept = (about.st_dev, about.st_ino)
                if kept != self._file or about.st_size < self._offset:
                    # A resumed run puts another file in its place, which ends where it goes on.
                    self._file, self._offset, self.rows, self.evaluations = kept, 0, [], []
                    self.version += 1
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return
        # The last line may be half written.
        text = text[: text.rfind(b"\n") + 1]
        self._offset += len(text)
        rows = log_rows(text)
        self._add(rows)
        self.version += bool(rows)

    def _add(self, rows: Sequence[dict]) -> None:
        for row in rows:
            seconds, waited = row.get("seconds") or 0.0, row.get("waited") or 0.0
            self.rows.append((row["step"], row.get("loss"), row.get("learning_rate"), seconds, waited))
            if row.get("mIoU") is not None:
                self.evaluations.append(row)

    def _changed(self, name: str) -> bool:
        try:
            about = (self.folder / name).stat()
            now = (about.st_mtime_ns, about.st_size)
        except OSError:
            now = (0, 0)
        if self._seen.get(name, (0, 0)) == now and name in self._seen:
            return False
        self._seen[name] = now
        self.version += 1
        return True

    def _age(self) -> float:
        ages = [(self.folder / name).stat().st_mtime for name in ("log.jsonl", NOTES) if (self.folder / name).exists()]
        return time.time() - max(ages, default=0.0)


def open_live(folder: Path) -> LiveRun:
    """Read a run, whether it goes on or has ended.

    Raises:
        ConfigError: no run there.
    """
    run = LiveRun(folder, open_finished_run(folder)[1])
    run.refresh()
    return run


def _alive(folder: Path) -> bool | None:
    """Return whether the process that trained last in a folder still lives; None where that is not known."""
    try:
        found = re.fullmatch(r"process (\d+) on (.*)", (folder / HOLDER).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None
    if found is None or found[2] != socket.gethostname() or os.name == "nt":
        # On Windows there is no signal that only asks.
        return None
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _ended(int(found[1]))


def _ended(process: int) -> bool:
    """Return whether a process has ended that its parent has not asked about yet: to `os.kill` it is still there."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # It went just now, or this system has no such files.
        return False
    # The name of the program, in brackets, may hold anything; the state follows it.
    return status.rpartition(")")[2].split()[:1] == ["Z"]
