"""What is finished of a scene's map, in a folder beside it, until the map is complete.

The folder ``.map.tif.parts`` holds ``journal.json`` (what the map is made from), a file for each finished piece, and
what the pieces below and to the right need of its tiles. Every file is written beside its name and then renamed, what a
piece leaves to others before the piece itself: so a process that is killed at any moment leaves finished pieces, and
what is needed to go on with the next.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float32, Integer, UInt8

from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, locked, replacing
from pixelwise.geo.tiles import Place
from pixelwise.jobs.pieces import Carry
from pixelwise.jobs.tiling import TileSum


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


def read_settings(output: str | Path) -> dict[str, object] | None:
    """Return what an unfinished map is made from; None where there is none."""
    try:
        return json.loads((journal_folder(output) / "journal.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
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
        self.settings, self.same = json.loads(json.dumps(settings)), same
        self.messages: list[str] = []

    @property
    def noted(self) -> dict[str, object]:
        """What was kept from the first start."""
        noted = self.settings["noted"]
        assert isinstance(noted, dict)
        return noted

    def __enter__(self) -> "Journal":
        ensure_folder(self.folder)
        with ExitStack() as stack:
            self._lock = stack.enter_context((self.folder / "lock").open("w"))
            if not locked(self._lock):
                raise ConfigError(
                    f"Another process is making {self.output} (it holds {self.folder}). Wait for it, or choose "
                    "another output."
                )
            if not self._continues():
                self._begin()
            stack.pop_all()
        return self

    def _continues(self) -> bool:
        """Take over a journal from disk, if there is one of this map; set it aside if it is of another."""
        old = read_settings(self.output)
        if old is None:
            return False
        assert isinstance(old["noted"], dict)
        others = [key for key in self.settings if key != "noted" and old.get(key) != self.settings[key]]
        touched = old["noted"]["touched"] != self.noted["touched"]
        new, self.settings = self.settings, old
        if not others and touched and not self.same(self):
            others = ["scene, which has changed"]
        if not others:
            # What a killed process was writing.
            for path in self.folder.glob(".*"):
                path.unlink()
            return True
        self.settings = new
        place = self._set_aside()
        self.messages.append(
            f"{self.folder} held an unfinished map made with another {', another '.join(others)}. It is kept as "
            f"{place}, and the map begins anew. Delete it if it is not needed."
        )
        return False

    def _set_aside(self) -> Path:
        number = 1
        while (place := self.folder.with_name(f"{self.folder.name}.old{number}")).exists():
            number += 1
        ensure_folder(place)
        for path in self.folder.iterdir():
            if path.name != "lock":
                os.replace(path, place / path.name)
        return place

    def _begin(self) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        self._write("journal.json", lambda file: file.write(json.dumps(self.settings, indent=1).encode()))

    def finished(self, place: Place) -> bool:
        """Return whether a piece is complete on disk."""
        return self._piece(place).exists()

    @property
    def carries(self) -> "Mapping[Place, Carry]":
        """What pieces left to others; read from disk when it is asked for."""
        return _Carries(self.folder)

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
        if cells is not None:
            self._write(_name("cells", place, "npy"), lambda file: np.save(file, cells))
        if carry is not None and (carry.below or carry.beside):
            arrays = _arrays(carry)
            self._write(_name("carry", place, "npz"), lambda file: np.savez(file, **arrays))
        own: dict[str, Any] = {"labels": stored.labels, "digest": np.array(stored.digest)}
        if stored.confidence is not None:
            own["confidence"] = stored.confidence
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
            with np.load(path) as file:
                labels, digest = file["labels"], int(file["digest"])
                confidence = file["confidence"] if "confidence" in file.files else None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{path} was damaged, and is removed. Give the same command again; it makes this piece anew."
            ) from None
        return StoredPiece(labels, confidence, digest)

    def cells(self, place: Place) -> Float32[np.ndarray, "K h w"]:
        """Return the blended logits of a finished piece; they stay on disk until they are used."""
        return np.load(self.folder / _name("cells", place, "npy"), mmap_mode="r")

    def remove(self) -> None:
        """Forget everything, since the map is complete."""
        # The settings go first: what is left without them counts as nothing.
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name != "journal.json"):
            if path.name != "lock":
                path.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not any(self.folder.glob("piece-*")):
            for path in self.folder.iterdir():
                path.unlink()
            # The next process may have come already.
            with suppress(OSError):
                self.folder.rmdir()
        self._lock.close()

    def _piece(self, place: Place) -> Path:
        return self.folder / _name("piece", place, "npz")

    def _write(self, name: str, save: Callable[[IO[bytes]], object]) -> None:
        try:
            with replacing(self.folder / name) as temporary, temporary.open("wb") as file:
                save(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"{self.folder / name} could not be written: {error.strerror or error}. Make room on that disk."
            ) from None


class _Carries(Mapping[Place, Carry]):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, place: Place) -> Carry:
        try:
            with np.load(self.folder / _name("carry", place, "npz")) as file:
                sums = {name: _sum_from(file, name) for name in {each.split()[0] for each in file.files}}
        except FileNotFoundError:
            raise KeyError(place) from None
        beside = sums.pop("beside", None)
        return Carry({int(row): sums[row] for row in sorted(sums, key=int)}, beside)

    def __iter__(self) -> Iterator[Place]:
        for path in self.folder.glob("carry-*.npz"):
            _, row, column = path.stem.split("-")
            yield int(row), int(column)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _name(kind: str, place: Place, suffix: str) -> str:
    row, column = place
    return f"{kind}-{row:06}-{column:04}.{suffix}"


def _arrays(carry: Carry) -> dict[str, Any]:
    sums = {str(row): part for row, part in carry.below.items()}
    if carry.beside is not None:
        sums["beside"] = carry.beside
    arrays: dict[str, Any] = {}
    for name, part in sums.items():
        arrays[f"{name} place"] = np.array([part.top, part.left, part.digest, part.valid.shape[1]], np.int64)
        arrays[f"{name} total"], arrays[f"{name} weights"] = part.total.numpy(), part.weights.numpy()
        arrays[f"{name} valid"] = np.packbits(part.valid, axis=1)
    return arrays


def _sum_from(file: Mapping[str, np.ndarray], name: str) -> TileSum:
    top, left, digest, width = file[f"{name} place"].tolist()
    valid = np.unpackbits(file[f"{name} valid"], axis=1, count=width).astype(bool)
    total, weights = (torch.from_numpy(file[f"{name} {what}"]) for what in ("total", "weights"))
    return TileSum(top, left, total, weights, valid, digest)
