"""The one place that writes what must last: beside its name, flushed to the disk, then renamed.

A rename alone survives a kill. It does not survive a power cut, after which the new name may belong to an empty file.
So a file is flushed before it takes its name, its folder after that, and nothing older goes before the new is safe.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO

from filelock import FileLock, Timeout

from pixelwise.errors import ConfigError

LOCK, HOLDER = "lock", "lock.holder"
"""In a folder that one process at a time works in: the lock, and who holds it. Both may stay; neither is ever data."""
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_CHECKSUM = "# SHA-256 of the lines below: "
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.pixelwise(\..*)?", re.DOTALL)


@contextmanager
def replacing(path: str | Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, flush it to the disk and rename it to ``path``.

    The suffix is kept, since drivers choose a format by it. Nobody can guess the temporary name, so that no file or
    link is waiting there. When the block fails, the temporary file is removed and an older ``path`` stays as it was.
    After the block the file survives a power cut.

    Args:
        scratch: a folder on the same disk for the temporary file, where its owner finds what a killed process left.

    Raises:
        ConfigError: the folder cannot be made or written to, a folder has the file's name, or the disk is full.
    """
    path = Path(path)
    name = f".{path.stem}.{secrets.token_hex(8)}.pixelwise{path.suffix}"
    temporary = (scratch or path.parent) / name
    ensure_folder(path.parent)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, and no file can take its name. Remove it, or choose another output.")
    try:
        with room_on_disk(path):
            yield temporary
            move_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_on_disk(path: Path) -> Iterator[None]:
    """Name the file that is written where the system says that the disk is full, or the file too large for it.

    Raises:
        ConfigError: it says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ConfigError(
            f"{path} could not be written: {error.strerror}. Make room on that disk, and give the same command again."
        ) from None


def move_durably(source: Path, target: Path) -> None:
    """Flush a finished file to the disk, give it its name on the same disk, and flush that name."""
    flush_file(source)
    os.replace(source, target)
    flush_folder(target.parent)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Like `replacing`, for a folder: the old one goes only when the new one is complete and safe on the disk.

    A process killed between the two renames leaves the old folder under another name; `recovered_folder` finds it.
    """
    path = Path(path)
    temporary, old = path.with_name(f".{path.name}.new.pixelwise"), _old(path)
    recovered_folder(path)
    _remove(temporary)
    ensure_folder(path.parent)
    temporary.mkdir()
    try:
        with room_on_disk(path):
            yield temporary
            flush_tree(temporary)
            if os.path.lexists(path):
                _remove(old)
                os.replace(path, old)
            os.replace(temporary, path)
            flush_folder(path.parent)
    except BaseException:
        recovered_folder(path)
        _remove(temporary)
        raise
    _remove(old)


def recovered_folder(path: str | Path) -> Path:
    """Return ``path``, after putting back the old folder of a replacement that was killed half way."""
    path = Path(path)
    if _old(path).exists() and not os.path.lexists(path):
        os.replace(_old(path), path)
        flush_folder(path.parent)
    return path


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old.pixelwise")


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it; of a link, the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder. Only for who holds the folder's lock."""
    for path in folder.iterdir():
        if is_leftover(path):
            path.unlink()


def is_leftover(path: Path) -> bool:
    """Return whether a file is a temporary one of `replacing`, by its name."""
    return bool(_TEMPORARY.fullmatch(path.name)) and (path.is_symlink() or path.is_file())


def flush_file(path: Path) -> None:
    """Wait until a file's contents are on the disk."""
    # Windows flushes only what was opened for writing.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can be asked to (Windows cannot)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        # Some network disks refuse it; their names are as safe as they can be.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Wait until all files and folders below a folder are on the disk, and the folder's own names."""
    for place, _, names in os.walk(folder):
        for name in names:
            if not (Path(place) / name).is_symlink():
                flush_file(Path(place) / name)
        flush_folder(Path(place))


def ensure_folder(path: str | Path) -> Path:
    """Make a folder and its parents, and see that files can be written there.

    Raises:
        ConfigError: a file bears the name, or the folder is read-only.
    """
    path = Path(path)
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(
            f"{path} cannot be a folder, since a file is in the way. Choose another output folder."
        ) from None
    except (OSError, ValueError) as error:
        # A name with a zero byte is a ValueError.
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"The folder {path} cannot be made: {reason}. Choose another output folder.") from None
    for each in missing:
        flush_folder(each.parent)
    if not os.access(path, os.W_OK):
        raise ConfigError(
            f"The folder {path} is not writable. Choose another output folder, or change its permissions."
        )
    return path


def ensure_hidden_folder(path: Path) -> Path:
    """Make a folder that is pixelwise's alone, such as ``.map.tif.parts``, whose contents it may delete.

    Raises:
        ConfigError: a symbolic link bears the name, so that the contents are somebody else's; or as `ensure_folder`.
    """
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a symbolic link, but pixelwise keeps files of its own there and deletes them. Remove the link."
        )
    return ensure_folder(path)


@contextmanager
def locked_folder(folder: Path, *, work: str, instead: str) -> Iterator[None]:
    """Let one process at a time into a block: the one that holds the file ``lock`` in a folder.

    The system lets go of the lock when its process ends in any way. The file stays, and holds nothing. Its owner may
    delete the folder with it, once the block has ended. Nothing is written through a link in its place.

    Args:
        folder: is there already.
        work: what is done in the block, for the message of the process that comes second, such as "is making map.tif".
        instead: what that one may choose otherwise, such as "another output".

    Raises:
        ConfigError: another process holds the lock, or something that is not our lock has its name.
    """
    path = folder / LOCK
    with suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ConfigError(f"{path} is no lock of pixelwise: a link, a folder or a device. Remove it.")
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(
            f"Another process {work} ({_holder(folder)}; it holds {path}). Wait for it, or choose {instead}."
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be locked: {error.strerror or error}. Choose {instead}.") from None
    try:
        with suppress(OSError), replacing(folder / HOLDER) as temporary:
            temporary.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        # It is closed first: Windows deletes no open file.
        lock.release()


def _holder(folder: Path) -> str:
    try:
        return (folder / HOLDER).read_text(encoding="utf-8")[:200]
    except (OSError, ValueError):
        return "nobody knows which"


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


def with_checksum(text: str) -> str:
    """Return a TOML text with a first line, a comment, that `read_checked` compares with the rest."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{_CHECKSUM}{digest}; delete this line if you change them.\n{text}"


def read_checked(path: Path) -> str:
    """Return a text, after a look at its checksum if it has one.

    Raises:
        ValueError: it is not as it was written, or no text at all; the message says which.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError("it is missing or not a file")
    text = path.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if not first.startswith(_CHECKSUM):
        return text
    if first[len(_CHECKSUM) :][:64] != hashlib.sha256(rest.encode()).hexdigest():
        raise ValueError("it was changed since it was written; if you did that, delete its first line, a checksum")
    return rest


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
