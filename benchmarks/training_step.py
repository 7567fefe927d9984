"""One step of training, from a batch to new weights: ours beside transformers' and smp's SegFormer, in one run.

    python benchmarks/training_step.py [--repeats 7] [--turn 1]
    python benchmarks/training_step.py --profile examples/fields.toml --steps 60 [--set train.workers=0]

A step is forward, loss against the full-size mask, backward, AdamW. The others upsample their logits and take torch's
cross-entropy, as their documentation shows. Each has a process of its own and takes its turn (`turns.py`), as its users
run it: `pixelwise.train` sets the system's allocator (`keep_freed_memory`), and users of the others do not. With "kept
memory" the others get that setting too.

With `--profile` a run of a configuration is made instead, and its steps are taken apart: waiting for crops, forward and
loss (which makes its own gradient), backward, clipping, optimiser, average of the weights. The first steps do not
count.

The rows of SegNeXt compare with "plain": the same network with blocks that keep all that autograd asks for, and torch's
cross-entropy of full-size logits.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from turns import KEPT, Way, clocked, machine, now, take_turns, with_kept_memory

import pixelwise as pw
from pixelwise.config import load_config
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.losses import segmentation_loss
from pixelwise.models import segnext
from pixelwise.training.optimizer import MovingAverage
from pixelwise.training.state import Training

RESULTS = Path(__file__).parent / "results" / "training_step.json"
PEERS = ("transformers", "smp")
WARM = 10
"""Steps of a profile that do not count."""


@dataclass(frozen=True)
class Case:
    """What is trained, and which ways are compared."""

    network: str
    batch: int
    size: int
    classes: int
    ways: tuple[str, ...]


CASES = [
    Case("segformer-b0", 4, 256, 19, ("pixelwise", *PEERS)),
    Case("segformer-b0", 2, 512, 150, ("pixelwise", *PEERS)),
    Case("segnext-t", 8, 512, 150, ("pixelwise", "plain")),
]


def step_of(way: str, case: Case) -> Callable[[], None]:
    """Return a function that trains one step."""
    if way == "pixelwise":
        keep_freed_memory()
    torch.manual_seed(0)
    image = torch.randn(case.batch, 3, case.size, case.size)
    mask = torch.randint(0, case.classes, (case.batch, case.size, case.size))
    if way == "pixelwise":
        model = pw.create(case.network, classes=case.classes).train()
        small = mask.to(torch.int16)

        def loss() -> torch.Tensor:
            return segmentation_loss(model.decode(image).logits, small)
    elif way == "plain":
        segnext.made_again = lambda layer, image: layer(image)
        model = pw.create(case.network, classes=case.classes).train()

        def loss() -> torch.Tensor:
            return F.cross_entropy(model(image), mask)
    elif way == "transformers":
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        assert case.network == "segformer-b0", "the peer's standard configuration is B0"
        model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=case.classes)).train()

        def loss() -> torch.Tensor:
            return model(pixel_values=image, labels=mask).loss
    else:
        import segmentation_models_pytorch as smp

        model = smp.Segformer("mit_b0", encoder_weights=None, classes=case.classes).train()

        def loss() -> torch.Tensor:
            return F.cross_entropy(model(image), mask)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=way == "pixelwise")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def measure(case: Case, repeats: int, seconds: float) -> dict:
    """Let every way take its turn in each round."""
    ways = {way: Way(step_of, (way, case)) for way in case.ways}
    ways |= {way + KEPT: Way(with_kept_memory, (step_of, way, case)) for way in case.ways[1:]}
    turns = take_turns(ways, repeats, seconds=seconds)
    here = machine()
    return {
        "network": case.network,
        "batch": case.batch,
        "size": case.size,
        "classes": case.classes,
        "seconds": turns.seconds,
        "times_pixelwise": turns.ratios,
        "peak_growth_mib": {way: round(mib) for way, mib in turns.peak_mib.items()},
        "repeats": repeats,
        "threads": here["threads"],
        "load": here["load"],
        "machine": here["processor"],
        "torch": here["torch"],
    }


def profile(config: Path, steps: int, overrides: Sequence[str]) -> dict[str, float]:
    """Return the seconds of a step in a run of a configuration, by part."""
    spent: Counter[str] = Counter()
    begun = [0.0]

    def optimiser_begins(*_: object) -> None:
        begun[0] = now()

    def optimiser_ends(*_: object) -> None:
        spent["optimiser"] += now() - begun[0]

    def stepped(event: object) -> None:
        if getattr(event, "step", None) == WARM and not isinstance(event, str):
            spent.clear()

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        chosen = [
            f"train.steps={steps}",
            f"train.evaluate_every={steps}",
            "train.log_every=1",
            f"run.folder={folder}/run",
        ]
        for owner, name, part in (
            (Training, "learn", "learn"),
            (torch.autograd, "backward", "backward"),
            (torch.nn.utils, "clip_grad_norm_", "clipping"),
            (MovingAverage, "update", "average"),
        ):
            stack.enter_context(clocked(owner, name, part, spent))
        for register, hook in (
            (register_optimizer_step_pre_hook, optimiser_begins),
            (register_optimizer_step_post_hook, optimiser_ends),
        ):
            stack.callback(register(hook).remove)
        run = pw.train(load_config(config, [*overrides, *chosen]), report=stepped)
        rows = run.log
    # The last row's time includes the evaluation.
    count, wall = steps - WARM, rows[-2]["seconds"] - rows[WARM - 1]["seconds"]
    learn = spent.pop("learn") / count
    parts = {"waiting for crops": sum(row["waited"] for row in rows[WARM:-1]) / (count - 1)}
    parts["forward and loss"] = learn - sum(spent.values()) / count
    parts |= {name: spent[name] / count for name in ("backward", "clipping", "optimiser", "average")}
    parts["log and the rest"] = wall / (count - 1) - parts["waiting for crops"] - learn
    return parts


def show_profile(parts: dict[str, float]) -> None:
    """Print the parts of a step as a table."""
    whole = sum(parts.values())
    print("| part | ms | share |\n|---|---|---|")
    for name, seconds in parts.items():
        print(f"| {name} | {1000 * seconds:.1f} | {seconds / whole:.1%} |")
    print(f"| a step | {1000 * whole:.1f} | |")


def merged(rows: list[dict], row: dict) -> list[dict]:
    """Return the rows with this one in the place of that of the same case, or at the end."""

    def case_of(each: dict) -> tuple:
        return (each["network"], each["batch"], each["size"], each["classes"])

    if case_of(row) in map(case_of, rows):
        return [row if case_of(each) == case_of(row) else each for each in rows]
    return [*rows, row]


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--turn", type=float, default=0.0, help="seconds of a turn at least; 0: one step")
    parser.add_argument("--network", help="only the cases of this one")
    parser.add_argument("--size", type=int, help="only the cases of this side")
    parser.add_argument("--side", type=int, help="of the crops, instead of the cases' own")
    parser.add_argument("--without", nargs="*", default=[], choices=PEERS, help="peers that are not installed")
    parser.add_argument("--profile", type=Path, metavar="CONFIG", help="take the steps of a run apart instead")
    parser.add_argument("--steps", type=int, default=60, help="of the profile's run")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a key of its configuration")
    given = parser.parse_args()
    if given.profile:
        show_profile(profile(given.profile, given.steps, given.overrides))
        return
    for case in CASES:
        if given.network in (None, case.network) and given.size in (None, case.size):
            ways = tuple(way for way in case.ways if way not in given.without)
            row = measure(replace(case, ways=ways, size=given.side or case.size), given.repeats, given.turn)
            print(row, flush=True)
            if given.turn or given.side or given.without:
                print("Not kept: the table is of turns of one step, of the cases' own sizes, and of all peers.")
                continue
            rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
            rows = merged([each for each in rows if "network" in each], row)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
