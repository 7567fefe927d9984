"""What the borders of tiles leave in a map: labels that change when the grid of tiles is shifted by half a tile.

A map should not depend on where the tiles lie. Each way of tiling maps a scene on two grids; the second one is shifted
by half a tile down and right. The labels are compared near the borders of either grid, and inside its tiles. The ways:

* blend: weights that fall to the rim, as pixelwise does it (`--overlap` pixels are shared);
* none: tiles side by side, no overlap;
* crop: overlapping tiles of which only the centre is kept.

    python benchmarks/seams.py                 # trains a network on the example fields first, which takes minutes
    python benchmarks/seams.py --model runs/demo --scene scene.tif --tile 256 --overlap 64
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

import pixelwise as pw
from pixelwise.geo.raster import RasterReader, Window
from pixelwise.inference.images import ArrayReader
from pixelwise.inference.options import TileOptions
from pixelwise.inference.tile_grid import GRID
from pixelwise.inference.tiling import predict_strips
from pixelwise.predictor import Predictor

NEAR = 16
"""Pixels on either side of a border that count as near it."""


def blended(predictor: Predictor, reader: ArrayReader, tile: int, overlap: int) -> np.ndarray:
    """Labels as pixelwise makes them."""
    strips = predict_strips(predictor.model, reader, predictor.card, TileOptions(tile, overlap))
    return np.concatenate([strip.labels for strip in strips])


def cropped(predictor: Predictor, reader: ArrayReader, tile: int, overlap: int) -> np.ndarray:
    """Labels of tiles whose rim of half the overlap is cut off, except at the scene's edge; overlap 0: side by side."""
    height, width = reader.info.height, reader.info.width
    labels = np.zeros((height, width), np.uint8)
    rim, step = overlap // 2, tile - overlap
    for top in range(0, max(1, height - overlap), step):
        for left in range(0, max(1, width - overlap), step):
            up, beside = min(top, height - tile), min(left, width - tile)
            window = Window(up, beside, tile, tile)
            part = ArrayReader(*reader.read(window))
            found = np.concatenate(
                [s.labels for s in predict_strips(predictor.model, part, predictor.card, TileOptions(tile, 0))]
            )
            first, second = (top + rim if top else 0), (left + rim if left else 0)
            labels[first : up + tile, second : beside + tile] = found[first - up :, second - beside :]
    return labels


def borders(length: int, tile: int, overlap: int) -> np.ndarray:
    """Which pixels along an axis lie near the edge of a kept part of a tile."""
    near = np.zeros(length, bool)
    for start in range(tile - overlap + overlap // 2, length, tile - overlap):
        near[start - NEAR : start + NEAR] = True
    return near


def changed(
    make: Callable[[ArrayReader, int, int], np.ndarray],
    reader: ArrayReader,
    tile: int,
    overlap: int,
    borders: Callable[[int, int, int], np.ndarray] = borders,
) -> dict:
    """Run one way on two grids; return the shares of labels that differ."""
    height, width = reader.info.height, reader.info.width
    shift = tile // 2 // GRID * GRID
    # Both grids see the same pixels: the second starts half a tile further in, and the rest is left out.
    first = make(reader, tile, overlap)[shift : height - shift, shift : width - shift]
    inner = ArrayReader(*reader.read(Window(shift, shift, height - shift, width - shift)))
    second = make(inner, tile, overlap)[: height - 2 * shift, : width - 2 * shift]
    rows = borders(height, tile, overlap)[shift : height - shift]
    columns = borders(width, tile, overlap)[shift : width - shift]
    rows |= borders(height - 2 * shift, tile, overlap)
    columns |= borders(width - 2 * shift, tile, overlap)
    near = rows[:, None] | columns[None, :]
    # The edge of the second grid's own scene is no border between tiles.
    near[: tile // 2, :] = near[:, : tile // 2] = False
    counted = np.ones_like(near)
    counted[: tile // 2, :] = counted[:, : tile // 2] = False
    other = first != second
    return {
        "along borders": float(other[near].mean()),
        "inside": float(other[counted & ~near].mean()),
        "all": float(other[counted].mean()),
    }


def trained(steps: int) -> Path:
    """Train a small network on the example fields; return its run."""
    folder = Path(__file__).parents[1] / "runs/seams"
    if not (folder / "model/model.toml").exists():
        config = pw.load_config(Path(__file__).parents[1] / "examples/fields.toml")
        train = config.train.model_copy(update={"steps": steps})
        run = config.run.model_copy(update={"folder": folder})
        pw.train(config.model_copy(update={"train": train, "run": run}), report=lambda event: None)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a run or a model folder; trained on the examples if not given")
    parser.add_argument("--steps", type=int, default=150, help="of the training, where there is no --model")
    parser.add_argument("--scene", type=Path, action="append", help="a scene; give it several times")
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args()
    predictor = pw.load(options.model or trained(options.steps), device="cpu")
    examples = sorted((Path(__file__).parents[1] / "examples").rglob("*.tif"))
    scenes = (
        options.scene or [path for path in examples if RasterReader(path).info.count == len(predictor.card.bands)][:4]
    )
    results = {}
    with torch.no_grad():
        for way in ("blend", "crop", "none"):
            found = []
            for scene in scenes:
                whole = RasterReader(scene, bands=predictor.card.bands)
                area = Window(0, 0, whole.info.height // GRID * GRID, whole.info.width // GRID * GRID)
                make = partial(blended if way == "blend" else cropped, predictor)
                overlap = 0 if way == "none" else options.overlap
                found.append(changed(make, ArrayReader(*whole.read(area)), options.tile, overlap))
            results[way] = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
            shares = ", ".join(f"{key} {value:.3%}" for key, value in results[way].items())
            print(f"{way:6} {shares}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"tile": options.tile, "overlap": options.overlap, **results}, indent=1))


if __name__ == "__main__":
    main()
