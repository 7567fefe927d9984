"""The loss at the network's stride beside the plain formula at full size: time and memory of forward and backward.

    python benchmarks/loss.py --threads 2

The plain formula is F.interpolate, F.cross_entropy and, for the rows "with Dice", a softmax and two sums. Both take
the same logits and masks in turns; times are medians. Memory is what a fresh process adds to its peak in one step.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.labels import IGNORE
from pixelwise.losses import DICE_SMOOTH, LossConfig, segmentation_loss

Loss = Callable[..., Tensor]
CASES = [(4, 3, 256), (4, 19, 256), (2, 150, 512)]
"""Batch, classes, height and width; the logits are at a quarter."""


def plain(logits: Tensor, mask: Tensor, *, dice: float) -> Tensor:
    full = F.interpolate(logits, size=mask.shape[-2:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(full, mask, ignore_index=IGNORE)
    if not dice:
        return loss
    inside = (mask != IGNORE)[:, None]
    probability = full.softmax(dim=1) * inside
    own = F.one_hot(mask.clamp(min=0), full.shape[1]).movedim(-1, 1) * inside
    sums = [part.sum(dim=(0, 2, 3)) for part in (probability * own, probability, own)]
    ratio = (2 * sums[0] + DICE_SMOOTH) / (sums[1] + sums[2] + DICE_SMOOTH)
    return loss + dice * (1 - ratio[sums[2] > 0].mean())


def ours(logits: Tensor, mask: Tensor, *, dice: float) -> Tensor:
    return segmentation_loss(logits, mask, LossConfig(dice=dice))


LOSSES: dict[str, Loss] = {"pixelwise": ours, "plain": plain}


def make_case(batch: int, classes: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, size // 4, size // 4, generator=generator)
    return logits.requires_grad_(), torch.randint(IGNORE, classes, (batch, size, size), generator=generator)


def step(loss: Loss, logits: Tensor, mask: Tensor, dice: float) -> float:
    logits.grad = None
    started = time.perf_counter()
    loss(logits, mask, dice=dice).backward()
    return time.perf_counter() - started


def peak(name: str, case: tuple[int, int, int], dice: float, threads: int) -> float:
    torch.set_num_threads(threads)
    step(LOSSES[name], *make_case(1, 2, 32), dice)
    logits, mask = make_case(*case)
    unit = 1024**2 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(LOSSES[name], logits, mask, dice)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def peaks_of(case: tuple[int, int, int], dice: float, threads: int) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {name: pool.apply(peak, (name, case, dice, threads)) for name in LOSSES}


def measure(case: tuple[int, int, int], dice: float, steps: int, peaks: dict[str, float]) -> dict:
    logits, mask = make_case(*case)
    times: dict[str, list[float]] = {name: [] for name in LOSSES}
    values, gradients = {}, {}
    for turn in range(steps + 1):
        for name, loss in LOSSES.items():
            seconds = step(loss, logits, mask, dice)
            if turn:
                times[name].append(seconds)
    for name, loss in LOSSES.items():
        value = loss(logits, mask, dice=dice)
        values[name], gradients[name] = value.item(), torch.autograd.grad(value, logits)[0]
    medians = {name: statistics.median(each) for name, each in times.items()}
    off = (gradients["pixelwise"] - gradients["plain"]).abs().max() / gradients["plain"].abs().max()
    return {
        "batch": case[0],
        "classes": case[1],
        "size": case[2],
        "dice": dice,
        "seconds": medians,
        "time_ratio": medians["pixelwise"] / medians["plain"],
        "peak_mib": peaks,
        "peak_ratio": peaks["pixelwise"] / peaks["plain"] if peaks["plain"] else None,
        "loss_difference": abs(values["pixelwise"] - values["plain"]),
        "gradient_difference": off.item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, help="of all cases, instead of their own")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "loss.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{'case':32}{'ms':>8}{'plain':>8}{'ratio':>8}{'MiB':>8}{'plain':>8}{'ratio':>8}")
    rows = []
    cases = [((*case[:2], arguments.size or case[2]), dice) for case in CASES for dice in (0.0, 1.0)]
    # All before the first timing: on Linux a child begins with its parent's peak, which must still be small.
    memory = [peaks_of(case, dice, arguments.threads) for case, dice in cases]
    for (case, dice), peaks in zip(cases, memory, strict=True):
        row = measure(case, dice, arguments.steps, peaks)
        rows.append(row)
        title = f"{case[0]} x {case[1]} x {case[2]}²{' with Dice' if dice else ''}"
        seconds = row["seconds"]
        line = f"{title:32}{seconds['pixelwise'] * 1e3:8.1f}{seconds['plain'] * 1e3:8.1f}{row['time_ratio']:8.2f}"
        share = f"{row['peak_ratio']:8.2f}" if row["peak_ratio"] is not None else f"{'':8}"
        print(f"{line}{peaks['pixelwise']:8.0f}{peaks['plain']:8.0f}{share}", flush=True)
    about = {
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"about": about, "runs": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
