"""Work that is done in threads before its results are asked for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

READERS = 2
"""Threads that read tiles while the network is at work."""

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    function: Callable[[T], R], items: Iterable[T], most: int, *, place: Callable[[T], int]
) -> Generator[R, None, None]:
    """Apply a function to items in `READERS` threads; give the results in order.

    Args:
        most: how many results may wait to be asked for, so that memory is bounded.
        place: gives a number for an item; all items with the same number are read by the same thread.
    """
    waiting: deque[Future[R]] = deque()
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(READERS)]
        try:
            for item in items:
                waiting.append(threads[place(item) % READERS].submit(function, item))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
