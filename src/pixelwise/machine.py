"""What this machine has left: memory and open files."""

import os
from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes that this process may still take; None where the system does not say."""
    rooms = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        rooms += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            rooms.append(int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        # Not Linux, or no limit by a container.
        pass
    limit = _address_space()
    if limit is not None:
        rooms.append(limit)
    if not rooms and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        rooms.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(rooms) if rooms else None


def open_file_limit() -> int | None:
    """Return how many files the system lets this process hold open; None where it does not say."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _address_space() -> int | None:
    """Return what ``ulimit -v`` leaves this process; None where there is no limit."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ModuleNotFoundError, AttributeError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(0, limit - taken)


def local_processes() -> int:
    """Return how many processes of one training torchrun has started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
