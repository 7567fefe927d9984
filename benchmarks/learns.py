"""Does every network learn in 60 steps?

    OMP_NUM_THREADS=1 python benchmarks/learns.py [--column after] [--only unet] [--steps 60]

The task: fields or not, on the scenes of examples/fields at 4 m per pixel. Each network of `learners` starts fresh and
is trained on the same crops of 64x64 (batch 4, AdamW, rate 1e-3 falling linearly to 0, the losses of its auxiliary
heads with their weights). Two figures are kept: the first loss of its logits, which is ln 2 = 0.69 for a network that
favours neither class, and the mIoU on 64 crops of scenes that it has not seen. With several seeds, the means.

`results/learns.json` has a column per state of the code ("before" and "after" the starts were looked at), and
``--table`` prints it as `docs/learns.md` shows it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import pixelwise as pw
from pixelwise.config import load_config
from pixelwise.data.scenes import open_scenes
from pixelwise.evaluation.metrics import confusion_matrix, scores
from pixelwise.geo.raster import Window
from pixelwise.losses import total_loss
from pixelwise.models import list_models

EXAMPLES = Path(__file__).parent.parent / "examples"
RESULTS = Path(__file__).parent / "results" / "learns.json"
CLASSES = ["background", "field"]
SHRINK, SIDE, BATCH, RATE = 4, 64, 4, 1e-3

VIT = {"encoder": "vit-tiny", "image_size": SIDE}
NARROW = {"filters": [16, 32, 64, 128, 256]}
DINOV2 = "segmenter-linear with dinov2"
OPTIONS: dict[str, dict[str, object]] = {
    **dict.fromkeys(("setr-naive", "setr-pup", "setr-mla", "segmenter-linear", "segmenter-mask"), VIT),
    **dict.fromkeys(("depict-sa", "depict-ca"), VIT),
    "unet": NARROW,
    "unetpp": NARROW,
    "unet3p": {**NARROW, "decoder_channels": 16},
    "pspnet": {"encoder": "resnet18"},
    "deeplabv3": {"encoder": "resnet18"},
    "deeplabv3plus": {"encoder": "resnet18"},
    "eomt-s": {"dim": 192, "image_size": SIDE, "queries": 20},
    "hmsa": {"network": "hrnet-w18-ocr", "scales": [0.5, 1.0]},
    DINOV2: {"encoder": "dinov2-small", "dim": 192, "image_size": 70},
}
"""Smaller than their authors made them, so that all of them take minutes."""
LARGER = ("-b1", "-b2", "-b3", "-b4", "-b5", "-s", "-b", "-l", "w30", "w32", "w40", "w44", "w48", "w64")


def learners() -> list[str]:
    """Return the smallest network of each kind, and DINOv2 below a linear decoder."""
    names = [name for name in list_models() if not name.removesuffix("-ocr").endswith(LARGER) or name == "eomt-s"]
    return [*names, DINOV2]


def scenes_of(name: str) -> tuple[Tensor, Tensor]:
    """Return the scenes of a configuration of examples/, shrunk: images [N,3,H,W] from 0 to 1 and masks [N,H,W]."""
    _, scenes = open_scenes(load_config(EXAMPLES / name).data)
    images, masks = [], []
    for scene in scenes:
        crop = scene.read(Window(0, 0, scene.info.height, scene.info.width))
        image = torch.from_numpy(crop.values.astype(np.float32) / 255)
        field = torch.from_numpy((crop.mask == 1).astype(np.float32))
        images.append(F.avg_pool2d(image, SHRINK))
        masks.append((F.avg_pool2d(field[None], SHRINK)[0] > 0.5).long())
    return torch.stack(images), torch.stack(masks)


def crops(images: Tensor, masks: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return ``count`` crops of 64x64 at random places."""
    picked = []
    for _ in range(count):
        i, top, left = rng.integers(0, [len(images), images.shape[2] - SIDE + 1, images.shape[3] - SIDE + 1])
        place = np.s_[top : top + SIDE, left : left + SIDE]
        picked.append((images[i][:, *place], masks[i][*place]))
    image, mask = zip(*picked, strict=True)
    return torch.stack(image), torch.stack(mask)


def learn(name: str, seen: tuple[Tensor, Tensor], unseen: tuple[Tensor, Tensor], steps: int, seed: int) -> dict:
    """Train one network, and score it on what it has not seen."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = pw.create(name.partition(" ")[0], classes=len(CLASSES), **OPTIONS.get(name, {}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    first = None
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        image, mask = crops(*seen, BATCH, rng)
        model.anneal(step / steps)
        decoded = model.train().decode(image)
        if first is None:
            logits = F.interpolate(decoded.logits, (SIDE, SIDE), mode="bilinear")
            first = F.cross_entropy(logits, mask).item()
        loss = total_loss(decoded, mask, aux_weights=model.aux_weights, align_corners=model.align_corners)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    image, mask = unseen
    labels = torch.cat([model.eval().label_map(part) for part in image.split(16)])
    matrix = confusion_matrix(mask.numpy().astype(np.int16), labels.numpy(), len(CLASSES))
    return {"first_loss": first, "mIoU": scores(matrix, CLASSES).miou}


def table(kept: dict) -> str:
    """Return the results as a table; a dash stands for what was not measured."""
    lines = ["| network | first loss before | after | mIoU before | after |", "|---|---|---|---|---|"]
    for name in learners():
        found = [kept.get(column, {}).get(name) for column in ("before", "after")]
        values = ["–" if one is None else f"{one[key]:.2f}" for key in ("first_loss", "mIoU") for one in found]
        lines.append(f"| `{name}` | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    """Train each in turn, print a line and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--column", default="after", choices=("before", "after"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", action="store_true", help="print the table and do nothing else")
    given = parser.parse_args()
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if given.table:
        print(table(kept))
        return
    pixels, truth = scenes_of("fields.toml")
    mean, std = pixels.mean(dim=(0, 2, 3), keepdim=True), pixels.std(dim=(0, 2, 3), keepdim=True)
    other, other_truth = scenes_of("fields_test.toml")
    seen = ((pixels - mean) / std, truth)
    unseen = crops((other - mean) / std, other_truth, 64, np.random.default_rng(0))
    for name in learners():
        if given.only not in name:
            continue
        started = time.monotonic()
        each = [learn(name, seen, unseen, given.steps, seed) for seed in range(given.seeds)]
        found = {key: round(statistics.mean(one[key] for one in each), 4) for key in each[0]}
        # Read again: another run may keep other networks at the same time.
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept.setdefault(given.column, {})[name] = found
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        spent = time.monotonic() - started
        print(f"{name:20} first loss {found['first_loss']:.2f}, mIoU {found['mIoU']:.3f}, {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
