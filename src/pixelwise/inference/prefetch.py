"""Work that threads do before its results are asked for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pixelwise.threads import set_thread_count, thread_count

READERS = 1
"""Threads that read tiles while the network is at work. GDAL decodes a block again for each thread, and neighbouring
tiles need the same blocks: two threads would be no faster, in twice the processor's time."""

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    function: Callable[[T], R], items: Iterable[T], most: int, *, threads: int | None = None
) -> Generator[R, None, None]:
    """Apply a function to items in threads; give the results in order.

    Args:
        most: how many results may wait to be asked for, so that memory is bounded.
        threads: how many; None: `READERS`.
    """
    waiting: deque[Future[R]] = deque()
    # By default a new thread computes with as many threads of its own as the machine has cores.
    with ThreadPoolExecutor(
        READERS if threads is None else threads, initializer=set_thread_count, initargs=(thread_count(),)
    ) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
