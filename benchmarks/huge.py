"""Scenes of growing size: memory, time per pixel, and the speed of the network alone on tiles that are in memory.

    python benchmarks/huge.py SCENES --sizes 5000 10000 4000x40000 [--network small] [--classes 8]

SCENES is a folder of 8-bit scenes of three bands. Crops of them are turned, mirrored, made brighter or darker and given
noise, then laid side by side until the size is reached (a side, or HEIGHTxWIDTH). So no two places are equal. Each map
is made by a process of its own, and its peak of resident memory is read from the system. "small" is U-Net's encoder
with few filters under the all-MLP decoder; any name of `pixelwise models` can be given instead. Results are merged into
`results/huge.json`.

Seconds are those of the clock, and those of the processor in all threads. The former say little on a machine that
others work on. The network alone is measured in two ways: one tile after the other, each on all cores; and as many
tiles at once as there are cores (8 at most), as maps are made.
"""

import argparse
import json
import os
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
RUNS = 100
"""Of the network alone, before the map and after it."""


def write_scene(sources: list[Path], path: Path, height: int, width: int) -> None:
    """Write a scene, a row of blocks at a time."""
    generator = np.random.default_rng(height + width)
    images = [rasterio.open(source).read([1, 2, 3]) for source in sources]
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 3,
        "dtype": "uint8",
        "photometric": "YCBCR",
    }
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "jpeg", "interleave": "pixel"}
    profile |= {"crs": "EPSG:32615", "transform": rasterio.transform.from_origin(5e5, 4.5e6, 1, 1), "bigtiff": "yes"}
    with rasterio.open(path, "w", **profile) as file:
        for top in range(0, height, BLOCK):
            rows = np.empty((3, BLOCK, -(-width // BLOCK) * BLOCK), np.uint8)
            for left in range(0, width, BLOCK):
                image = images[generator.integers(len(images))]
                row, column = generator.integers(0, (image.shape[1] - BLOCK + 1, image.shape[2] - BLOCK + 1))
                block = np.rot90(image[:, row : row + BLOCK, column : column + BLOCK], generator.integers(4), (1, 2))
                block = block[..., :: generator.choice((-1, 1))] * generator.uniform(0.8, 1.2)
                noise = generator.integers(-4, 5, (1, BLOCK, BLOCK), np.int8)
                rows[:, :, left : left + BLOCK] = (block + noise).clip(0, 255)
            count = min(BLOCK, height - top)
            file.write(rows[:, :count, :width], window=Window(0, top, width, count))


def write_model(folder: Path, network: str, classes: int) -> None:
    """Write a model folder with random weights."""
    import torch

    import pixelwise as pw
    from pixelwise.labels import make_classes
    from pixelwise.runs.model_folder import ModelCard, save_model

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
    """Make the map, and run the network alone on a resident tile before and after it; print both."""
    import torch

    import pixelwise as pw
    from pixelwise.fast.allocator import keep_freed_memory
    from pixelwise.inference.augmented import averaged_logits, output_stride
    from pixelwise.inference.prefetch import read_ahead
    from pixelwise.inference.tile_grid import tile_windows
    from pixelwise.mapping.capacity import STREAMS, peak_memory, threads

    # As `map_scene` does, so that the network alone has the same memory before the map as after it.
    keep_freed_memory()
    predictor = pw.load(folder / "model", device="cpu")
    image = np.random.default_rng(0).standard_normal((1, 3, 512, 512), np.float32)
    stride, cores = output_stride(predictor.model), torch.get_num_threads()

    def alone(streams: int) -> np.ndarray:
        """A tile's share of the clocks, on a tile that is in memory, with as many at the same time."""

        def decode(_: int) -> None:
            averaged_logits(predictor.model, image, stride=stride, flips=False, scales=(1.0,))

        with threads(cores // streams):
            started = clocks()
            list(read_ahead(decode, range(RUNS), RUNS, threads=streams))
            return (clocks() - started) / RUNS

    # All cores for one tile, as a user would call the network, and a tile for each.
    ways = {"in_turn": 1, "at_once": min(cores, STREAMS)}
    for streams in ways.values():
        alone(streams)
    before = {way: alone(streams) for way, streams in ways.items()}
    started = clocks()
    made = predictor.map_scene(folder / "scene.tif", folder / "map.tif")
    mapped = clocks() - started
    # Not by getrusage, which counts the memory of the process that started this one too.
    peak = peak_memory() / 2**20
    tiles = sum(len(row) for row in tile_windows(made.height, made.width, 512, 128))
    found = {"peak_mib": peak, "tiles": tiles, "threads": cores}
    for way, streams in ways.items():
        network = (before[way] + alone(streams)) / 2 * tiles
        for i, name in enumerate(("seconds", "seconds_of_processors")):
            found |= {
                name: mapped[i],
                f"network_{way}_{name}": network[i],
                f"share_{way}_by_{name}": network[i] / mapped[i],
            }
    print(json.dumps(found))


def clocks() -> np.ndarray:
    """Seconds of the clock, and of all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Write scenes, map them, print a line each and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["5000", "10000"], help="a side, or HEIGHTxWIDTH, in pixels")
    parser.add_argument("--network", default="small")
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        map_here(given.scenes)
        return
    sources = sorted(given.scenes.glob("*.tif"))
    for size in given.sizes:
        height, width = map(int, size.split("x") if "x" in size else (size, size))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_scene(sources, folder / "scene.tif", height, width)
            write_model(folder / "model", given.network, given.classes)
            command = [sys.executable, __file__, str(folder), "--here"]
            found = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            )
            found["map_mib"] = (folder / "map.tif").stat().st_size / 2**20
        found["megapixels_per_second"] = height * width / 1e6 / found["seconds"]
        found |= {"classes": given.classes, "load": os.getloadavg()[0]}
        found = {key: round(value, 3) for key, value in found.items()}
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**kept, f"{given.network} {size}": found}, indent=1) + "\n", encoding="utf-8")
        print(f"{given.network} {size}: {found}", flush=True)


if __name__ == "__main__":
    main()
