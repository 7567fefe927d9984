"""Scenes of growing size: memory, time per pixel, and the speed of the network alone on tiles that are in memory.

    python benchmarks/huge.py SCENES --sides 5000 10000 20000 [--network small] [--classes 8]

SCENES is a folder of 8-bit scenes of three bands. Their crops, turned, mirrored, with other brightness and noise, are
laid side by side until the side is reached, so that no two places are equal. Each map is made by a process of its own,
whose peak resident memory is read from the system. "small" is U-Net's encoder with few filters under the all-MLP
decoder; any name of `pixelwise models` can be given instead. Results are merged into `results/huge.json`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

RESULTS = Path(__file__).parent / "results" / "huge.json"
BLOCK = 1000


def write_scene(sources: list[Path], path: Path, side: int) -> None:
    """Write a scene of SIDE x SIDE pixels, a row of blocks at a time."""
    generator = np.random.default_rng(side)
    images = [rasterio.open(source).read([1, 2, 3]) for source in sources]
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "photometric": "YCBCR"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "jpeg", "interleave": "pixel"}
    profile |= {"crs": "EPSG:32615", "transform": rasterio.transform.from_origin(5e5, 4.5e6, 1, 1), "bigtiff": "yes"}
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, side, BLOCK):
            rows = np.empty((3, BLOCK, -(-side // BLOCK) * BLOCK), np.uint8)
            for left in range(0, side, BLOCK):
                image = images[generator.integers(len(images))]
                row, column = generator.integers(0, (image.shape[1] - BLOCK + 1, image.shape[2] - BLOCK + 1))
                block = np.rot90(image[:, row : row + BLOCK, column : column + BLOCK], generator.integers(4), (1, 2))
                block = block[..., :: generator.choice((-1, 1))] * generator.uniform(0.8, 1.2)
                noise = generator.integers(-4, 5, (1, BLOCK, BLOCK), np.int8)
                rows[:, :, left : left + BLOCK] = (block + noise).clip(0, 255)
            height = min(BLOCK, side - top)
            file.write(rows[:, :height, :side], window=Window(0, top, side, height))


def write_model(folder: Path, network: str, classes: int) -> None:
    """Write a model folder with random weights."""
    import torch

    import pixelwise as pw
    from pixelwise.jobs.model_folder import ModelCard, save_model
    from pixelwise.labels import make_classes

    torch.manual_seed(0)
    if network == "small":
        filters = [4, 8, 16, 32, 32]
        model = pw.create("unet", classes=classes, decoder="all-mlp", decoder_channels=16, filters=filters)
    else:
        model = pw.create(network, classes=classes)
    names = make_classes([f"class {i}" for i in range(classes)])
    card = ModelCard(model.architecture, names, (1, 2, 3), "uint8", (110.0,) * 3, (35.0,) * 3, tile=512, overlap=128)
    save_model(folder, model, card)


def map_here(folder: Path) -> None:
    """Make the map, then run the network alone on one resident tile as often as the map has tiles; print both."""
    import pixelwise as pw
    from pixelwise.geo.tiles import tile_windows
    from pixelwise.jobs.tiling import averaged_logits, output_stride

    predictor = pw.load(folder / "model", device="cpu")
    started = time.perf_counter()
    made = predictor.map_scene(folder / "scene.tif", folder / "map.tif")
    mapped = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tiles = sum(len(row) for row in tile_windows(made.height, made.width, 512, 128))
    image = np.random.default_rng(0).standard_normal((1, 3, 512, 512), np.float32)
    stride = output_stride(predictor.model)
    started = time.perf_counter()
    for _ in range(60):
        averaged_logits(predictor.model, image, stride=stride, flips=False, scales=(1.0,))
    alone = (time.perf_counter() - started) / 60 * tiles
    print(json.dumps({"seconds": mapped, "peak_mib": peak, "tiles": tiles, "network_alone_seconds": alone}))


def main() -> None:
    """Write scenes, map them, print a line each and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10000])
    parser.add_argument("--network", default="small")
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        map_here(given.scenes)
        return
    sources = sorted(given.scenes.glob("*.tif"))
    for side in given.sides:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_scene(sources, folder / "scene.tif", side)
            write_model(folder / "model", given.network, given.classes)
            command = [sys.executable, __file__, str(folder), "--here"]
            found = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            )
            found["map_mib"] = (folder / "map.tif").stat().st_size / 2**20
        found["megapixels_per_second"] = side**2 / 1e6 / found["seconds"]
        found["share_of_network_alone"] = found["network_alone_seconds"] / found["seconds"]
        found |= {"classes": given.classes, "load": os.getloadavg()[0]}
        found = {key: round(value, 3) for key, value in found.items()}
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**kept, f"{given.network} {side}": found}, indent=1) + "\n", encoding="utf-8")
        print(f"{given.network} {side}: {found}", flush=True)


if __name__ == "__main__":
    main()
