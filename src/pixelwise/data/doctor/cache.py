"""What was read of files, on the disk: a second look reads only those that changed, and memory stays flat."""

import json
import os
import re
import shutil
import tempfile
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from pixelwise.errors import PixelwiseError
from pixelwise.files import replacing

VERSION = 2
"""Of the facts: others are read again."""
BESIDE = (".aux.xml", ".msk", ".ovr")
"""Ends of files beside a raster that belong to it; and world files, whose suffix takes the place of its own."""
WORLD = (".tfw", ".pgw", ".jgw", ".wld", ".prj")
CHECKSUM, KEY = 8, 16
"""Digits before the text of a line: of its checksum, then of its name's hash."""


def stamp_of(paths: Sequence[Path]) -> int | None:
    """Return what changes when one of some files does: its size, time or inode, or those of files that belong to it.

    Returns:
        None if one is not there or lies in the network.
    """
    entries = []
    for path in paths:
        base = os.path.splitext(path)[0]
        for name in (str(path), *(f"{path}{end}" for end in BESIDE), *(f"{base}{end}" for end in WORLD)):
            try:
                entry = os.stat(name)
            except OSError:
                if name == str(path):
                    return None
                continue
            entries.append((entry.st_size, entry.st_mtime_ns, entry.st_ino))
    return _number(repr(entries))


class FactCache:
    """Facts by their name; each is valid while the stamp of its files is that of the time when it was read.

    They stay on the disk, and a place is what finds one again. Lines of an earlier examination are in the user's file;
    new ones are in a file without a name until `save`.
    """

    def __init__(self, path: Path | None, *, empty: bool = False) -> None:
        """Open a cache; one that is damaged or of another version is empty.

        Args:
            path: its file; None: nothing is kept.
            empty: what the file holds is not used.
        """
        self.path = path
        self._old: BinaryIO | None = None
        self._keys, self._places = np.empty(0, np.uint64), np.empty(0, np.int64)
        if path is not None and not empty:
            self._open(path)
        self._used = np.zeros(len(self._keys), bool)
        self._fresh = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the facts)
        self._stamps: dict[int, int | None] = {}
        self._newest: tuple[int, dict] | None = None
        self._lock = Lock()

    def find(self, name: str, files: Sequence[Path]) -> int | None:
        """Return the place of facts that are still true, or None."""
        key = _number(name)
        at = int(np.searchsorted(self._keys, np.uint64(key), side="right")) - 1
        stamp = self._stamps[key] = stamp_of(files)
        if stamp is None or at < 0 or self._keys[at] != key:
            return None
        kept = self._entry(int(self._places[at]) << 1)
        if kept is None or kept[:2] != [name, stamp]:
            return None
        self._used[at] = True
        del self._stamps[key]
        return int(self._places[at]) << 1

    def get(self, name: str, files: Sequence[Path]) -> dict | None:
        """Return facts that are still true, or None."""
        place = self.find(name, files)
        return None if place is None else self.read(place)

    def put(self, name: str, files: Sequence[Path], facts: dict) -> int:
        """Keep facts, with the stamp that their files had before they were read; return their place."""
        key = _number(name)
        stamp = self._stamps.pop(key) if key in self._stamps else stamp_of(files)
        with self._lock:
            place = self._fresh.seek(0, os.SEEK_END)
            # Without a stamp it is true for this time only.
            self._fresh.write(_line([name, stamp, facts]))
        return place << 1 | 1

    def read(self, place: int) -> dict:
        """Return the facts at a place that `find` or `put` gave."""
        newest = self._newest
        if newest is None or newest[0] != place:
            entry = self._entry(place)
            assert entry is not None, "a line that was whole when it was found"
            newest = self._newest = (place, entry[2])
        return newest[1]

    def save(self, *, complete: bool) -> None:
        """Write what was used; a folder that cannot be written to keeps nothing.

        Args:
            complete: the work is done, so what was not used is not needed any more.
        """
        kept = self._used if complete else np.ones(len(self._used), bool)
        with self._lock:
            if self.path is None or (not self._fresh.seek(0, os.SEEK_END) and kept.all()):
                return
            try:
                with replacing(self.path) as temporary, temporary.open("wb") as file:
                    file.write(_line({"version": VERSION}))
                    for place in self._places[kept].tolist():
                        assert self._old is not None
                        self._old.seek(place)
                        file.write(self._old.readline())
                    self._fresh.seek(0)
                    shutil.copyfileobj(self._fresh, file)
            except (OSError, PixelwiseError):
                # The examination is complete without it.
                return

    def _open(self, path: Path) -> None:
        keys, places = array("Q"), array("q")
        try:
            self._old = path.open("rb")
            if _value(self._old.readline()) != {"version": VERSION}:
                return
            at = self._old.tell()
            for line in self._old:
                key = line[CHECKSUM + 1 : CHECKSUM + 1 + KEY]
                if re.fullmatch(b"[0-9a-f]{%d}" % KEY, key):
                    keys.append(int(key, 16))
                    places.append(at)
                at += len(line)
        except (OSError, ValueError):
            return
        # Where a name comes twice, the later line stays behind the earlier one.
        order = np.argsort(np.asarray(keys, np.uint64), kind="stable")
        self._keys, self._places = np.asarray(keys, np.uint64)[order], np.asarray(places, np.int64)[order]

    def _entry(self, place: int) -> list | None:
        """Return the name, the stamp and the facts of a line; None where it is damaged."""
        file = self._fresh if place & 1 else self._old
        assert file is not None
        with self._lock:
            file.seek(place >> 1)
            line = file.readline()
        try:
            return _value(line)
        except ValueError:
            return None


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    key = _number(value[0]) if isinstance(value, list) else 0
    return b"%08x %016x %s\n" % (crc32(text), key, text)


def _value(line: bytes) -> Any:
    text = line[CHECKSUM + KEY + 2 : -1]
    if b"%08x" % crc32(text) != line[:CHECKSUM]:
        raise ValueError("the line has changed since it was written")
    return json.loads(text)
