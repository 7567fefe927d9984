"""The files of an unfinished map: their names, what is in them, and whether it is whole.

``piece-ROW-COLUMN.npz`` is a finished piece with all that it was made from, ``cells-ROW-COLUMN.npy`` its blended
logits, ``carry-ROW-COLUMN.npz`` what it leaves to other pieces, ``journal.json`` what the map is made from.
"""

import json
import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import crc32
from zlib import error as ZlibError

import numpy as np

from pixelwise.inference.tile_grid import Place, Rect
from pixelwise.inference.tiling import TileSum
from pixelwise.mapping.pieces import Carry

JOURNAL = "journal.json"
DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError, RuntimeError),
    *(BadZipFile, ZlibError, struct.error),
)
"""What reading a damaged or foreign file may raise."""


def file_name(kind: str, place: Place) -> str:
    """Return the name of a file: of a 'piece', a 'carry' or 'cells'."""
    return f"{kind}-{place[0]:06}-{place[1]:04}.{'npy' if kind == 'cells' else 'npz'}"


def place_of(path: Path) -> Place:
    """Return the piece that a file belongs to."""
    _, row, column = path.stem.split("-")
    return int(row), int(column)


def own_files(folder: Path, kind: str = r"(piece|carry|cells)") -> list[Path]:
    """Return what is of a journal in a folder, by name, the settings last; of one kind, its files."""
    ours = re.compile(rf"{kind}-\d{{6}}-\d{{4,}}\.np[yz]" + ("" if kind.isalpha() else rf"|{JOURNAL}"))
    found = [path for path in folder.glob("*") if ours.fullmatch(path.name) and (path.is_symlink() or path.is_file())]
    return sorted(found, key=lambda path: (path.name == JOURNAL, path.name))


def identity_of(settings: Mapping[str, object]) -> str:
    """Return a digest of what the bytes of a map depend on."""
    return digest_of({key: value for key, value in settings.items() if key != "noted"})


def digest_of(settings: Mapping[str, object]) -> str:
    """Return a digest of all settings."""
    return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def file_checksum(path: Path) -> int:
    """Return the CRC-32 of a file; 0 where there is none."""
    found = 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        while block := file.read(1 << 20):
            found = crc32(block, found)
    return found


def carry_to_arrays(carry: Carry) -> dict[str, Any]:
    """Return what is kept of a carry."""
    sums = {str(row): part for row, part in carry.below.items()}
    if carry.beside is not None:
        sums["beside"] = carry.beside
    arrays: dict[str, Any] = {}
    for name, part in sums.items():
        part, cells, width = part.in_memory(), part.cells, part.valid.shape[1]
        arrays[f"{name} place"] = np.array([cells.top, cells.left, part.digest, width], np.int64)
        arrays[f"{name} total"], arrays[f"{name} weights"] = part.total, part.weights
        arrays[f"{name} valid"] = np.packbits(part.valid, axis=1)
    return arrays


def carry_from_arrays(arrays: Mapping[str, np.ndarray]) -> Carry:
    """Return the carry that `carry_to_arrays` kept; raise one of `DAMAGE` if it is none."""
    sums = {name: _sum_from(arrays, name) for name in {each.split()[0] for each in arrays}}
    beside = sums.pop("beside", None)
    return Carry({int(row): sums[row] for row in sorted(sums, key=int)}, beside)


def _sum_from(arrays: Mapping[str, np.ndarray], name: str) -> TileSum:
    top, left, digest, width = arrays[f"{name} place"].tolist()
    valid = np.unpackbits(arrays[f"{name} valid"], axis=1, count=width).astype(bool)
    total, weights = (arrays[f"{name} {what}"] for what in ("total", "weights"))
    rows, columns = weights.shape
    return TileSum(Rect(top, left, top + rows, left + columns), total, weights, valid, digest)
