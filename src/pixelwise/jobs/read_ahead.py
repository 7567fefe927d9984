"""Work that is done in threads before its results are asked for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

READERS = 1
"""Threads that read tiles while the network is at work. GDAL decodes a block again for each thread that wants it, and
neighbouring tiles want the same: two threads would read no sooner, in twice the processor's time."""

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(function: Callable[[T], R], items: Iterable[T], most: int) -> Generator[R, None, None]:
    """Apply a function to items in `READERS` threads; give the results in order.

    Args:
        most: how many results may wait to be asked for, so that memory is bounded.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
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
