"""One scene mapped by torch, ONNX Runtime and OpenVINO: equal labels, time and memory. For `docs/export.md`.

    python benchmarks/runtimes.py SCENES --side 10000 [--run runs/fields] [--network segformer-b0] [--to onnx --to xml]

SCENES is a folder of 8-bit scenes of three bands, of which a scene of that side is laid (`benchmarks/huge.py`). With
``--run`` the model is that run's, whose bands must be these; else a fresh network. Each map is made by a process of its
own: its peak of resident memory is the system's word, and it says whether it has imported torch. Where labels differ,
the margin is that of the two best logits which torch gives there. Results are merged into `results/runtimes.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from huge import write_model, write_scene

RESULTS = Path(__file__).parent / "results" / "runtimes.json"
RUNTIMES = {"torch": "", "onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
"""Name -> suffix of the file that it maps with; torch maps with the run."""


def map_here(model: Path, scene: Path, output: Path) -> None:
    """Make the map, and print what it took."""
    import pixelwise as pw
    from pixelwise.fast.allocator import keep_freed_memory
    from pixelwise.mapping.capacity import peak_memory

    keep_freed_memory()
    started, clock = time.perf_counter(), time.process_time()
    predictor = pw.load(model, device="cpu")
    loaded = time.perf_counter() - started
    predictor.map_scene(scene, output)
    told = {
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - clock, 1),
        "seconds_to_load": round(loaded, 2),
        # Not by getrusage, which counts the memory of the process that started this one too.
        "peak_mb": round(peak_memory() / 1e6),
        "torch_imported": "torch" in sys.modules,
    }
    print(json.dumps(told))


def write_cells(model: Path, scene: Path, output: Path) -> None:
    """Write the blended logits of the scene as torch gives them, [K, rows, columns], and print the stride."""
    import pixelwise as pw
    from pixelwise.inference.augmented import output_stride
    from pixelwise.inference.fitting import open_fitting
    from pixelwise.inference.options import Fit, TileOptions
    from pixelwise.inference.tile_grid import plan_strips
    from pixelwise.inference.tiling import Tiling
    from pixelwise.mapping.pieces import Carry, Place, make_pieces, places

    predictor, options = pw.load(model, device="cpu"), TileOptions()
    reader, stride = open_fitting(scene, predictor.card, Fit()), output_stride(predictor.model)
    info = reader.info
    plan = plan_strips(info.height, info.width, *options.grid(predictor.card), stride)
    shape = (len(predictor.classes), *plan.cells.shape)
    cells = np.lib.format.open_memmap(output, "w+", np.float32, shape)
    tiling = Tiling(predictor.model, reader, predictor.card, plan, options)
    carries: dict[Place, Carry] = {}
    for place, piece, carry in make_pieces(tiling, places(plan), carries, cells=True):
        carries[place] = carry
        cells[:, *plan.piece(place).inside(plan.cells)] = piece.cells
    print(json.dumps({"stride": stride}))


def margins(cells: np.ndarray, stride: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return by how much the best logit of each of these pixels is above the second."""
    logits = np.zeros((len(cells), len(rows)))
    down, across = ((places + 0.5) / stride - 0.5 for places in (rows, columns))
    for i in (0, 1):
        for j in (0, 1):
            row, column = np.floor(down).astype(int) + i, np.floor(across).astype(int) + j
            share = (1 - np.abs(down - row)) * (1 - np.abs(across - column))
            inside = (row.clip(0, cells.shape[1] - 1), column.clip(0, cells.shape[2] - 1))
            logits += share * cells[:, *inside]
    best = np.sort(logits, axis=0)[-2:]
    return best[1] - best[0]


def compared(folder: Path, name: str, stride: int) -> dict:
    """Return how the map of a runtime differs from torch's."""
    labels = []
    for each in ("torch", name):
        with rasterio.open(folder / f"{each}.tif") as file:
            labels.append(file.read(1))
    apart = labels[0] != labels[1]
    told: dict = {"equal_labels": 1 - float(apart.mean()), "pixels_apart": int(apart.sum())}
    if apart.any():
        cells = np.load(folder / "cells.npy", mmap_mode="r")
        found = margins(cells, stride, *np.nonzero(apart))
        told |= {"largest_margin_apart": float(found.max()), "largest_logit": float(np.abs(cells).max())}
    return told


def run(task: str, *arguments: Path) -> dict:
    """Do a task in a process of its own, and return what it prints."""
    command = [sys.executable, __file__, "--task", task, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--run", type=Path, help="a run or a model folder")
    parser.add_argument("--network", default="segformer-b0")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--to", action="append", choices=[name for name in RUNTIMES if name != "torch"])
    parser.add_argument("--task", choices=["map", "cells"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        {"map": map_here, "cells": write_cells}[arguments.task](*arguments.scenes)
        return
    import pixelwise as pw

    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, model = folder / "scene.tif", arguments.run or folder / "model"
        write_scene(sorted(arguments.scenes[0].glob("*.tif")), scene, arguments.side, arguments.side)
        if arguments.run is None:
            write_model(model, arguments.network, arguments.classes)
        stride = run("cells", model, scene, folder / "cells.npy")["stride"]
        for runtime in ("torch", *(arguments.to or ["onnx", "openvino"])):
            source = model
            if runtime != "torch":
                source = folder / f"model{RUNTIMES[runtime]}"
                pw.export(model, source)
            told = run("map", source, scene, folder / f"{runtime}.tif")
            told |= {} if runtime == "torch" else compared(folder, runtime, stride)
            called = arguments.run.name if arguments.run else arguments.network
            rows[f"{called}, {arguments.side} x {arguments.side}, {runtime}"] = told
            print(runtime, json.dumps(told), flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
