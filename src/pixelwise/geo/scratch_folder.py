"""A folder for scratch files beside an output: gone when the work ends, and cleared of what a killed process left."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, locked


@contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """Give the folder ``.NAME.scratch`` beside an output, empty but for its lock.

    A process that is killed leaves it, with whatever was in it; the next one for the same output starts by emptying
    it. While a process works, the lock keeps every other one out.

    Raises:
        ConfigError: another process is making this output, or the folder cannot be made.
    """
    folder = output.with_name(f".{output.name}.scratch")
    ensure_folder(folder)
    lock = folder / "lock"
    with ExitStack() as stack:
        try:
            held = stack.enter_context(lock.open("w"))
            # A process that has just ended may have removed the file that was opened.
            free = locked(held) and os.path.samestat(os.fstat(held.fileno()), lock.stat())
        except FileNotFoundError:
            free = False
        if not free:
            raise ConfigError(
                f"Another process is making {output} (it holds {folder}). Wait for it, or choose another output."
            )
        try:
            for left in folder.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
                elif left != lock:
                    left.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
