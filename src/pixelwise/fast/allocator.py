"""What the system's allocator does with freed blocks."""

import ctypes
import sys
from functools import cache

MMAP_THRESHOLD, TRIM_THRESHOLD, ARENA_MAX = -3, -1, -8
"""Numbers of parameters of glibc's mallopt (malloc.h)."""
KEPT = 2**30


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB for the next request, instead of giving them back to the system.

    This holds for the process from then on. A network asks for the same large tensors with each image, and fresh pages
    must be cleared: a third of a training step on a CPU, and nearly as much of SegFormer-B0's label map
    (`docs/performance.md`). Elsewhere than on Linux with glibc nothing happens.

    Returns:
        whether freed blocks are kept.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        system = ctypes.CDLL(None)
        kept = bool(system.mallopt(MMAP_THRESHOLD, KEPT)) and bool(system.mallopt(TRIM_THRESHOLD, 2 * KEPT - 1))
        # Threads with heaps of their own would each keep what they freed.
        return kept and bool(system.mallopt(ARENA_MAX, 1))
    except (AttributeError, OSError):
        return False
