"""One step of training, from a batch to new weights: ours beside transformers' and smp's SegFormer, in one run.

    python benchmarks/training_step.py [--repeats 7]

A step is forward, loss against the full-size mask, backward, AdamW. The peers upsample their logits and take torch's
cross-entropy, as their documentation shows. All take their turn in each round; a ratio is the median of the rounds'
ratios. Memory is what a process of its own adds to its peak from before the first step to after the third.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

# Where there is no build of torchvision for this torch, its two operators that others import are only named.
OPERATORS = torch.library.Library("torchvision", "DEF")
OPERATORS.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
OPERATORS.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import pixelwise as pw  # noqa: E402  after the operators
from pixelwise.jobs.memory import keep_freed_memory  # noqa: E402  after the operators
from pixelwise.losses import segmentation_loss  # noqa: E402  after the operators

RESULTS = Path(__file__).parent / "results" / "training_step.json"
CASES = [(4, 256, 19), (2, 512, 150)]
"""Batch, side and classes."""


def step_of(way: str, batch: int, side: int, classes: int) -> Callable[[], None]:
    """Return a function that trains one step."""
    torch.manual_seed(0)
    image, mask = torch.randn(batch, 3, side, side), torch.randint(0, classes, (batch, side, side))
    if way == "pixelwise":
        model = pw.create("segformer-b0", classes=classes).train()
        small = mask.to(torch.int16)

        def loss() -> torch.Tensor:
            return segmentation_loss(model.decode(image).logits, small)
    elif way == "transformers":
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes)).train()

        def loss() -> torch.Tensor:
            return model(pixel_values=image, labels=mask).loss
    else:
        import segmentation_models_pytorch as smp

        model = smp.Segformer("mit_b0", encoder_weights=None, classes=classes).train()

        def loss() -> torch.Tensor:
            return F.cross_entropy(model(image), mask)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=way == "pixelwise")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def peak_mib() -> float:
    """Return the process's largest memory so far; getrusage would count that of the process which began this one."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_growth(way: str, case: tuple[int, int, int], answer: multiprocessing.Queue) -> None:
    """Put what three steps add to the process's peak, in MiB."""
    step = step_of(way, *case)
    before = peak_mib()
    for _ in range(3):
        step()
    answer.put(peak_mib() - before)


def measure(case: tuple[int, int, int], ways: list[str], repeats: int) -> dict:
    """Time every way in turn, and measure the memory of each alone."""
    context = multiprocessing.get_context("spawn")
    memory = {}
    for way in ways:
        answer = context.Queue()
        process = context.Process(target=peak_growth, args=(way, case, answer))
        process.start()
        memory[way] = round(answer.get())
        process.join()
    steps = {way: step_of(way, *case) for way in ways}
    for step in steps.values():
        step()
    rounds = []
    for _ in range(repeats):
        taken = {}
        for way, step in steps.items():
            start = time.perf_counter()
            step()
            taken[way] = time.perf_counter() - start
        rounds.append(taken)
    return {
        "batch": case[0],
        "size": case[1],
        "classes": case[2],
        "seconds": {way: round(statistics.median(r[way] for r in rounds), 4) for way in ways},
        "times_pixelwise": {way: round(statistics.median(r[way] / r["pixelwise"] for r in rounds), 2) for way in ways},
        "peak_growth_mib": memory,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    keep_freed_memory()
    ways = ["pixelwise", "transformers", "smp"]
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        ways.remove("smp")
    rows = []
    for case in CASES:
        rows.append(measure(case, ways, given.repeats))
        print(rows[-1], flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
