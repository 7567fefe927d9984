"""A run of a tiny network on images of noise, for tests of what a run keeps."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from pixelwise.config import Config

NETWORK = {"name": "unet", "options": {"filters": [4, 8], "batch_norm": False}}


def write_scenes(folder: Path, count: int = 4, seed: int = 0) -> Path:
    """Write images in which bright pixels are one class and dark ones the other, and their masks."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int))
        image = (mask * 100 + rng.integers(0, 100, (3, 64, 64))).astype(np.uint8)
        for kind, bands in (("images", image), ("masks", mask[None].astype(np.uint8))):
            shape = {"count": len(bands), "height": 64, "width": 64, "dtype": "uint8"}
            place = Affine.translation(1, 1)
            with rasterio.open(folder / kind / f"{i}.tif", "w", driver="GTiff", transform=place, **shape) as out:
                out.write(bands)
    return folder


def small_config(scenes: Path, run: Path, *, model: dict | None = None, **train: object) -> Config:
    settings = {
        "steps": 4,
        "batch_size": 1,
        "crop_size": 32,
        "evaluate_every": 2,
        "workers": 0,
        "device": "cpu",
        **train,
    }
    data = {"images": scenes / "images", "labels": scenes / "masks", "classes": ["dark", "bright"], "validation": 0.25}
    return Config.model_validate(
        {
            "data": data,
            "model": NETWORK if model is None else model,
            "train": settings,
            "predict": {"tile": 64, "overlap": 0},
            "run": {"folder": run},
        }
    )
