"""Files that must last are written here, and only here: under a temporary name, flushed to the disk, then renamed.

A rename alone survives a kill. It does not survive a power cut, after which the new name may belong to an empty file.
So a file is flushed before it takes its name, and its folder after that. Nothing older is removed before that.
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
from typing import TYPE_CHECKING
from zipfile import BadZipFile, ZipFile

from filelock import FileLock, Timeout

from pixelwise.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

LOCK, HOLDER = "lock", "lock.holder"
"""Files in a folder that one process at a time works in: the lock, and who holds it. Neither is ever data."""
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_CHECKSUM = "# SHA-256 of the lines below: "
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.pixelwise(\..*)?", re.DOTALL)


@contextmanager
def replacing(path: str | Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block succeeds, flush it to the disk and rename it to ``path``.

    The suffix is kept, since drivers choose a format by it. Nobody can guess the temporary name, so nobody can put a
    link there. When the block fails, the temporary file is removed and an older ``path`` stays as it was. After the
    block the file survives a power cut.

    Args:
        scratch: a folder on the same disk for the temporary file, where its owner removes what a killed process left.

    Raises:
        ConfigError: the folder is not writable, a folder has the file's name, or the disk is full.
    """
    path = Path(path)
    name = f".{path.stem}.{secrets.token_hex(8)}.pixelwise{path.suffix}"
    temporary = (scratch or path.parent) / name
    ensure_folder(path.parent)
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, so no file can have this name. Remove the folder, or choose another output.",
            code="PW802",
        )
    try:
        with room_on_disk(path):
            yield temporary
            move_durably(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def room_on_disk(path: Path) -> Iterator[None]:
    """Turn the system's error that the disk is full, or the file too large for it, into one that names the file.

    Raises:
        ConfigError: it says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ConfigError(
            f"Writing {path} failed: {error.strerror}. Free space on that disk, and give the same command again.",
            code="PW803",
        ) from None


def move_durably(source: Path, target: Path) -> None:
    """Flush a finished file to the disk, give it its name on the same disk, and flush that name."""
    flush_file(source)
    os.replace(source, target)
    flush_folder(target.parent)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """Like `replacing`, for a folder: the old one is removed when the new one is complete and safe on the disk.

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
    """Return ``path``. If a replacement was killed half way, put its old folder back first."""
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
    """Remove the temporary files that killed processes left in a folder. The caller must hold the folder's lock."""
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
    """Wait until the names in a folder are on the disk. On Windows this does nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        # Some network disks refuse it, and there is no other way.
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
    """Make a folder and its parents, and check that it is writable.

    Raises:
        ConfigError: a file has the name, or the folder is read-only.
    """
    path = Path(path)
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(
            f"Making the folder {path} failed: a file is in the way. Choose another output folder.", code="PW802"
        ) from None
    except (OSError, ValueError) as error:
        # A ValueError: a name with a character that no file can have.
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Making the folder {str(path)!r} failed: {reason}. Choose another output folder.", code="PW802"
        ) from None
    for each in missing:
        flush_folder(each.parent)
    if not os.access(path, os.W_OK):
        raise ConfigError(
            f"The folder {path} is not writable. Choose another output folder, or change its permissions.", code="PW802"
        )
    return path


def ensure_hidden_folder(path: Path) -> Path:
    """Make a folder that is pixelwise's alone, such as ``.map.tif.parts``, whose contents it may delete.

    Raises:
        ConfigError: a symbolic link has the name, so the contents are not ours; or as `ensure_folder`.
    """
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a symbolic link, but pixelwise keeps and deletes its own files there. Remove the link.",
            code="PW802",
        )
    return ensure_folder(path)


@contextmanager
def locked_folder(folder: Path, *, work: str, instead: str, wait: float = 0.0) -> Iterator[None]:
    """Let one process at a time into a block: the one that has locked the file ``lock`` in a folder.

    The system releases the lock when the process ends, however it ends. The file stays, and is empty. After the block,
    the folder can be deleted with it. A link in place of the file is refused.

    Args:
        folder: an existing one.
        work: what the block does, such as "is making map.tif". A second process says so in its message.
        instead: what the second one can choose instead, such as "another output".
        wait: seconds to wait for the other process, for work that takes a moment.

    Raises:
        ConfigError: another process holds the lock, or something else has the lock's name.
    """
    path = folder / LOCK
    with suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ConfigError(
                f"{path} should be a lock of pixelwise, but is a link, a folder or a device. Remove it.", code="PW802"
            )
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise ConfigError(
            f"Another process {work} ({_holder(folder)}; it holds {path}). Wait for it, or choose {instead}.",
            code="PW603",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"Locking {path} failed: {error.strerror or error}. Choose {instead}.", code="PW802"
        ) from None
    try:
        with suppress(OSError), replacing(folder / HOLDER) as temporary:
            temporary.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        # This closes the file. Windows deletes no open files.
        lock.release()


def _holder(folder: Path) -> str:
    try:
        return (folder / HOLDER).read_text(encoding="utf-8")[:200]
    except (OSError, ValueError):
        return "which one is unknown"


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        ConfigError: no such file.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"Reading {path} failed: {error.strerror}.", code="PW905") from None


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """Return the arrays in an ``.npz`` file, once all its checksums are right.

    Raises:
        ValueError: it is damaged, missing, or of another kind; the message says why.
    """
    # Imported here, since commands that only lock or replace files start faster without it.
    import numpy as np

    try:
        with ZipFile(path) as file:
            # Before any array is made: its size may be what is damaged.
            if file.testzip() is not None:
                raise BadZipFile("a checksum is wrong")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    # numpy reads an array's header as Python, so damage raises errors of many kinds.
    except Exception as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def with_checksum(text: str) -> str:
    """Return a TOML text with a first line, a comment, that `read_checked` compares with the rest."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{_CHECKSUM}{digest}; delete this line if you change them.\n{text}"


def read_checked(path: Path) -> str:
    """Return the text of a file, and check its checksum if it has one.

    Raises:
        ValueError: the text has changed since it was written, or there is none; the message says which.
        OSError: reading failed.
    """
    if not path.is_file():
        raise ValueError("it is missing or not a file")
    text = path.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    if not first.startswith(_CHECKSUM):
        return text
    if first[len(_CHECKSUM) :][:64] != hashlib.sha256(rest.encode()).hexdigest():
        raise ValueError("it has changed since it was written; if you changed it, delete its first line, a checksum")
    return rest
