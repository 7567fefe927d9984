"""What the system's allocator does with memory that was freed."""

import ctypes
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of two parameters of glibc's mallopt (malloc.h)."""
KEPT = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 1 GiB for the next request, instead of giving them back to the system.

    Each step asks for the same large tensors again, and fresh pages must be cleared: a third of a training step on a
    CPU (`docs/performance.md`). Elsewhere than on Linux with glibc nothing happens.

    Returns:
        whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, KEPT)) and bool(mallopt(TRIM_THRESHOLD, 2 * KEPT - 1))
