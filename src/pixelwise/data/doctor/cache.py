"""What was read of files before, so that a second look reads only those that changed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

from pixelwise.errors import PixelwiseError
from pixelwise.files import replacing

VERSION = 1
"""Of the facts: others are read again."""
BESIDE = (".aux.xml", ".msk", ".ovr")
"""Ends of files beside a raster that belong to it; and world files, whose suffix takes the place of its own."""
WORLD = (".tfw", ".pgw", ".jgw", ".wld", ".prj")

Stamp = list[list[int]]
"""Size, time of the last change in nanoseconds, and inode of a file and of those that belong to it."""


def stamp_of(path: Path) -> Stamp | None:
    """Return what changes when a file does; None for a file that is not there or lies in the network."""
    try:
        entries = [os.stat(path)]
    except OSError:
        return None
    base = os.path.splitext(path)[0]
    for name in (*(f"{path}{end}" for end in BESIDE), *(f"{base}{end}" for end in WORLD)):
        try:
            entries.append(os.stat(name))
        except OSError:
            continue
    return [[entry.st_size, entry.st_mtime_ns, entry.st_ino] for entry in entries]


class FactCache:
    """Facts by their name; each is valid while the stamps of its files are those of the time when it was read."""

    def __init__(self, path: Path | None, *, empty: bool = False) -> None:
        """Open a cache; one that is damaged or of another version is empty.

        Args:
            path: its file; None: nothing is kept.
            empty: what the file holds is not used.
        """
        self.path = path
        self._kept: dict[str, list] = {}
        self._used: dict[str, list] = {}
        self._stamps: dict[Path, Stamp | None] = {}
        self._changed = False
        if path is not None and not empty:
            self._kept = _load(path)

    def get(self, name: str, files: Sequence[Path]) -> dict | None:
        """Return facts that are still true, or None."""
        entry = self._kept.get(name)
        stamps = self._stamps_of(files)
        if entry is None or None in stamps or entry[0] != stamps:
            return None
        self._used[name] = entry
        return entry[1]

    def put(self, name: str, files: Sequence[Path], facts: dict) -> None:
        """Keep facts, with the stamps that their files had before they were read."""
        stamps = self._stamps_of(files)
        if None not in stamps:
            self._used[name] = [stamps, facts]
            self._changed = True

    def save(self, *, complete: bool) -> None:
        """Write what was used; a folder that cannot be written to keeps nothing.

        Args:
            complete: the work is done, so what was not used is not needed any more.
        """
        if not complete:
            self._used = self._kept | self._used
        if self.path is None or not (self._changed or len(self._used) != len(self._kept)):
            return
        try:
            with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.write(_line({"version": VERSION}))
                for name, entry in self._used.items():
                    file.write(_line([name, *entry]))
        except (OSError, PixelwiseError):
            # The examination is complete without it.
            return

    def _stamps_of(self, files: Sequence[Path]) -> list[Stamp | None]:
        for file in files:
            if file not in self._stamps:
                self._stamps[file] = stamp_of(file)
        return [self._stamps[file] for file in files]


def _line(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return f"{crc32(text.encode()):08x} {text}\n"


def _value(line: str) -> Any:
    checksum, _, text = line.rstrip("\n").partition(" ")
    if f"{crc32(text.encode()):08x}" != checksum:
        raise ValueError("the line has changed since it was written")
    return json.loads(text)


def _load(path: Path) -> dict[str, list]:
    kept: dict[str, list] = {}
    try:
        with path.open(encoding="utf-8") as file:
            if _value(next(file, "")) != {"version": VERSION}:
                return {}
            for line in file:
                name, stamps, facts = _value(line)
                kept[name] = [stamps, facts]
    except (OSError, ValueError):
        return {}
    return kept
