"""Threads that compute, a queue of bounded length before them, and what ends work that nobody waits for any more."""

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from starlette.types import Receive

from pixelwise.serve.refusals import Refusal, busy
from pixelwise.threads import set_thread_count

T = TypeVar("T")


class AbandonedError(Exception):
    """Work whose client went away, or whose time is over."""


class Patience:
    """How long somebody waits for work. The work asks now and then."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Say that nobody waits any more."""
        self._given_up.set()

    def check(self, share: float = 0.0) -> None:
        """Go on, or raise `AbandonedError`; the share that is done, which others report, does not matter."""
        if self._given_up.is_set() or time.monotonic() > self.end:
            raise AbandonedError


class Workers:
    """Threads that compute what requests ask for. What waits is counted, and refused from a number on."""

    def __init__(self, count: int, queue: int, *, threads: int = 1, name: str = "worker", niceness: int = 0) -> None:
        """Start.

        Args:
            count: how many work at the same time.
            queue: how many requests may wait besides.
            threads: cores for each, on a processor.
            niceness: how much lower their priority is, where the system has such for threads.
        """
        self.count, self.queue = count, queue
        self.open = 0
        """Requests that wait or are computed."""
        self.mean = 0.5
        """Seconds that one takes, smoothed."""
        self._pool = ThreadPoolExecutor(
            count, thread_name_prefix=name, initializer=_begun, initargs=(threads, niceness)
        )

    @property
    def full(self) -> bool:
        """Whether the next request is refused."""
        return self.open >= self.count + self.queue

    @property
    def seconds_left(self) -> int:
        """How long what waits will take, about; 1 to 60."""
        return min(60, max(1, math.ceil(self.open * self.mean / self.count)))

    async def run(self, work: Callable[[], T], patience: Patience, receive: Receive | None = None) -> T:
        """Let a thread do something, and wait for it.

        Args:
            work: what; it asks ``patience`` now and then.
            receive: gives messages of the client, the last of which is that it has gone away.

        Raises:
            Refusal: 503, if too many wait or it takes too long.
        """
        if self.full:
            raise busy(self.seconds_left)
        self.open += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, work, patience)
        future.add_done_callback(self._done)
        leaving = asyncio.ensure_future(_gone(receive)) if receive is not None else None
        try:
            waiting = {future, *([leaving] if leaving is not None else [])}
            left = max(0.0, patience.end - time.monotonic())
            await asyncio.wait(waiting, timeout=left + 1, return_when=asyncio.FIRST_COMPLETED)
            if future.done():
                return future.result()
        except AbandonedError:
            pass
        finally:
            if not future.done():
                # What comes after this in the same request is patient still.
                patience.give_up()
            if leaving is not None:
                leaving.cancel()
        again = self.seconds_left
        raise Refusal(503, "too_slow", "The time for a request is over.", "Try later, or send a job.", again=again)

    def close(self) -> None:
        """End the threads after what they are at."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _timed(self, work: Callable[[], T], patience: Patience) -> T:
        patience.check()
        started = time.monotonic()
        found = work()
        self.mean += 0.1 * (time.monotonic() - started - self.mean)
        return found

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self.open -= 1
        if not future.cancelled():
            # Nobody may be left to hear of it.
            future.exception()


def _begun(threads: int, niceness: int) -> None:
    set_thread_count(threads)
    yield_to_others(niceness)


def yield_to_others(niceness: int) -> None:
    """Lower the priority of this thread, where the system has such for threads (Linux)."""
    with suppress(OSError, AttributeError):
        if niceness and sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


async def _gone(receive: Receive) -> None:
    """Wait until a client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
