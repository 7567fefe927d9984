"""Which networks can be exported to which runtime, and how much their answers differ: the table of `docs/export.md`.

Fresh networks, the smallest of each family, with their batch norms as if they had seen images. Each is exported and
checked by its certificate: four sizes besides one image of 96 x 96.

    python benchmarks/exports.py --json benchmarks/results/exports.json

With ``--data`` each is trained for some steps first, and checked on images of its validation part, by their labels too:

    python benchmarks/exports.py --data examples/fields.toml --json benchmarks/results/exports_trained.json
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import pixelwise as pw
from pixelwise.config import Config, load_config
from pixelwise.config_table import merged
from pixelwise.errors import PixelwiseError
from pixelwise.exporting import samples
from pixelwise.labels import make_classes
from pixelwise.runs.model_folder import ModelCard, save_model

VIT = {"encoder": "vit-tiny"}
NETWORKS: dict[str, dict] = {
    "segformer-b0": {},
    "segnext-t": {},
    "hrnet-w18": {},
    "hrnetv1-w18": {},
    "hrnetv2p-w18": {},
    "hrnet-w18-ocr": {},
    "pspnet": {"encoder": "resnet18"},
    "deeplabv3": {"encoder": "resnet18"},
    "deeplabv3-cascade": {"encoder": "resnet18"},
    "deeplabv3plus": {"encoder": "resnet18"},
    "linknet": {},
    "fchardnet-70": {},
    "unet": {},
    "unetpp": {},
    "unet3p": {},
    "setr-naive": VIT,
    "setr-pup": VIT,
    "setr-mla": VIT,
    "segmenter-linear": VIT,
    "segmenter-mask": VIT,
    "depict-sa": VIT,
    "depict-ca": VIT,
    "eomt-s": {},
    "hmsa": {"network": "hrnet-w18-ocr"},
}
CODE = "compiled.pt2"
"""A program of torch as machine code, which needs a compiler."""
CLASSES = 5
SIDE = 96


def save_fresh(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = pw.create(name, classes=CLASSES, **NETWORKS[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # pyright: ignore[reportArgumentType]
    classes = make_classes([f"class {i}" for i in range(CLASSES)])
    card = ModelCard(model.architecture, classes, (1, 2, 3), "uint8", (128.0,) * 3, (60.0,) * 3, tile=SIDE)
    save_model(folder, model, card)


def train_shortly(name: str, folder: Path, data: Path, steps: int) -> None:
    """Train a network on crops as large as the images that exports are checked on."""
    tables: dict[str, dict] = {
        "model": {"name": name, "options": NETWORKS[name]},
        "train": {"steps": steps, "evaluate_every": steps, "crop_size": SIDE, "batch_size": 2, "learning_rate": 1e-3},
        "predict": {"tile": SIDE, "overlap": 0},
        "run": {"folder": folder},
    }
    pw.train(Config.model_validate(merged(load_config(data).model_dump(exclude_unset=True), tables)))


def measured(name: str, out: str, size: list[int] | None, data: Path | None, steps: int) -> dict:
    """Export one network, and return what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            save_fresh(name, Path(folder) / "model")
        else:
            train_shortly(name, Path(folder) / "model", data, steps)
        start = time.perf_counter()
        try:
            made = pw.export(
                Path(folder) / "model",
                Path(folder) / out,
                size=None if size is None else (size[0], size[1]),
                compile=out == CODE,
            )
        except PixelwiseError as error:
            return {"network": name, "to": out, "size": size, "refused": str(error).replace(folder, "")}
        proof = made.certificate
        return {
            "network": name,
            "to": out,
            "size": size,
            "seconds": round(time.perf_counter() - start, 1),
            "megabytes": round(
                sum(path.stat().st_size for path in made.path.parent.glob(f"{made.path.stem}.*")) / 1e6, 1
            ),
            "runtime": proof.runtime,
            "relative_difference": proof.difference,
            "equal_labels": proof.equal_labels,
            "smallest_side": proof.smallest_side,
            "images": proof.images,
            "miou_torch": proof.miou_torch,
            "miou": proof.miou_export,
        }


def table(rows: list[dict]) -> str:
    """Return the table of the page: a row per network and size, with the largest difference in each runtime."""
    runtimes = {"model.onnx": "ONNX Runtime", "model.xml": "OpenVINO", "model.pt2": "torch", CODE: "machine code"}
    shown = {to: runtime for to, runtime in runtimes.items() if any(row["to"] == to for row in rows)}
    lines = [f"| network | sides from | {' | '.join(shown.values())} |", "|---" * (2 + len(shown)) + "|"]
    for name in NETWORKS:
        for size in (None, [SIDE, SIDE]):
            found = {row["to"]: row for row in rows if row["network"] == name and row["size"] == size}
            if found:
                smallest = next((row["smallest_side"] for row in found.values() if "refused" not in row), "")
                called = f"`{name}`" + (f", {SIDE} x {SIDE} alone" if size else "")
                cells = (_cell(found.get(to)) for to in shown)
                lines.append(f"| {called} | {smallest} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: dict | None) -> str:
    if row is None:
        return "not measured"
    return "refused" if "refused" in row else f"{row['relative_difference']:.1e}" if row["relative_difference"] else "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the rows go; those that are there are kept")
    parser.add_argument("--network", action="append", help="only this one; repeatable")
    parser.add_argument("--data", type=Path, help="a configuration to train by")
    parser.add_argument("--steps", type=int, default=20, help="of this training")
    parser.add_argument("--to", action="append", help=f"model.onnx, model.xml, model.pt2 or {CODE}; repeatable")
    arguments = parser.parse_args()
    samples.SIDE, samples.COUNT = SIDE, 1 if arguments.data is None else 4
    rows = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    for out in arguments.to or ["model.onnx", "model.xml"]:
        for name in arguments.network or NETWORKS:
            for size in (None, [SIDE, SIDE]) if name == "hmsa" else (None,):
                if any(row["network"] == name and row["to"] == out and row["size"] == size for row in rows):
                    continue
                rows.append(measured(name, out, size, arguments.data, arguments.steps))
                print(json.dumps(rows[-1]), flush=True)
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
