"""Can every network learn four images by heart?

    python benchmarks/overfit.py FOLDER [--steps 100] [--only unet] [--side 96]

FOLDER has ``images`` and ``masks`` (values from 0 on, 11 is void). The first four pairs are shrunk to SIDE x SIDE, and
each network of `overfitted` is trained on them as one batch: AdamW, rate 1e-3 falling linearly to 0, the losses and
weights of auxiliary heads as in training. `results/overfit.json` keeps the loss at each step, and the share of valid
pixels that is right at the end, in evaluation mode. The networks of a run are merged into it.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import pixelwise as pw
from pixelwise.losses import total_loss
from pixelwise.models import list_models

RESULTS = Path(__file__).parent / "results" / "overfit.json"
CLASSES, VOID = 11, 11
VIT = {"encoder": "vit-tiny", "image_size": 96}
DINOV2 = "segmenter-linear with dinov2"
OPTIONS: dict[str, dict[str, object]] = {
    **dict.fromkeys(("setr-naive", "setr-pup", "setr-mla", "segmenter-linear", "segmenter-mask"), VIT),
    **dict.fromkeys(("depict-sa", "depict-ca"), VIT),
    "eomt-s": {"dim": 192, "image_size": 96, "queries": 20},
    "hmsa": {"network": "hrnet-w18-ocr", "scales": [0.5, 1.0]},
    DINOV2: {"encoder": "dinov2-small", "dim": 192, "image_size": 98},
}
LARGER = ("-b1", "-b2", "-b3", "-b4", "-b5", "-s", "-b", "-l", "w30", "w32", "w40", "w44", "w48", "w64")


def overfitted() -> list[str]:
    """Return the smallest network of each kind, and DINOv2 below a linear decoder."""
    names = [name for name in list_models() if not name.removesuffix("-ocr").endswith(LARGER) or name == "eomt-s"]
    return [*names, DINOV2]


def four_images(folder: Path, side: int) -> tuple[Tensor, Tensor]:
    """Return four normalised images [4,3,S,S] and their masks [4,S,S], void being -1."""
    images, masks = [], []
    for path in sorted((folder / "images").iterdir())[:4]:
        image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BOX)
        mask = Image.open(next((folder / "masks").glob(f"{path.stem}.*")))
        images.append(np.asarray(image, np.float32) / 255)
        masks.append(np.asarray(mask.resize((side, side), Image.Resampling.NEAREST), np.int64))
    image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    image = (image - image.mean(dim=(0, 2, 3), keepdim=True)) / image.std(dim=(0, 2, 3), keepdim=True)
    mask = torch.from_numpy(np.stack(masks))
    return image.contiguous(), torch.where(mask == VOID, -1, mask)


def overfit(name: str, image: Tensor, mask: Tensor, steps: int) -> dict:
    """Train one network on one batch; return its curve."""
    torch.manual_seed(0)
    model = pw.create(name.partition(" ")[0], classes=CLASSES, **OPTIONS.get(name, {}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    curve, start = [], time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        model.train()
        model.anneal(step / steps)
        loss = total_loss(model.decode(image), mask, aux_weights=model.aux_weights, align_corners=model.align_corners)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curve.append(round(loss.item(), 5))
    labels = model.eval().label_map(image).long()
    right = float((labels == mask)[mask >= 0].double().mean())
    about = {"steps": steps, "side": image.shape[-1], "seconds": round(time.monotonic() - start, 1)}
    return {**about, "right": round(right, 4), "curve": curve}


def main() -> None:
    """Train each in turn, print a line and keep the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    if not (given.folder / "images").is_dir():
        parser.error(f"{given.folder} has no folder of images called images. Name a folder that has one.")
    image, mask = four_images(given.folder, given.side)
    for name in overfitted():
        if given.only not in name:
            continue
        found = overfit(name, image, mask, given.steps)
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**kept, name: found}, indent=None) + "\n", encoding="utf-8")
        first, last = found["curve"][0], found["curve"][-1]
        print(f"{name:20} loss {first:.3f} to {last:.3f}, {found['right']:.1%} right, {found['seconds']} s", flush=True)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
