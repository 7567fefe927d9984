"""Mistakes that a user can fix. Each message says what is wrong, where, and what to do.

The command line prints these as one paragraph and exits with 1; anything else is a bug and shows its traceback.
"""

import errno
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_MEMORY = (
    *("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc"),
    # The first two are oneDNN's, without scratch memory; the third is Python's, without memory for a thread's stack.
    *("could not create a memory", "could not create a primitive", "can't start new thread"),
)


class PixelwiseError(ValueError):
    """The root of all user errors.

    Args:
        code: the kind of error, which ``codes.toml`` explains; default: that of the class.
    """

    code = "PW300"

    def __init__(self, *told: object, code: str | None = None) -> None:
        super().__init__(*told)
        if code is not None:
            self.code = code


class ConfigError(PixelwiseError):
    """A wrong value in the configuration, or a wrong argument."""


class DataError(PixelwiseError):
    """An image, mask, scene or polygon file that is missing, corrupt or inconsistent."""

    code = "PW400"


class WeightsError(PixelwiseError):
    """Weights that are unknown, incomplete or of another shape than the model."""

    code = "PW500"


class MissingExtraError(PixelwiseError):
    """Work that needs an optional dependency, which is not installed."""

    code = "PW901"


class NotEnoughMemoryError(PixelwiseError):
    """The machine or its GPU has too little memory for a step of the work."""

    code = "PW903"


class TrainingStopped(KeyboardInterrupt):
    """A signal, such as Ctrl-C, ended a training after a step, and the run's state is saved."""

    code = "PW906"

    def __init__(self, number: int, step: int, folder: Path) -> None:
        super().__init__(
            f"{signal.Signals(number).name} stopped the run in {folder}. Its state is saved, of step {step}."
        )
        self.signal, self.step, self.folder = number, step, folder


class ContractWarning(UserWarning):
    """An image differs from what a model learned from, in a way that may be meant."""


class OldNameWarning(FutureWarning):
    """A name that has been replaced and still works; the message names the new one."""


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, numpy, torch or the system says that memory has run out."""
    # The command line asks this about every error, so torch is not imported here.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in said for sign in _NO_MEMORY)


@contextmanager
def enough_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Turn an error that says that memory has run out into one paragraph.

    Args:
        advice: called when memory has run out; returns what was tried and what would fit.

    Raises:
        NotEnoughMemoryError: memory has run out.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotEnoughMemoryError(f"{advice()} (The error was: {reason[:160]})") from None
