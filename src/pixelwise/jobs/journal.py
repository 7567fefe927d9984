"""What is finished of a scene's map, in a folder beside it, until the map is complete.

The folder ``.map.tif.parts`` holds ``journal.json`` (what the map is made from), a file for each finished strip, and
what the next strip needs of the tiles above it. Every file is written beside its name and then renamed, what a strip
leaves to its successor before the strip itself: so a process that is killed at any moment leaves finished strips, and
what is needed to go on with the next.
"""

import json
import os
from collections.abc import Callable, Mapping
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
from pixelwise.jobs.tiling import RowSum


@dataclass(frozen=True)
class StoredStrip:
    """Rows of a map as they are on disk (`stored_labels`, `stored_share`)."""

    labels: Integer[np.ndarray, "n W"]
    confidence: UInt8[np.ndarray, "n W"] | None
    cells: Float32[np.ndarray, "K m w"] | None
    """Blended logits at the stride, where probabilities are wanted."""
    digest: int
    """Of what was read of the scene for the strip's row of tiles."""


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
    """The finished strips of one map. Used in a ``with`` block, which one process at a time can enter."""

    def __init__(self, output: str | Path, settings: dict[str, object], *, same: Callable[["Journal"], bool]) -> None:
        """Prepare the journal of a map.

        Args:
            settings: what the bytes of the map depend on, as JSON; and, in "noted", what need not agree but is kept
                from the first start.
            same: asked about a journal with the same settings and another ``noted["touched"]``: does it hold strips
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

    def finished(self, strip: int) -> bool:
        """Return whether a strip is complete on disk."""
        return self._strip(strip).exists()

    def keep(self, strip: int, stored: StoredStrip, carry: Mapping[int, RowSum]) -> None:
        """Store a finished strip, and what the next one needs of rows of tiles above it.

        Raises:
            ConfigError: the disk is full; what was kept before stays.
        """
        # The strip comes last: where it is, all that belongs to it is.
        cells = stored.cells
        if cells is not None:
            self._write(f"cells-{strip:06}.npy", lambda file: np.save(file, cells))
        if carry:
            arrays: dict[str, Any] = {}
            for row, part in carry.items():
                arrays[f"{row} place"] = np.array([part.top, part.digest], np.int64)
                arrays[f"{row} total"], arrays[f"{row} weights"] = part.total.numpy(), part.weights.numpy()
                arrays[f"{row} valid"] = np.packbits(part.valid, axis=1)
                arrays[f"{row} width"] = np.array(part.valid.shape[1])
            self._write(self._carry(strip).name, lambda file: np.savez(file, **arrays))
        own: dict[str, Any] = {"labels": stored.labels, "digest": np.array(stored.digest)}
        if stored.confidence is not None:
            own["confidence"] = stored.confidence
        self._write(self._strip(strip).name, lambda file: np.savez(file, **own))
        if strip:
            self._carry(strip - 1).unlink(missing_ok=True)

    def carry(self, strip: int) -> dict[int, RowSum]:
        """Return the parts of rows of tiles above a strip that were kept for it; none where none were."""
        if strip == 0 or not self._carry(strip - 1).exists():
            return {}
        with np.load(self._carry(strip - 1)) as file:
            rows = sorted({int(name.split()[0]) for name in file.files})
            parts = {}
            for row in rows:
                top, digest = file[f"{row} place"].tolist()
                valid = np.unpackbits(file[f"{row} valid"], axis=1, count=int(file[f"{row} width"])).astype(bool)
                total, weights = (torch.from_numpy(file[f"{row} {name}"]) for name in ("total", "weights"))
                parts[row] = RowSum(top, total, weights, valid, digest)
            return parts

    def load(self, strip: int) -> StoredStrip:
        """Return a finished strip; its cells stay on disk until they are used.

        Raises:
            ConfigError: the strip was damaged by something else; it is removed, so that it is made again.
        """
        path, cells = self._strip(strip), self.folder / f"cells-{strip:06}.npy"
        try:
            with np.load(path) as file:
                labels, digest = file["labels"], int(file["digest"])
                confidence = file["confidence"] if "confidence" in file.files else None
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            path.unlink(missing_ok=True)
            raise ConfigError(
                f"{path} was damaged, and is removed. Give the same command again; it makes this strip anew."
            ) from None
        return StoredStrip(labels, confidence, np.load(cells, mmap_mode="r") if cells.exists() else None, digest)

    def remove(self) -> None:
        """Forget everything, since the map is complete."""
        # The settings go first: what is left without them counts as nothing.
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name != "journal.json"):
            if path.name != "lock":
                path.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not any(self.folder.glob("strip-*")):
            for path in self.folder.iterdir():
                path.unlink()
            # The next process may have come already.
            with suppress(OSError):
                self.folder.rmdir()
        self._lock.close()

    def _strip(self, strip: int) -> Path:
        return self.folder / f"strip-{strip:06}.npz"

    def _carry(self, strip: int) -> Path:
        return self.folder / f"carry-{strip:06}.npz"

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
