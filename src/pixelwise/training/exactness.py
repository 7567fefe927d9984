"""What the last bits of a run's weights depend on besides its configuration and data, and whether it is as before."""

import os
import platform
from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import torch

from pixelwise import __version__
from pixelwise.processes import world

CHOSEN_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables of the environment that set the number of threads."""


def made_with(device: torch.device, half: torch.dtype | None = None) -> dict[str, str | int]:
    """Return what a state records of the process that it is made by.

    Args:
        half: what the network computes in; None: float32.
    """
    return {
        "processes": world(),
        **({"threads": torch.get_num_threads()} if device.type == "cpu" else {}),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(half or torch.float32).removeprefix("torch."),
        "processor": f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "pixelwise": __version__,
    }


def threads_to_go_on(
    record: dict, device: torch.device, say: Callable[[str], None], half: torch.dtype | None = None
) -> int:
    """Return with how many threads a run goes on, and say in one sentence if the last bits may differ.

    On a CPU these are as many as before, unless the user has set `CHOSEN_BY_USER` or there are fewer cores.

    Args:
        record: `made_with` of the state; empty in states of earlier versions.
        half: what the network computes in; None: float32.
    """
    now, threads, before = made_with(device, half), torch.get_num_threads(), record.get("threads")
    if "threads" in now and before != threads and _may_take(before):
        threads = now["threads"] = before
        say(f"Threads: {threads}, as before. OMP_NUM_THREADS sets another number.")
    apart = [f"{key} was {record[key]} and is {value}" for key, value in now.items() if record.get(key, value) != value]
    if apart:
        say(f"The last bits of the weights may differ from those of an undisturbed run: {', '.join(apart)}.")
    return threads


def _may_take(threads: object) -> TypeGuard[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return type(threads) is int and 0 < threads <= cores and not any(map(os.environ.get, CHOSEN_BY_USER))
