"""Crop, batch, network and steps that fit the data and the machine, and how the data are divided."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from pixelwise.data.footprints import overlapping_groups
from pixelwise.geo.raster import RasterInfo

CPU_PIXELS, GPU_PIXELS = 8 * 256**2, 8 * 512**2
"""Of a batch: what a step takes in about a second on two cores, and on a small GPU."""
BYTES_PER_PIXEL = 2400
"""Of memory for a pixel of a batch: twice what a step of SegFormer-B0 with 19 classes took on a CPU, 1,180."""
PASSES = 60
"""So often is each labelled pixel seen."""
FEW_GROUPS = 5
"""Fewer scenes than this are divided by blocks of ground."""


@dataclass
class Settings:
    """Tables of a configuration, and why."""

    model: dict[str, object]
    train: dict[str, object]
    data: dict[str, object] = field(default_factory=dict)
    guessed: list[str] = field(default_factory=list)


def choose_settings(
    infos: Sequence[RasterInfo],
    images: int,
    rarest: float,
    *,
    gpu: bool,
    memory: int | None,
    divided: bool,
    pretrained: bool = False,
) -> Settings:
    """Choose by the sizes of images and by the machine.

    Args:
        infos: headers of some images.
        images: how many there are.
        rarest: share of the rarest class among labelled pixels; 1 where it is not known.
        gpu: the machine has one that torch can use.
        memory: free bytes; None where the system does not say.
        divided: folders or lists say what is for validation.
        pretrained: an encoder that knows ImageNet is at hand, and the images have its bands.
    """
    sides = sorted(min(info.height, info.width) for info in infos)
    typical = sides[len(sides) // 4]
    crop = max(32, min(512 if gpu else 256, typical) // 32 * 32)
    budget = GPU_PIXELS if gpu else CPU_PIXELS
    if memory is not None:
        budget = min(budget, max(2 * crop**2, memory // 2 // BYTES_PER_PIXEL))
    batch = max(2, min(16, budget // crop**2))
    pixels = sum(info.height * info.width for info in infos) / len(infos) * images
    least, most = (2000, 40000) if gpu else (600, 4000)
    steps = min(most, max(least, math.ceil(PASSES * pixels / (batch * crop**2) / 100) * 100))
    network = "segformer-b2" if gpu and pixels > 2e8 else "segformer-b0"
    model: dict[str, object] = {"name": network}
    train: dict[str, object] = {"batch_size": batch, "crop_size": crop}
    if pretrained and network == "segformer-b0":
        # As examples/fields_pretrained.toml; docs/recipes.md has what it gains. A step takes 1.6 times as long.
        steps = math.ceil(steps / 160) * 100
        network = "EfficientNet-Lite0 that knows ImageNet, below SegFormer's decoder"
        model |= {"weights": "imagenet", "options": {"encoder": "efficientnet-lite0"}}
        train |= {"schedule": "one_cycle", "learning_rate": 1e-3, "decoder_lr_mult": 2.0}
    where = "a GPU" if gpu else f"{os.cpu_count() or 1} cores without a GPU"
    chosen = Settings(
        model,
        {"steps": steps, **train},
        guessed=[
            f"{network}, {steps} steps of {batch} crops of {crop}x{crop}: for {where}, and {pixels / 1e6:,.3g} million "
            "pixels."
        ],
    )
    if rarest < 0.02:
        chosen.train["class_weights"] = "balanced"
        chosen.guessed.append(
            f"The rarest class has {rarest:.2%} of the pixels, so rare classes count more (class_weights)."
        )
    if not divided:
        _divide(infos, images, chosen)
    return chosen


def _divide(infos: Sequence[RasterInfo], images: int, chosen: Settings) -> None:
    groups = overlapping_groups(infos) if len(infos) == images else [[i] for i in range(images)]
    overlap = len(groups) < len(infos)
    if len(groups) >= FEW_GROUPS:
        chosen.data["validation"] = 0.2
        shared = " Scenes that share ground stay together." if overlap else ""
        chosen.guessed.append(f"A fifth of the images is kept for validation.{shared}")
        return
    area = sum(info.height * info.width for info in infos)
    # About forty blocks, so that both parts hold all kinds of ground.
    side = max(32, min(512, int(math.sqrt(area / 40)) // 32 * 32))
    chosen.data |= {"split": "block", "block": side, "validation": 0.2}
    why = "share ground" if overlap else "are few" if images > 1 else "is one"
    chosen.guessed.append(
        f"The images {why}, so blocks of {side}x{side} pixels are kept for validation, a fifth of the ground."
        if images > 1
        else f"There is one image, so blocks of {side}x{side} pixels of it are kept for validation, a fifth of it."
    )
