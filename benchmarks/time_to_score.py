"""Which way of training scores best in the same time? SegFormer-B0 from scratch, beside peers and our best start.

    python benchmarks/time_to_score.py --data fields=FOLDER --way plain --way strong --way transformers --seeds 2

The budget is processor time of this process, since other programs may run: ``--minutes 5 --threads 2`` are 600
processor seconds. Reading the data, 12 steps that tell how long a step takes, and the evaluation do not count. All ways
see the same training scenes, and are scored on the same scenes that none of them saw.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio
import torch
from peers.recipes import PEERS

from pixelwise.config import Config, RunConfig, override_config, parse_config
from pixelwise.config_table import merged
from pixelwise.data.scenes import Scene
from pixelwise.data.split import open_parts, open_split, write_split
from pixelwise.errors import PixelwiseError
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.evaluation.metrics import Scores, confusion_matrix, scores
from pixelwise.fast.fuse import fuse
from pixelwise.geo.polygon_labels import count_touching
from pixelwise.geo.vector import read_polygons
from pixelwise.models import Segmenter
from pixelwise.parcels.polygonize import polygonize
from pixelwise.parcels.scores import score_parcels
from pixelwise.predictor import Predictor
from pixelwise.runs.model_folder import ModelCard, load_model, save_model
from pixelwise.training.train import train

HELD_OUT = 1 / 3
"""Share of the scenes that are scored, chosen by seed 0 and the same for all ways."""
PROBE = 12
"""Steps that tell how long a step takes."""


def fields(folder: Path) -> dict:
    classes = ["background", "field", "boundary"]
    return {"images": folder / "scenes", "labels": folder / "fields.gpkg", "classes": classes, "validation": HELD_OUT}


def example(folder: Path) -> dict:
    """The scenes of this repository, examples/fields: 12 to learn from and 4 that are scored."""
    classes = ["background", "field", "boundary"]
    own = {"images": folder / "train", "labels": folder / "fields.gpkg", "classes": classes}
    return {**own, "validation_images": folder / "test", "validation_labels": folder / "fields.gpkg"}


def landcover(folder: Path) -> dict:
    values = {"building": 10, "road": 30, "field": 50, "forest": 70, "other": 100}
    table = {"images": folder / "images", "labels": folder / "masks", "classes": list(values)}
    return {**table, "values": {name: [value] for name, value in values.items()}, "validation": HELD_OUT}


def driving(folder: Path) -> dict:
    classes = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
    table = {"images": folder / "train/images", "labels": folder / "train/masks", "classes": classes, "ignore": [11]}
    return {**table, "validation_images": folder / "val/images", "validation_labels": folder / "val/masks"}


KINDS = {"example": example, "fields": fields, "landcover": landcover, "driving": driving}

NETWORK = {"name": "segformer-b0"}
SETTINGS = {"batch_size": 4, "crop_size": 256}
BEST = {
    "model": {"options": {"encoder": "efficientnet-lite0"}, "weights": "imagenet"},
    "train": {"schedule": "one_cycle", "learning_rate": 1e-3, "decoder_lr_mult": 2.0},
}
"""As examples/fields_pretrained.toml."""
WAYS: dict[str, dict] = {
    "plain": {},
    "quick": {"train": {"recipe": "quick"}},
    "strong": {"train": {"recipe": "strong"}},
    "best": BEST,
}
"""Way of ours -> tables of its configuration. ``--set`` changes it further."""


def configuration(kind: str, folder: Path, way: str, overrides: Sequence[str], work: Path) -> Config:
    """Return the configuration of a way, with the same parts of the data for all of them."""
    data = KINDS[kind](folder.resolve())
    base = parse_config({"data": data, "model": NETWORK, "train": SETTINGS}, "the benchmark")
    _, split = open_split(base)
    work.mkdir(parents=True)
    write_split(work, base.data, split)
    rest = {key: value for key, value in data.items() if not key.startswith("validation")}
    listed = {**rest, "validation": 0.0, "training_list": work / "train.txt"}
    table = {"data": listed, "model": NETWORK, "train": SETTINGS}
    return override_config(parse_config(merged(table, WAYS.get(way, {})), way), overrides)


def train_ours(config: Config, seconds: float, work: Path) -> tuple[Segmenter, ModelCard, dict]:
    """Train for a budget of processor seconds: a probe tells how many steps fit."""
    marks: list[float] = []

    def mark(event: object) -> None:
        if not isinstance(event, str):
            marks.append(time.process_time())

    def run(steps: int, name: str) -> Path:
        marks.clear()
        settings = config.train.model_copy(update={"steps": steps, "evaluate_every": steps})
        folder = RunConfig(folder=work / name)
        return train(config.model_copy(update={"train": settings, "run": folder}), report=mark).folder

    run(PROBE, "probe")
    # The first steps make plans, and the last saves.
    step = statistics.median(b - a for a, b in pairwise(marks[2:-1]))
    steps = max(3, round(seconds / step))
    folder = run(steps, "run")
    spent = (marks[-2] - marks[0]) * steps / (steps - 2)
    model, card, _ = load_model(folder)
    return model, card, {"steps": steps, "seconds": spent}


def map_and_count(predictor: Predictor, scenes: Sequence[Scene], truth: Path, work: Path, config: Config) -> dict:
    """Map scenes and draw their fields; return the scores of the pixels and of the fields as objects."""
    counts = {"matched": 0, "parcels": 0, "truth": 0}
    names = list(predictor.card.classes.names)
    matrix = np.zeros((len(names), len(names)), np.int64)
    for scene in scenes:
        place, drawn = work / f"{scene.name}.tif", work / f"{scene.name}.gpkg"
        options = {"flips": config.predict.flips, "scales": config.predict.scales}
        predictor.map_scene(scene.info.path, place, confidence=True, **options)
        with rasterio.open(place) as file:
            matrix += confusion_matrix(scene.read(scene.whole).mask, file.read(1), len(names))
        polygonize(place, drawn, minimum_area=500, simplify=2, instances=("field", "boundary"), classes=["field"])
        try:
            found = score_parcels(drawn, truth, tolerance=3, classes=["field"], truth_attribute="class", within=place)
        except PixelwiseError as problem:  # a map without any field
            print(f"{scene.name}: {problem}")
            counts["truth"] += count_touching(read_polygons(truth), scene.info)
            continue
        for name in counts:
            counts[name] += getattr(found, name)
    objects = 2 * counts["matched"] / (counts["parcels"] + counts["truth"])
    return {**pixel_scores(scores(matrix, names)), "object_f1": objects, **counts}


def pixel_scores(found: Scores) -> dict:
    return {"mIoU": found.miou, "iou": {each.name: each.iou for each in found.classes}}


def score(model: Segmenter, card: ModelCard, kind: str, folder: Path, config: Config, work: Path) -> dict:
    """Return all scores on the scenes that no way saw."""
    _, _, held_out = open_parts(parse_config({"data": KINDS[kind](folder.resolve())}, "the benchmark"))
    if kind not in ("example", "fields"):
        return pixel_scores(evaluate_scenes(fuse(model), held_out, card, config.predict).scores)
    return map_and_count(Predictor(model, card, "benchmark"), held_out, folder / "fields.gpkg", work, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print what is kept, as Markdown")
    parser.add_argument("--data", action="append", default=[], metavar="KIND=FOLDER", help=f"{', '.join(KINDS)}")
    parser.add_argument("--way", action="append", help=f"of {', '.join([*WAYS, *PEERS])}; default: all")
    parser.add_argument("--set", action="append", default=[], help="a value of ours, such as augment.classmix=0.5")
    parser.add_argument("--name", help="of the row; default: the way and what is set")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="SEED")
    parser.add_argument("--keep", type=Path, help="a folder for the models")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "time_to_score.json")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.output.read_text())["runs"]))
        return
    torch.set_num_threads(arguments.threads)
    seconds = 60 * arguments.minutes * arguments.threads
    for given in arguments.data:
        kind, _, folder = given.partition("=")
        for way in arguments.way or [*WAYS, *PEERS]:
            for seed in arguments.seeds:
                row = measure(arguments, kind, Path(folder), way, seed, seconds)
                print(json.dumps(row), flush=True)
                keep(arguments.output, row)


def measure(arguments: argparse.Namespace, kind: str, folder: Path, way: str, seed: int, seconds: float) -> dict:
    name = arguments.name or " ".join([way, *arguments.set])
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        overrides = [*arguments.set, f"train.seed={seed}", "train.workers=0"]
        config = configuration(kind, folder, way, overrides, work / "split")
        learn = PEERS.get(way, train_ours)
        model, card, spent = learn(config, seconds, work)
        found = score(model, card, kind, folder, config, work)
        if arguments.keep and way not in PEERS:
            save_model(arguments.keep / f"{kind}-{name}-{seed}".replace(" ", "_").replace("/", "_"), model, card)
    return {"data": kind, "way": name, "seed": seed, "budget": seconds, **spent, **found}


def table(runs: list[dict]) -> str:
    """Return a table of the kept runs, a row for each."""
    lines = [
        "| data | way | seed | processor seconds | steps | mIoU | IoU of each class | F1 of fields |",
        "|---" * 8 + "|",
    ]
    for run in runs:
        classes = ", ".join(f"{name} {'-' if iou is None else f'{iou:.3f}'}" for name, iou in run["iou"].items())
        objects = f"{run['object_f1']:.3f}" if "object_f1" in run else ""
        cells = run["data"], run["way"], run["seed"], f"{run['seconds']:.0f}", run["steps"], f"{run['mIoU']:.3f}"
        lines.append(f"| {' | '.join(map(str, cells))} | {classes} | {objects} |")
    return "\n".join(lines)


def keep(path: Path, row: dict) -> None:
    """Add a row to the results; one of the same run is replaced."""
    kept = json.loads(path.read_text()) if path.exists() else {"about": {}, "runs": []}
    key = ("data", "way", "seed", "budget")
    kept["runs"] = [each for each in kept["runs"] if any(each[k] != row[k] for k in key)] + [row]
    kept["about"] = {"machine": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
