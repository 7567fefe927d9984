"""What the system's allocator does with freed blocks."""

import ctypes
import sys
from functools import cache

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Numbers of parameters of glibc's mallopt (malloc.h)."""
KEPT = 2**30
LARGE_PAGE, MADV_HUGEPAGE = 2**21, 14
"""Bytes of a large page, and what asks for such (Linux's mman.h)."""


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB for the next request, instead of giving them back to the system.

    This holds for the process from then on. A network asks for the same large tensors with each image, and fresh pages
    must be cleared: a third of a training step on a CPU, and nearly as much of SegFormer-B0's label map
    (`docs/performance.md`). Elsewhere than on Linux with glibc nothing happens.

    That memory comes in large pages, for a few per cent more.

    Returns:
        whether freed blocks are kept.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        system = ctypes.CDLL(None)
        kept = bool(system.mallopt(MMAP_THRESHOLD, KEPT)) and bool(system.mallopt(TRIM_THRESHOLD, 2 * KEPT - 1))
        # Threads with heaps of their own would each keep what they freed.
        kept = kept and bool(system.mallopt(ARENA_MAX, 1))
        if kept:
            _ask_for_large_pages(system)
    except (AttributeError, OSError):
        return False
    return kept


def _ask_for_large_pages(system: ctypes.CDLL) -> None:
    # A block that is never touched takes no memory. Once freed, it is where the next ones will lie.
    system.malloc.restype, system.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    system.madvise.argtypes, system.free.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], [ctypes.c_void_p]
    size = KEPT - 2 * LARGE_PAGE
    block = system.malloc(size)
    if block:
        first, last = -(-block // LARGE_PAGE), (block + size) // LARGE_PAGE
        system.madvise(first * LARGE_PAGE, (last - first) * LARGE_PAGE, MADV_HUGEPAGE)
        system.free(block)
