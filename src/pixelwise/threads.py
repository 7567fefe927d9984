"""How many threads a network computes with: torch's number where torch is in use, else one that is kept here."""

import os
import sys
import threading

_own = threading.local()


def thread_count() -> int:
    """Return the number of this thread of Python: the last that was set, else OMP_NUM_THREADS or the cores."""
    if (torch := sys.modules.get("torch")) is not None:
        return torch.get_num_threads()
    return getattr(_own, "count", None) or threads_of_process()


def set_thread_count(count: int) -> None:
    """Set the number for what this thread of Python computes."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
    _own.count = count


def threads_of_process() -> int:
    """Return how many threads the process may compute with: OMP_NUM_THREADS, else the cores that it may use."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if said.isdecimal() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
