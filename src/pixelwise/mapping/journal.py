"""What is finished of a scene's map, in a folder beside it, until the map is complete.

The folder ``.map.tif.parts`` holds ``journal.json`` (what the map is made from), a file for each finished piece, and
what the pieces below and to the right need of its tiles (`journal_files`). Every file is written beside its name,
flushed and then renamed. What a piece leaves to others comes before the piece itself. So a process that is killed at
any moment leaves finished pieces, and what is needed to go on with the next.

Nothing is believed unchecked. A piece says itself what it was made from, so that it outlives its journal. All files
have checksums; what is damaged, or of another map, is computed again.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from pixelwise.errors import ConfigError
from pixelwise.files import (
    HOLDER,
    LOCK,
    ensure_folder,
    ensure_hidden_folder,
    locked_folder,
    read_arrays,
    remove_leftovers,
    replacing,
)
from pixelwise.inference.tile_grid import Place
from pixelwise.mapping.journal_files import (
    DAMAGE,
    JOURNAL,
    carry_from_arrays,
    carry_to_arrays,
    digest_of,
    file_checksum,
    file_name,
    identity_of,
    own_files,
    place_of,
)
from pixelwise.mapping.pieces import Carry

FORMAT = 2
"""Of these files; a journal of another one is set aside."""


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
        if settings.pop("checksum") == digest_of(settings):
            return settings
    except DAMAGE:
        pass
    for path in own_files(folder, "piece"):
        try:
            return json.loads(str(read_arrays(path)["settings"]))
        except DAMAGE:
            continue
    return None


class Journal:
    """The finished pieces of one map. Used in a ``with`` block, which one process at a time can enter."""

    def __init__(self, output: str | Path, settings: dict[str, object], *, same: Callable[["Journal"], bool]) -> None:
        """Prepare the journal of a map.

        Args:
            settings: what the bytes of the map depend on, as JSON; and, in "noted", what may differ, and is kept
                as it was at the first start.
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

    @property
    def identity(self) -> str:
        """A digest of all that the bytes of the map depend on."""
        return identity_of(self.settings)

    def __enter__(self) -> "Journal":
        ensure_hidden_folder(self.folder)
        with ExitStack() as stack:
            work = f"is making {self.output}"
            stack.enter_context(locked_folder(self.folder, work=work, instead="another output"))
            remove_leftovers(self.folder)
            other = self._take_over()
            if other is not None:
                self._set_aside(other)
            self._write_settings()
            self._stack = stack.pop_all()
        return self

    def _take_over(self) -> str | None:
        """Go on with the journal on disk, if there is one; if it is not of this map, return what is wrong with it."""
        old, new = read_settings(self.output), self.settings
        if old is None:
            if own_files(self.folder, "piece"):
                return "whose journal and pieces are damaged"
            self.remove()
            return None
        others = [key for key in new if key != "noted" and old.get(key) != new[key]]
        if others:
            return f"made with another {', another '.join(others)}"
        self.settings = old
        self._remove_damaged()
        touched = new["noted"]["touched"]
        if self.noted["touched"] != touched and not self.same(self):
            self.settings = new
            return "made with another scene, which has changed"
        self.noted["touched"] = touched
        return None

    def _set_aside(self, what: str) -> None:
        number = 1
        while os.path.lexists(place := self.folder.with_name(f"{self.folder.name}.old{number}")):
            number += 1
        ensure_folder(place)
        for path in own_files(self.folder):
            os.replace(path, place / path.name)
        self.messages.append(
            f"{self.folder} held an unfinished map {what}. It is kept as {place}, and the map starts from the "
            "beginning. Delete the folder if you do not need it."
        )

    def _remove_damaged(self) -> None:
        """Remove pieces that are not whole, or not of this map, so that they are computed again."""
        damaged = [path for path in own_files(self.folder, "piece") if not self._is_own(path)]
        for path in damaged:
            path.unlink()
        if damaged:
            self.messages.append(f"{len(damaged)} pieces in {self.folder} were damaged, and are computed again.")

    def _is_own(self, path: Path) -> bool:
        """Return whether a file is a piece of this map at its place, and its cells are whole."""
        try:
            arrays, place = read_arrays(path), place_of(path)
            same = identity_of(json.loads(str(arrays["settings"]))) == self.identity
            cells = file_checksum(self.folder / file_name("cells", place))
            return same and arrays["place"].tolist() == [*place] and int(arrays["cells"]) == cells
        except DAMAGE:
            return False

    def _write_settings(self) -> None:
        content = self.settings | {"checksum": digest_of(self.settings)}
        self._write(JOURNAL, lambda file: file.write(json.dumps(content, indent=1).encode()))

    def finished(self, place: Place) -> bool:
        """Return whether a piece is complete on disk."""
        return self._file("piece", place).exists()

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
        checksum = 0
        if cells is not None:
            path = self._file("cells", place)
            self._write(path.name, lambda file: np.save(file, cells))
            checksum = file_checksum(path)
        if carry is not None and (carry.below or carry.beside):
            left: dict[str, Any] = carry_to_arrays(carry) | {"of": np.array(self.identity), "place": np.array(place)}
            self._write(file_name("carry", place), lambda file: np.savez(file, **left))
        own: dict[str, Any] = {"labels": stored.labels, "digest": np.array(stored.digest)}
        if stored.confidence is not None:
            own["confidence"] = stored.confidence
        own |= {"settings": np.array(json.dumps(self.settings)), "place": np.array(place), "cells": np.array(checksum)}
        self._write(file_name("piece", place), lambda file: np.savez(file, **own))
        # Nobody needs what the piece above left any more: the one to the right of that was made before this one.
        self._file("carry", (place[0] - 1, place[1])).unlink(missing_ok=True)

    def load(self, place: Place) -> StoredPiece:
        """Return a finished piece.

        Raises:
            ConfigError: the piece was damaged by something else; it is removed, so that it is computed again.
        """
        path = self._file("piece", place)
        try:
            own = read_arrays(path)
            return StoredPiece(own["labels"], own.get("confidence"), int(own["digest"]))
        except DAMAGE:
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{path} was damaged, and is removed. Give the same command again; it computes this piece again.",
                code="PW615",
            ) from None

    def cells(self, place: Place) -> Float32[np.ndarray, "K h w"]:
        """Return the blended logits of a finished piece; they stay on disk until they are used."""
        return np.load(self._file("cells", place), mmap_mode="r")

    def remove(self) -> None:
        """Forget everything: the map is complete, or nothing of it is finished."""
        # The settings go last: pieces without them would be taken for those of a map that is not finished.
        for path in own_files(self.folder):
            path.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        empty = not own_files(self.folder, "piece")
        if empty:
            for path in [*own_files(self.folder), self.folder / HOLDER, self.folder / LOCK]:
                # Windows deletes no open file; the lock is deleted when it is released.
                with suppress(PermissionError):
                    path.unlink(missing_ok=True)
        self._stack.__exit__(kind, error, trace)
        if empty:
            # The next process may have come already, or something is not ours.
            with suppress(OSError):
                self.folder.rmdir()

    def _file(self, kind: str, place: Place) -> Path:
        return self.folder / file_name(kind, place)

    def _write(self, name: str, save: Callable[[IO[bytes]], object]) -> None:
        try:
            with replacing(self.folder / name) as temporary, temporary.open("wb") as file:
                save(file)
        except OSError as error:
            raise ConfigError(
                f"{self.folder / name} could not be written: {error.strerror or error}. Make room on that disk.",
                code="PW803",
            ) from None


class _Carries(Mapping[Place, Carry]):
    """What is whole and of this map; the rest is as if it were not there, and is computed again."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def __getitem__(self, place: Place) -> Carry:
        try:
            arrays = read_arrays(self.journal.folder / file_name("carry", place))
            if str(arrays.pop("of")) == self.journal.identity and arrays.pop("place").tolist() == [*place]:
                return carry_from_arrays(arrays)
        except DAMAGE:
            pass
        raise KeyError(place)

    def __iter__(self) -> Iterator[Place]:
        return (place_of(path) for path in own_files(self.journal.folder, "carry") if place_of(path) in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
