"""A folder for scratch files beside an output: gone when the work ends, and cleared of what a killed process left."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.files import HOLDER, LOCK, ensure_hidden_folder, locked_folder


@contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """Give the folder ``.NAME.scratch`` beside an output, empty but for its lock.

    A process that is killed leaves it, with whatever was in it; the next one for the same output starts by emptying
    it. While a process works, the lock keeps every other one out.

    Raises:
        ConfigError: another process is making this output, the folder cannot be made, or it is not from here.
    """
    folder = output.with_name(f".{output.name}.scratch")
    ensure_hidden_folder(folder)
    if any(folder.iterdir()) and not (folder / LOCK).is_file():
        raise ConfigError(
            f"{folder} is not from pixelwise, and would be emptied. Move it away, or choose another output.",
            code="PW801",
        )
    try:
        with locked_folder(folder, work=f"is making {output}", instead="another output"):
            try:
                _empty(folder, keep=(LOCK, HOLDER))
                yield folder
            finally:
                _empty(folder)
    finally:
        # The next process may have come already.
        with suppress(OSError):
            folder.rmdir()


def _empty(folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Delete what is in a folder; of a symbolic link, the link alone."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            # Windows deletes no open file; the lock goes when it is let go of.
            with suppress(PermissionError):
                path.unlink(missing_ok=True)
