"""When a run saves its state, and how a signal ends it: after the step, with everything saved."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from pixelwise.processes import is_first
from pixelwise.training.joining import leave_at_once

Result = TypeVar("Result")

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK")
    if hasattr(signal, name)  # Windows has the first two and the last
)
"""Ctrl-C; what `kill` and schedulers send; a terminal that closes; what Slurm is asked to send; Ctrl-Break."""
SAME_CTRL_C = 1.0
"""Seconds in which a second Ctrl-C counts as the first: launchers pass on what the terminal sends to all processes."""


class _Left(BaseException):
    """Leaves work that a signal ends at once."""


class Stopping:
    """Says after each step whether to save the state, and whether to stop."""

    def __init__(self, minutes: float) -> None:
        """Start the clock.

        Args:
            minutes: between two saved states; 0: after every step.
        """
        self.signal: int | None = None
        """The first signal that came."""
        self._seconds = 60 * minutes
        self._saved = time.monotonic()
        self._came = 0.0
        self._may_leave = False

    def after_step(self) -> tuple[bool, bool]:
        """Return whether to save the state now, and whether to stop then."""
        stop = self.signal is not None
        return stop or time.monotonic() - self._saved >= self._seconds, stop

    def saved(self) -> None:
        """Start the clock again, since the state was saved."""
        self._saved = time.monotonic()

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """Do long work that changes nothing; a signal ends it at once.

        Returns:
            its result; None where a signal came.
        """
        # Two blocks, since a signal may come while the inner one ends.
        try:
            try:
                self._may_leave = True
                return work() if self.signal is None else None
            finally:
                self._may_leave = False
        except _Left:
            return None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Take note of a signal.

        Raises:
            KeyboardInterrupt: it is a second Ctrl-C.
        """
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._came = number, now
            # Not by a callback: it may be in the middle of something.
            with suppress(OSError):
                name = signal.Signals(number).name
                if is_first():
                    os.write(2, f"\n{name}: the run stops after this step. Ctrl-C now stops at once.\n".encode())
            if self._may_leave:
                self._may_leave = False
                raise _Left
        elif number == signal.SIGINT and now - self._came >= SAME_CTRL_C:
            raise KeyboardInterrupt


@contextmanager
def stopped_by_signals(minutes: float) -> Iterator[Stopping]:
    """Give a `Stopping` that receives `SIGNALS` during the block.

    Signals that the program handles itself or ignores (`nohup`) are left to it, and so are all of them outside of the
    main thread, where Python has no handlers.

    Args:
        minutes: between two saved states; 0: after every step.
    """
    stopping = Stopping(minutes)
    before = {}
    if threading.current_thread() is threading.main_thread():
        defaults = (signal.SIG_DFL, signal.default_int_handler, leave_at_once)
        before = {each: handler for each in SIGNALS if (handler := signal.getsignal(each)) in defaults}
    try:
        for each in before:
            signal.signal(each, stopping.receive)
        yield stopping
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
