"""What a run says of itself besides numbers, in ``notes.jsonl``: when it began, what it warned of, how it ended."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.files import room_on_disk

NOTES = "notes.jsonl"
KINDS = ("began", "warned", "ended")


@dataclass(frozen=True)
class RunNote:
    """One line of ``notes.jsonl``."""

    kind: str
    """One of `KINDS`."""
    step: int
    code: str
    """Of a warning, or the reason of the end."""
    text: str
    time: float
    """Seconds since 1970."""


def add_note(folder: Path, kind: str, step: int, code: str, text: str) -> None:
    """Add a line to a run's notes.

    Raises:
        ConfigError: the disk is full, or the notes are not a file.
    """
    path = folder / NOTES
    if path.is_dir():
        raise ConfigError(f"{path} should be the run's notes, but is not a file. Remove it.", code="PW615")
    line = json.dumps(asdict(RunNote(kind, step, code, text, time.time())))
    # A kill may have cut the last line short: a line of its own keeps this one readable.
    with room_on_disk(path), path.open("a+b") as file:
        end = file.seek(0, 2)
        if end:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(f"{line}\n".encode())


def read_notes(folder: Path) -> list[RunNote]:
    """Return a run's notes, oldest first, without lines that are damaged; none for a run of an earlier version."""
    try:
        lines = (folder / NOTES).read_bytes().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [note for note in map(_note, lines) if note is not None]


def _note(line: str) -> RunNote | None:
    try:
        found = json.loads(line)
        note = RunNote(**found)
    except (ValueError, TypeError, RecursionError):
        return None
    words = all(isinstance(value, str) for value in (note.kind, note.code, note.text))
    numbers = type(note.step) is int and type(note.time) in (int, float)
    return note if words and numbers and note.kind in KINDS else None
