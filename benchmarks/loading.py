"""Crops per second of each form of images, read by threads and by processes.

    python benchmarks/loading.py --workers 0 1 2 --json loading.json

The pixels are those of the example, written again as PNG, JPEG, tiled and striped GeoTIFF. Each row draws batches as
training does, from files and from memory, with its augmentation, for some seconds and in turns over the rows, so that
what else the machine does meets all of them. "per core" is the number of crops over the processor seconds that they
took, which other programs hardly change; "per second" is by the clock, of the best turn.

Workers as processes get a copy of the sampler when they begin, and send batches back through a pipe.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from PIL import Image

from pixelwise.config import Config
from pixelwise.data.sampler import Batch, Sampler, batches
from pixelwise.data.scenes import open_scenes

EXAMPLE = Path(__file__).parents[1] / "examples" / "fields" / "train"
FORMS = ("png", "jpeg", "tiled", "striped")
TIFF = {"driver": "GTiff", "compress": "deflate", "predictor": 2}


@dataclass
class Row:
    form: str
    place: str
    kind: str
    workers: int
    per_second: float
    per_core: float


def write_form(folder: Path, form: str, count: int) -> None:
    """Write images in a form, and masks of two classes as PNG."""
    sources = sorted(EXAMPLE.glob("*.tif"))
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(count):
        with rasterio.open(sources[i % len(sources)]) as file:
            pixels = file.read([1, 2, 3])
        bands, height, width = pixels.shape
        if form in ("png", "jpeg"):
            suffix, options = ("png", {}) if form == "png" else ("jpg", {"quality": 90})
            Image.fromarray(np.moveaxis(pixels, 0, -1)).save(folder / "images" / f"{i}.{suffix}", **options)
        else:
            blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256} if form == "tiled" else {"tiled": False}
            shape = {"count": bands, "height": height, "width": width, "dtype": "uint8"}
            with rasterio.open(folder / "images" / f"{i}.tif", "w", **TIFF, **shape, **blocks) as file:
                file.write(pixels)
        mask = (pixels[1] > np.median(pixels[1])).astype(np.uint8)
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")


def sampler_of(folder: Path, crop: int, *, resident: bool) -> Sampler:
    data = {"images": folder / "images", "labels": folder / "masks", "classes": ["dark", "bright"]}
    config = Config.model_validate({"data": data})
    _, scenes = open_scenes(config.data)
    for scene in scenes:
        scene.resident = resident
        if resident:
            scene.read(scene.whole)
    return Sampler(scenes, config.augment, crop=crop, seed=0, mean=(100.0,) * 3, std=(40.0,) * 3)


def _begin_process(sampler: Sampler) -> None:
    global _own
    torch.set_num_threads(1)
    _own = sampler


def _batch_of_process(step: int, size: int) -> tuple[Batch, float]:
    begun = time.process_time()
    return _own.batch(step, size), time.process_time() - begun


def process_batches(sampler: Sampler, spent: list[float], *, batch: int, last: int, workers: int) -> Iterator[Batch]:
    """Yield batches as `batches` does, read by processes, whose processor seconds are added to ``spent``."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["pixelwise.data.sampler"])
    with ProcessPoolExecutor(workers, server, initializer=_begin_process, initargs=(sampler,)) as pool:
        waiting: list[Future[tuple[Batch, float]]] = []
        try:
            for step in range(last):
                while len(waiting) <= 2 * workers and step + len(waiting) < last:
                    waiting.append(pool.submit(_batch_of_process, step + len(waiting), batch))
                found, seconds = waiting.pop(0).result()
                spent.append(seconds)
                yield found
        finally:
            for future in waiting:
                future.cancel()


def measure(sampler: Sampler, kind: str, workers: int, batch: int, steps: int) -> tuple[float, float]:
    """Return crops per second by the clock, without the first batches, and crops per processor second."""
    spent: list[float] = []
    begun = time.process_time()
    if kind == "processes":
        drawn = process_batches(sampler, spent, batch=batch, last=steps, workers=workers)
    else:
        drawn = batches(sampler, batch=batch, first=0, last=steps, workers=workers)
    # Workers begin, and read ahead, before the clock starts.
    for _ in range(2 * workers + 1):
        next(drawn)
    started = time.perf_counter()
    count = sum(1 for _ in drawn)
    wall = time.perf_counter() - started
    return count * batch / wall, steps * batch / (time.process_time() - begun + sum(spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--kinds", nargs="+", choices=("threads", "processes"), default=("threads", "processes"))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in args.forms:
            write_form(Path(folder) / form, form, args.images)
        cases = [
            (form, place, kind, workers)
            for form in args.forms
            for place in ("files", "memory")
            for workers in args.workers
            for kind in args.kinds
            if not (kind == "processes" and workers == 0)
        ]
        for case in [case for _ in range(args.turns) for case in cases]:
            form, place, kind, workers = case
            sampler = sampler_of(Path(folder) / form, args.crop, resident=place == "memory")
            speed, per_core = measure(sampler, kind, workers, args.batch, args.steps)
            best = found.setdefault(case, Row(*case, 0.0, 0.0))
            best.per_second, best.per_core = max(best.per_second, speed), max(best.per_core, per_core)
            if args.json:
                args.json.write_text(json.dumps([asdict(row) for row in found.values()], indent=1))
    print(f"{os.cpu_count()} cores, crops of {args.crop} x {args.crop} pixels, batches of {args.batch}")
    print("| form | from | workers | crops per second | per core |\n|---|---|---|---|---|")
    for row in found.values():
        workers = f"{row.workers} {row.kind}" if row.workers else "none"
        print(f"| {row.form} | {row.place} | {workers} | {row.per_second:.1f} | {row.per_core:.1f} |")


if __name__ == "__main__":
    main()
