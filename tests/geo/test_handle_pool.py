import gc
import threading
import weakref
from collections import OrderedDict

import pytest
import rasterio
from affine import Affine

from pixelwise.geo.handle_pool import HandlePool


@pytest.fixture(autouse=True)
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with rasterio.open(
        "x.tif", "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8", transform=Affine(*range(6))
    ):
        pass


def open_image():
    return rasterio.open("x.tif")


class Owner:
    """Is only freed by a garbage collection, as an object in a circle is."""

    def __init__(self, pool, number):
        self.itself = self
        weakref.finalize(self, pool.abandon, number).atexit = False


class StrictLock:
    """A lock that says so where its own thread would wait for it for ever."""

    def __init__(self):
        self.lock = threading.Lock()

    def acquire(self, blocking=True):
        assert not (blocking and self.lock.locked()), "the thread waits for itself"
        return self.lock.acquire(blocking)

    def release(self):
        self.lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()


class CollectingDict(OrderedDict):
    """Collects garbage in the midst of each call, as Python may."""

    def get(self, *arguments):
        gc.collect(0)
        return super().get(*arguments)

    def setdefault(self, *arguments):
        gc.collect(0)
        return super().setdefault(*arguments)

    def pop(self, *arguments):
        gc.collect(0)
        return super().pop(*arguments)


def collecting_pool():
    pool = HandlePool(8)
    pool._lock, pool._idle = StrictLock(), CollectingDict()
    return pool


def borrow(pool, number):
    with pool.lease(number, open_image) as handle:
        return handle


def test_a_handle_is_lent_again_and_only_to_its_owner():
    pool = HandlePool(8)
    first, second = borrow(pool, 1), borrow(pool, 2)
    assert borrow(pool, 1) is first is not second
    assert pool.count == 2


def test_the_handle_that_was_used_longest_ago_gives_way():
    pool = HandlePool(2)
    handles = [borrow(pool, number) for number in (1, 2, 1, 3)]
    assert [handle.closed for handle in handles] == [False, True, False, False]
    assert pool.count == 2


def test_an_owner_that_is_collected_while_its_thread_holds_the_lock_has_its_handles_closed():
    for use in (borrow, HandlePool.close):
        pool = collecting_pool()
        left = borrow(pool, 1)
        gc.disable()
        Owner(pool, 1)
        use(pool, 2)
        gc.enable()
        assert left.closed
        assert pool.count == (1 if use is borrow else 0)


def test_an_owner_that_is_collected_while_another_thread_holds_the_lock_is_closed_after_it():
    pool = HandlePool(8)
    left = borrow(pool, 1)
    with pool._lock:
        pool.abandon(1)
        assert not left.closed
    borrow(pool, 2)
    assert left.closed
    assert pool.count == 1


def test_a_file_that_does_not_open_is_not_counted():
    pool = HandlePool(8)

    def fails():
        raise OSError

    for _ in range(3):
        try:
            with pool.lease(1, fails):
                pass
        except OSError:
            continue
    assert pool.count == 0
