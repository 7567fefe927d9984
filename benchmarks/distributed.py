"""Training by several processes against one: losses, weights and scores, resumed with another number, and by Ray.

    python benchmarks/distributed.py                 # the table as JSON
    python benchmarks/distributed.py --without-ray --steps 4

Each case trains on drawn scenes with 1 process and with 2 on the same batches: gloo, on this machine's processors.
`--cases FILE` is what torchrun calls: it trains the cases of a file one after the other.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIDE, SCENES = 96, 6


def draw_scenes(folder: Path) -> None:
    """Draw images of three classes, which differ in colour, and a part of each without a label."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(SCENES):
        mask = np.kron(rng.integers(0, 3, (6, 6)), np.ones((SIDE // 6, SIDE // 6), np.int64)).astype(np.uint8)
        image = mask[..., None] * np.array([60, 20, 90]) + rng.integers(0, 70, (SIDE, SIDE, 3))
        # More is unlabelled in some crops than in others, so a mean of the processes' means would be wrong.
        mask[: SIDE * i // 8] = 255
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")


def case(folder: Path, run: str, model: dict, train: dict, **tables: dict) -> dict:
    """Return a configuration as a table of TOML."""
    data = {"images": str(folder / "images"), "labels": str(folder / "masks"), "classes": ["a", "b", "c"]}
    data |= {"validation": 0.34, "ignore": [255]} | tables.pop("data", {})
    settings = {"batch_size": 4, "crop_size": 64, "workers": 0, "device": "cpu", "precision": "fp32"}
    return {
        "data": data,
        "model": model,
        "train": settings | {"learning_rate": 1e-4} | train,
        "predict": {"tile": 64, "overlap": 0},
        "run": {"folder": str(folder / run)},
        **tables,
    }


def train_cases(cases: Path) -> None:
    """Train the cases of a file in this process, or in those that torchrun started."""
    import torch

    from pixelwise.config import Config
    from pixelwise.training.joining import joined
    from pixelwise.training.train import train

    todo = json.loads(cases.read_text())
    with joined(Config.model_validate(todo[0]["config"])):
        for each in todo:
            torch.set_num_threads(each.get("threads", 1))
            train(Config.model_validate(each["config"]), resume=each.get("resume", False))


def run_cases(cases: list[dict], processes: int, folder: Path) -> subprocess.CompletedProcess:
    """Train cases, each a configuration and whether it goes on, with a number of processes."""
    file = folder / f"cases{processes}.json"
    file.write_text(json.dumps(cases))
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*start, __file__, "--cases", str(file)], env=environment, capture_output=True, text=True, check=True
    )


def compared(one: Path, other: Path) -> dict:
    """Return how much two runs differ."""
    from safetensors.torch import load_file

    from pixelwise.runs.run_folder import Run

    rows, others = ([row for row in Run(each).log] for each in (one, other))
    weights, theirs = (load_file(each / "model" / "model.safetensors") for each in (one, other))
    return {
        "steps": [len(rows), len(others)],
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "loss_difference": max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, others, strict=True)),
        "score_difference": max(abs(a["mIoU"] - b["mIoU"]) for a, b in zip(rows, others, strict=True) if "mIoU" in a),
        "weight_difference": max(float((weights[key].double() - theirs[key].double()).abs().max()) for key in weights),
    }


def cases_of(folder: Path, steps: int, *, toy: bool) -> dict[str, dict]:
    """Return the cases: what is trained with 1 process and with 2."""
    segformer: dict[str, object] = {"name": "segformer-b0"}
    linknet: dict[str, object] = {"name": "linknet"}
    if toy:
        segformer["options"] = {"widths": [8, 16, 20, 32], "depths": [1, 1, 1, 1], "decoder_channels": 16}
        linknet = {"name": "unet", "options": {"filters": [4, 8]}}
    losses = {"dice": 0.5, "ohem": 0.5, "ohem_min_kept": 2000, "class_weights": "balanced"}
    mixed = {"augment": {"classmix": 0.5}, "sampling": {"hard": 0.5}}
    every = {"steps": steps, "evaluate_every": max(1, steps // 2)}
    return {
        "segformer-b0": case(folder, "segformer", segformer, every),
        "linknet": case(folder, "linknet", linknet, every | losses, **mixed),
        "linknet, cross-entropy alone": case(folder, "plain", linknet, every),
        "segformer-b0, FSDP2": case(folder, "fsdp", segformer, every | {"parallel": "fsdp"}),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--toy", action="store_true", help="two steps of narrow networks, without Ray")
    parser.add_argument("--cases", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cases is not None:
        train_cases(given.cases)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_scenes(folder)
        steps, ray = (2, False) if given.toy else (given.steps, not given.without_ray)
        print(json.dumps(table(folder, steps, ray=ray, toy=given.toy), indent=2))


def at(config: dict, run: str, **train: object) -> dict:
    """Return a configuration with another run's folder, and other keys of [train]."""
    folder = Path(config["run"]["folder"]).with_name(run)
    return {**config, "train": config["train"] | train, "run": {"folder": str(folder)}}


def table(folder: Path, steps: int, *, ray: bool, toy: bool) -> dict:
    """Train all cases and return their differences by name."""
    cases = cases_of(folder, steps, toy=toy)
    half, names = steps // 2, list(cases)
    of_one = [{"config": at(config, f"{i}-one")} for i, config in enumerate(cases.values())]
    of_two = [{"config": at(config, f"{i}-two")} for i, config in enumerate(cases.values())]
    resumed = cases["linknet"] | {"train": cases["linknet"]["train"] | {"schedule": "poly", "poly_power": 0.0}}
    resumed["train"] |= {"warmup": 0}
    begun = {"steps": half, "evaluate_every": half}
    # Another number of threads changes nothing but the order of sums: what rounding alone does to a run.
    of_threads = [{"config": at(config, f"{i}-threads"), "threads": 2} for i, config in enumerate(cases.values())]
    alone = [{"config": at(resumed, "r-one")}, {"config": at(resumed, "r-12", **begun)}]
    run_cases([*of_one, *of_threads, *alone], 1, folder)
    run_cases(
        [
            *of_two,
            {"config": at(resumed, "r-12"), "resume": True},
            {"config": at(resumed, "r-21", **begun)},
        ],
        2,
        folder,
    )
    run_cases([{"config": at(resumed, "r-21"), "resume": True}], 1, folder)
    found = {name: compared(folder / f"{i}-one", folder / f"{i}-two") for i, name in enumerate(names)}
    found |= {
        f"{name}, 1 process with 2 threads": compared(folder / f"{i}-one", folder / f"{i}-threads")
        for i, name in enumerate(names)
    }
    found["linknet, begun with 1 and resumed with 2"] = compared(folder / "r-one", folder / "r-12")
    found["linknet, begun with 2 and resumed with 1"] = compared(folder / "r-one", folder / "r-21")
    if ray:
        from pixelwise.config import Config
        from pixelwise.training.ray_training import train_on_ray

        train_on_ray(Config.model_validate(at(cases["segformer-b0"], "ray")), processes=2)
        found["segformer-b0, Ray Train"] = compared(folder / "0-one", folder / "ray")
    return found


if __name__ == "__main__":
    main()
