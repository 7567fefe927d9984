"""What is finished of a scene's map, in a folder beside it, until the map is complete.

The folder ``.map.tif.parts`` holds ``journal.json`` (what the map is made from), a file for each finished piece, and
what the pieces below and to the right need of its tiles. Every file is written beside its name, flushed and then
renamed, what a piece leaves to others before the piece itself: so a process that is killed at any moment leaves
finished pieces, and what is needed to go on with the next.

Nothing is believed that cannot be checked. A piece says itself what it was made from, so that it outlives its
journal; all files have checksums, and what is damaged, or of another map, is made anew.
"""

import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from zipfile import BadZipFile, ZipFile
from zlib import crc32
from zlib import error as ZlibError

import numpy as np
import torch
from jaxtyping import Float32, Integer, UInt8

from pixelwise.errors import ConfigError
from pixelwise.files import (
    HOLDER,
    LOCK,
    ensure_folder,
    ensure_hidden_folder,
    locked_folder,
    remove_leftovers,
    replacing,
)
from pixelwise.inference.tile_grid import Place, Rect
from pixelwise.inference.tiling import TileSum
from pixelwise.mapping.pieces import Carry

FORMAT = 2
"""Of these files; a journal of another one is set aside."""
JOURNAL = "journal.json"
DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError, RuntimeError),
    *(BadZipFile, ZlibError, struct.error),
)
"""What reading a damaged or foreign file may raise."""


@dataclass(frozen=True)
class StoredPiece:
    """A rectangle of a map as it is on disk (`stored_labels`, `stored_share`)."""

    labels: Integer[np.ndarray, "n m"]
    confidence: UInt8[np.ndarray, "n m"] | None
    digest: int
    """Of what was read of the scene for the piece (`Piece.digest`)."""


def journal_folder(output: str | Path) -> Path:
    """Return where the journal of a map is."""
    output = Path(output)
    return output.with_name(f".{output.name}.parts")


def read_settings(output: str | Path) -> dict[str, Any] | None:
    """Return what an unfinished map is made from; None where there is none, or nothing that can be read."""
    folder = journal_folder(output)
    try:
        settings = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        if settings.pop("checksum") == _checksum_of(settings):
            return settings
    except DAMAGE:
        pass
    for path in _own_files(folder, "piece"):
        try:
            return json.loads(str(_arrays(path)["settings"]))
        except DAMAGE:
            continue
    return None


class Journal:
    """The finished pieces of one map. Used in a ``with`` block, which one process at a time can enter."""

    def __init__(self, output: str | Path, settings: dict[str, object], *, same: Callable[["Journal"], bool]) -> None:
        """Prepare the journal of a map.

        Args:
            settings: what the bytes of the map depend on, as JSON; and, in "noted", what need not agree but is kept
                from the first start.
            same: asked about a journal with the same settings and another ``noted["touched"]``: does it hold pieces
                of this very scene?
        """
        self.output, self.folder = Path(output), journal_folder(output)
        self.settings, self.same = json.loads(json.dumps(settings | {"format": FORMAT})), same
        self.messages: list[str] = []

    @property
    def noted(self) -> dict[str, object]:
        """What was kept from the first start."""
        noted = self.settings["noted"]
        assert isinstance(noted, dict)
        return noted

    def __enter__(self) -> "Journal":
        ensure_hidden_folder(self.folder)
        with ExitStack() as stack:
            work = f"is making {self.output}"
            stack.enter_context(locked_folder(self.folder, work=work, instead="another output"))
            remove_leftovers(self.folder)
            if not self._continues():
                for path in _own_files(self.folder):
                    path.unlink()
            self._write_settings()
            self._stack = stack.pop_all()
        return self

    def _continues(self) -> bool:
        """Take over a journal from disk, if there is one of this map; set it aside if it is of another."""
        old = read_settings(self.output)
        if old is None:
            if _own_files(self.folder, "piece"):
                self._set_aside("whose journal and pieces are damaged")
            return False
        others = [key for key in self.settings if key != "noted" and old.get(key) != self.settings[key]]
        if others:
            self._set_aside(f"made with another {', another '.join(others)}")
            return False
        new, self.settings = self.settings, old
        self._remove_damaged()
        touched = new["noted"]["touched"]
        if self.noted["touched"] != touched and not self.same(self):
            self.settings = new
            self._set_aside("made with another scene, which has changed")
            return False
        self.noted["touched"] = touched
        return True

    def _set_aside(self, what: str) -> None:
        number = 1
        while os.path.lexists(place := self.folder.with_name(f"{self.folder.name}.old{number}")):
            number += 1
        ensure_folder(place)
        for path in _own_files(self.folder):
            os.replace(path, place / path.name)
        self.messages.append(
            f"{self.folder} held an unfinished map {what}. It is kept as {place}, and the map begins anew. Delete it "
            "if it is not needed."
        )

    def _remove_damaged(self) -> None:
        """Remove what is not whole, or not of this map, so that it is made again."""
        damaged = 0
        for path in _own_files(self.folder, "piece"):
            try:
                arrays, place = _arrays(path), _place(path)
                same = self._is_own(arrays, place)
                same = same and int(arrays["cells"]) == _checksum(self.folder / _name("cells", place, "npy"))
            except DAMAGE:
                same = False
            if not same:
                path.unlink()
                damaged += 1
        if damaged:
            self.messages.append(f"{damaged} pieces in {self.folder} were damaged, and are made anew.")

    def _is_own(self, arrays: Mapping[str, np.ndarray], place: Place) -> bool:
        return _identity(json.loads(str(arrays["settings"]))) == self.identity and arrays["place"].tolist() == [*place]

    @property
    def identity(self) -> str:
        """A digest of all that the bytes of the map depend on."""
        return _identity(self.settings)

    def _write_settings(self) -> None:
        content = self.settings | {"checksum": _checksum_of(self.settings)}
        self._write(JOURNAL, lambda file: file.write(json.dumps(content, indent=1).encode()))

    def finished(self, place: Place) -> bool:
        """Return whether a piece is complete on disk."""
        return self._piece(place).exists()

    @property
    def carries(self) -> "Mapping[Place, Carry]":
        """What pieces left to others; read from disk when it is asked for."""
        return _Carries(self)

    def keep(
        self, place: Place, stored: StoredPiece, cells: Float32[np.ndarray, "K h w"] | None, carry: Carry | None
    ) -> None:
        """Store a finished piece.

        Args:
            cells: its blended logits, where probabilities are wanted.
            carry: what the pieces below and to the right need of it; None: not known here.

        Raises:
            ConfigError: the disk is full; what was kept before stays.
        """
        # The piece comes last: where it is, all that belongs to it is.
        summed = 0
        if cells is not None:
            name = _name("cells", place, "npy")
            self._write(name, lambda file: np.save(file, cells))
            summed = _checksum(self.folder / name)
        if carry is not None and (carry.below or carry.beside):
            arrays: dict[str, Any] = _arrays_of(carry) | {"of": np.array(self.identity), "place": np.array(place)}
            self._write(_name("carry", place, "npz"), lambda file: np.savez(file, **arrays))
        own: dict[str, Any] = {"labels": stored.labels, "digest": np.array(stored.digest)}
        if stored.confidence is not None:
            own["confidence"] = stored.confidence
        own |= {"settings": np.array(json.dumps(self.settings)), "place": np.array(place), "cells": np.array(summed)}
        self._write(self._piece(place).name, lambda file: np.savez(file, **own))
        # The piece to the right of the one above was made before this one.
        (self.folder / _name("carry", (place[0] - 1, place[1]), "npz")).unlink(missing_ok=True)

    def load(self, place: Place) -> StoredPiece:
        """Return a finished piece.

        Raises:
            ConfigError: the piece was damaged by something else; it is removed, so that it is made again.
        """
        path = self._piece(place)
        try:
            own = _arrays(path)
            return StoredPiece(own["labels"], own.get("confidence"), int(own["digest"]))
        except DAMAGE:
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{path} was damaged, and is removed. Give the same command again; it makes this piece anew."
            ) from None

    def cells(self, place: Place) -> Float32[np.ndarray, "K h w"]:
        """Return the blended logits of a finished piece; they stay on disk until they are used."""
        return np.load(self.folder / _name("cells", place, "npy"), mmap_mode="r")

    def remove(self) -> None:
        """Forget everything, since the map is complete."""
        # The settings go last: pieces without them would be taken for those of a map that is not finished.
        for path in _own_files(self.folder):
            path.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        empty = not _own_files(self.folder, "piece")
        if empty:
            for path in [*_own_files(self.folder), self.folder / HOLDER, self.folder / LOCK]:
                # Windows deletes no open file; the lock goes when it is let go of.
                with suppress(PermissionError):
                    path.unlink(missing_ok=True)
        self._stack.__exit__(kind, error, trace)
        if empty:
            # The next process may have come already, or something is not ours.
            with suppress(OSError):
                self.folder.rmdir()

    def _piece(self, place: Place) -> Path:
        return self.folder / _name("piece", place, "npz")

    def _write(self, name: str, save: Callable[[IO[bytes]], object]) -> None:
        try:
            with replacing(self.folder / name) as temporary, temporary.open("wb") as file:
                save(file)
        except OSError as error:
            raise ConfigError(
                f"{self.folder / name} could not be written: {error.strerror or error}. Make room on that disk."
            ) from None


class _Carries(Mapping[Place, Carry]):
    """What is whole and of this map; the rest is as if it were not there, and is computed again."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def __getitem__(self, place: Place) -> Carry:
        try:
            arrays = _arrays(self.journal.folder / _name("carry", place, "npz"))
            if str(arrays.pop("of")) != self.journal.identity or arrays.pop("place").tolist() != [*place]:
                raise KeyError(place)
            sums = {name: _sum_from(arrays, name) for name in {each.split()[0] for each in arrays}}
        except DAMAGE:
            raise KeyError(place) from None
        beside = sums.pop("beside", None)
        return Carry({int(row): sums[row] for row in sorted(sums, key=int)}, beside)

    def __iter__(self) -> Iterator[Place]:
        for path in _own_files(self.journal.folder, "carry"):
            if _place(path) in self:
                yield _place(path)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _identity(settings: Mapping[str, object]) -> str:
    """Return a digest of what the bytes of a map depend on."""
    return _checksum_of({key: value for key, value in settings.items() if key != "noted"})


def _checksum_of(settings: Mapping[str, object]) -> str:
    return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file; 0 where there is none."""
    found = 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        while block := file.read(1 << 20):
            found = crc32(block, found)
    return found


def _own_files(folder: Path, kind: str = r"(piece|carry|cells)") -> list[Path]:
    """Return what is of a journal in a folder, by name, the settings last; of one kind, its files."""
    ours = re.compile(rf"{kind}-\d{{6}}-\d{{4,}}\.np[yz]" + ("" if kind.isalpha() else rf"|{JOURNAL}"))
    found = [path for path in folder.glob("*") if ours.fullmatch(path.name) and (path.is_symlink() or path.is_file())]
    return sorted(found, key=lambda path: (path.name == JOURNAL, path.name))


def _name(kind: str, place: Place, suffix: str) -> str:
    row, column = place
    return f"{kind}-{row:06}-{column:04}.{suffix}"


def _place(path: Path) -> Place:
    _, row, column = path.stem.split("-")
    return int(row), int(column)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return what is in a file, once all its checksums are right; else raise one of `DAMAGE`."""
    with ZipFile(path) as file:
        # Before any array is made: its size may be what is damaged.
        if file.testzip() is not None:
            raise BadZipFile
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _arrays_of(carry: Carry) -> dict[str, Any]:
    sums = {str(row): part for row, part in carry.below.items()}
    if carry.beside is not None:
        sums["beside"] = carry.beside
    arrays: dict[str, Any] = {}
    for name, part in sums.items():
        arrays[f"{name} place"] = np.array(
            [part.cells.top, part.cells.left, part.digest, part.valid.shape[1]], np.int64
        )
        arrays[f"{name} total"], arrays[f"{name} weights"] = part.total.numpy(), part.weights.numpy()
        arrays[f"{name} valid"] = np.packbits(part.valid, axis=1)
    return arrays


def _sum_from(arrays: Mapping[str, np.ndarray], name: str) -> TileSum:
    top, left, digest, width = arrays[f"{name} place"].tolist()
    valid = np.unpackbits(arrays[f"{name} valid"], axis=1, count=width).astype(bool)
    total, weights = (torch.from_numpy(arrays[f"{name} {what}"]) for what in ("total", "weights"))
    height, across = weights.shape
    return TileSum(Rect(top, left, top + height, left + across), total, weights, valid, digest)
