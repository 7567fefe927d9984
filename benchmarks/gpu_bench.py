"""Where the parts of `gpu.py` run, and how they measure."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

from pixelwise.models import list_models

PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
LARGE = ("-b3", "-b4", "-b5", "-l", "w44", "w48", "w64", "w48-ocr")
"""Networks of these are left out of the steps: the smaller ones have the same modules."""


@dataclass(frozen=True)
class Bench:
    """Where and how large."""

    device: torch.device
    tiny: bool

    def pick(self, full: int, tiny: int) -> int:
        """Return a size."""
        return tiny if self.tiny else full

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object]) -> float:
        """Return the time of a call: the median of some rounds, each of several calls."""
        for _ in range(self.pick(3, 1)):
            call()
        self.wait()
        started = time.perf_counter()
        call()
        self.wait()
        count = max(1, min(50, int(self.pick(100, 1) / 1000 / max(1e-6, time.perf_counter() - started))))
        rounds = []
        for _ in range(self.pick(5, 1)):
            started = time.perf_counter()
            for _ in range(count):
                call()
            self.wait()
            rounds.append((time.perf_counter() - started) / count)
        return statistics.median(rounds)

    @contextmanager
    def memory(self) -> Iterator[dict]:
        """Give a dict that has the peak memory in the end, where the device knows it."""
        found: dict = {}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield found
        if self.device.type == "cuda":
            found["mib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20)

    def names(self) -> list[str]:
        """Return the networks that are looked at."""
        if self.tiny:
            return ["segformer-b0", "linknet"]
        return [name for name in list_models() if not name.removesuffix("-ocr").endswith(LARGE)]


@cache
def bounds(bench: Bench) -> dict:
    """Return the speed of a large product in each precision, and of a large copy."""
    side, found = bench.pick(8192, 128), {}
    for name, dtype in PRECISIONS.items():
        left, right = (torch.randn(side, side, device=bench.device, dtype=dtype or torch.float32) for _ in range(2))
        found[f"tflops {name}"] = 2 * side**3 / bench.seconds(lambda a=left, b=right: a @ b) / 1e12
    source = torch.zeros(bench.pick(1 << 28, 1 << 16), device=bench.device)
    target = torch.empty_like(source)
    moved = 2 * 4 * source.numel()
    return found | {"gb per second": moved / bench.seconds(lambda: target.copy_(source)) / 1e9}
