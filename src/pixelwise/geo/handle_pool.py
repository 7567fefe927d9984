"""Open files, shared by all readers and threads, and never more than the system lets a process hold."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rasterio

from pixelwise.machine import open_file_limit

MOST = 256
"""Handles that are kept, where the system allows so many."""
SHARE = 4
"""Of the files that the system allows, one in so many may be a handle: one handle can hold several files."""


class HandlePool:
    """Keeps handles open between reads; the one that was used longest ago gives way to a new one.

    A handle belongs to one owner (a reader), and to one thread while it is leased.

    An owner's finalizer calls `abandon`. A garbage collection may run it at any line, also in the thread that holds the
    lock. So `abandon` never waits for the lock: it leaves a note, and whoever lets go of the lock reads the notes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._idle: OrderedDict[int, list[rasterio.DatasetReader]] = OrderedDict()
        self._count = 0
        self._abandoned: deque[int] = deque()

    @property
    def count(self) -> int:
        """How many handles are open."""
        return self._count

    @contextmanager
    def lease(self, owner: int, open_one: Callable[[], rasterio.DatasetReader]) -> Iterator[rasterio.DatasetReader]:
        """Lend a handle of the owner: one that is idle, or a new one."""
        handle = self._take(owner)
        if handle is None:
            try:
                handle = open_one()
            except BaseException:
                self._forget_one()
                raise
        try:
            yield handle
        finally:
            self._give_back(owner, handle)

    def close(self, owner: int) -> None:
        """Close the owner's idle handles."""
        with self._lock:
            handles = self._pop(owner)
        self._close(handles)

    def abandon(self, owner: int) -> None:
        """Close the idle handles of an owner that is gone: now, or as soon as the lock is free."""
        self._abandoned.append(owner)
        self._close([])

    def _take(self, owner: int) -> rasterio.DatasetReader | None:
        with self._lock:
            own = self._idle.get(owner)
            handle = own.pop() if own else None
            if handle is None:
                self._count += 1
            elif not own:
                del self._idle[owner]
            surplus = self._surplus()
        self._close(surplus)
        return handle

    def _give_back(self, owner: int, handle: rasterio.DatasetReader) -> None:
        with self._lock:
            self._idle.setdefault(owner, []).append(handle)
            self._idle.move_to_end(owner)
            surplus = self._surplus()
        self._close(surplus)

    def _forget_one(self) -> None:
        with self._lock:
            self._count -= 1
        self._close([])

    def _close(self, handles: list[rasterio.DatasetReader]) -> None:
        """Close handles, and those of abandoned owners, without the lock: a file of a network is slow to close."""
        for handle in handles:
            handle.close()
        # Who holds the lock comes here after it, so nothing is left where it cannot be had.
        while self._abandoned and self._lock.acquire(blocking=False):
            try:
                handles = self._pop(self._abandoned.popleft()) if self._abandoned else []
            finally:
                self._lock.release()
            for handle in handles:
                handle.close()

    def _pop(self, owner: int) -> list[rasterio.DatasetReader]:
        handles = self._idle.pop(owner, [])
        self._count -= len(handles)
        return handles

    def _surplus(self) -> list[rasterio.DatasetReader]:
        # What is leased cannot be closed, so threads beyond the limit each hold one more.
        surplus = []
        while self._count > self.most and self._idle:
            owner, handles = next(iter(self._idle.items()))
            surplus.append(handles.pop(0))
            if not handles:
                del self._idle[owner]
            self._count -= 1
        return surplus


POOL = HandlePool(max(8, min(MOST, (open_file_limit() or SHARE * MOST) // SHARE)))
"""The handles of this process."""
