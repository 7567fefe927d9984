"""What this machine is, and what it has left: instructions, memory, open files."""

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

LOW_PRECISION = {
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "amx_fp16": "AMX-FP16",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "avx_vnni": "AVX-VNNI",
    "i8mm": "I8MM",
    "asimddp": "dot product",
    "bf16": "BF16",
}
"""Flags of the Linux kernel -> instructions that multiply in eight or 16 bits."""


SPINS = "3000"
"""How often a thread of libgomp looks for work before it sleeps: some tens of microseconds. Else it looks for
milliseconds after each operation of a network, and keeps the core from the thread that it waits for. Less makes a quiet
machine slower (`docs/profile.md`)."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Variables by which a user says how threads wait."""


def share_cores() -> None:
    """Let threads that wait for each other sleep soon, so that a neighbour on one core does not stop all.

    torch computes with libgomp, which reads this when it starts. So it does nothing once torch is imported, and nothing
    where the user has said how threads wait.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def instructions() -> str:
    """Return which instructions the processor has that make a lower precision faster."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    found = [name for flag, name in LOW_PRECISION.items() if flag in flags]
    vectors = [name for name in ("avx512f", "avx2") if name in flags][:1]
    if flags:
        return ", ".join(found) or ", ".join([*(each.upper() for each in vectors), "none for 8 or 16 bits"])
    return f"not known ({platform.machine()})"


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


def reset_peak_memory() -> None:
    """Let the largest memory of the process, as the system counts it, begin anew; where the system can."""
    # Elsewhere, and where it is not allowed, peaks are those of the process so far.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def local_processes() -> int:
    """Return how many processes of one training torchrun has started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
