"""Write beside, then rename: nothing a user made is ever lost or half written."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO

from pixelwise.errors import ConfigError


@contextmanager
def replacing(path: str | Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, rename it to ``path``.

    The suffix is kept, since drivers choose a format by it. When the block fails, the temporary file is removed
    and an older ``path`` stays as it was.

    Args:
        scratch: a folder on the same disk for the temporary file, where its owner finds what a killed process left.

    Raises:
        ConfigError: the folder cannot be made or written to.
    """
    path = Path(path)
    temporary = (scratch or path.parent) / f".{path.stem}.{os.getpid()}{path.suffix}"
    ensure_folder(path.parent)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Like `replacing`, for a folder: the old one gives way only when the new one is complete.

    A process killed between the two renames leaves the old folder as ``NAME.old``; `recovered_folder` finds it.
    """
    path = Path(path)
    temporary, old = path.with_name(f"{path.name}.new"), path.with_name(f"{path.name}.old")
    recovered_folder(path)
    shutil.rmtree(temporary, ignore_errors=True)
    ensure_folder(temporary)
    yield temporary
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(temporary, path)
    shutil.rmtree(old, ignore_errors=True)


def recovered_folder(path: str | Path) -> Path:
    """Return ``path``, after putting back the old folder of a replacement that was killed half way."""
    path = Path(path)
    old = path.with_name(f"{path.name}.old")
    if old.exists() and not path.exists():
        os.replace(old, path)
    return path


def ensure_folder(path: str | Path) -> Path:
    """Make a folder and its parents, and see that files can be written there.

    Raises:
        ConfigError: a file bears the name, or the folder is read-only.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(
            f"{path} cannot be a folder, since a file is in the way. Choose another output folder."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"The folder {path} cannot be made: {error.strerror}. Choose another output folder."
        ) from None
    if not os.access(path, os.W_OK):
        raise ConfigError(
            f"The folder {path} is not writable. Choose another output folder, or change its permissions."
        )
    return path


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        ConfigError: no such file.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None


def locked(file: IO[str]) -> bool:
    """Lock an open file for this process, until it is closed; return whether no other process has it."""
    try:
        import fcntl
    except ModuleNotFoundError:
        # Windows refuses by itself to replace files that another process has open.
        return True
    lock: ModuleType = fcntl
    try:
        lock.flock(file, lock.LOCK_EX | lock.LOCK_NB)
    except OSError:
        return False
    return True
