"""Small jobs that `kills.py` and `power_cut.py` interrupt: a training, a map, parcels.

As a command it does one of them, and goes on where an earlier process stopped:

    python benchmarks/interrupted_jobs.py training FOLDER OUT
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio

JOBS = ("training", "map", "polygonize")
STEPS, KEPT_EVERY = 16, 2


def prepare(folder: Path) -> None:
    """Write what the jobs read: images and masks, a model, a scene, a map of classes."""
    import torch

    import pixelwise as pw
    from pixelwise.labels import make_classes
    from pixelwise.runs.model_folder import ModelCard, save_model

    random_values = np.random.default_rng(0)
    for i in range(4):
        mask = np.kron(random_values.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
        image = (mask * 100 + random_values.integers(0, 100, (3, 64, 64))).astype(np.uint8)
        _write(folder / f"images/{i}.tif", image, east=i * 1000)
        _write(folder / f"masks/{i}.tif", mask[None], east=i * 1000)
    torch.manual_seed(0)
    model = pw.create("segformer-b0", classes=3, bands=3)
    classes = make_classes(["water", "field", "forest"])
    card = ModelCard(model.architecture, classes, (1, 2, 3), "uint8", (128.0,) * 3, (70.0,) * 3, tile=64, overlap=32)
    save_model(folder / "model", model, card)
    _write(folder / "scene.tif", random_values.integers(0, 256, (3, 768, 256), np.uint8))
    cells = np.kron(random_values.integers(0, 3, (150, 150)), np.ones((16, 16), np.uint8)).astype(np.uint8)
    _write(folder / "classes.tif", cells[None])


def _write(path: Path, values: np.ndarray, east: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(1, 0, 500_000 + east, 0, -1, 5_400_000)}
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **place
    ) as file:
        file.write(values)


def do(job: str, folder: Path, out: Path) -> None:
    """Do a job in this process; print when it begins, and each step of a training that is safe from then on."""
    import pixelwise as pw

    print("begun", flush=True)
    if job == "training":
        train(folder, out)
    elif job == "map":
        pw.load(folder / "model", device="cpu").map_scene(
            folder / "scene.tif", out / "map.tif", confidence=True, probabilities=True
        )
    else:
        pw.polygonize(folder / "classes.tif", out / "parcels.gpkg")
    print("done", flush=True)


def train(folder: Path, out: Path) -> None:
    import pixelwise as pw
    from pixelwise.config import Config

    settings = {"steps": STEPS, "batch": 1, "crop": 64, "evaluate_every": KEPT_EVERY, "workers": 0, "device": "cpu"}
    data = {"images": folder / "images", "labels": folder / "masks", "classes": ["dark", "bright"], "validation": 0.25}
    config = Config.model_validate(
        {
            "data": data,
            "model": {"name": "unet", "options": {"filters": [32, 64, 128], "batch_norm": True}},
            "train": settings,
            "predict": {"tile": 64, "overlap": 0},
            "run": {"folder": out / "run"},
        }
    )

    def report(event: object) -> None:
        step = getattr(event, "step", 0)
        if step and step % KEPT_EVERY == 0:
            print(f"kept {step}", flush=True)

    # The way of a scheduler: go on if there is anything.
    pw.train(config, resume=(out / "run").exists(), report=report)


def result(job: str, out: Path) -> str:
    """Return a digest of what a job made, whole or not at all; an error of any kind is a difference."""
    digest = hashlib.sha256()
    if job == "training":
        from pixelwise.runs.model_folder import load_model
        from pixelwise.runs.run_folder import Run

        load_model(out / "run")
        digest.update((out / "run/model/model.safetensors").read_bytes())
        state = Run(out / "run").load_last()
        assert state is not None
        for name, tensor in state["model"].items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        rows = [[row["step"], row["loss"], row.get("mIoU")] for row in Run(out / "run").log]
        digest.update(json.dumps(rows).encode())
    elif job == "map":
        for name in ("map.tif", "map.confidence.tif", "map.probabilities.tif", "map.qml"):
            digest.update((out / name).read_bytes())
    else:
        import pyogrio

        _, _, shapes, columns = pyogrio.raw.read(out / "parcels.gpkg")
        digest.update(b"".join(shapes) + repr([column.tolist() for column in columns]).encode())
    return digest.hexdigest()


def start(job: str, folder: Path, out: Path, said: Path) -> subprocess.Popen[bytes]:
    """Begin a job in a process of its own, whose words go to a file."""
    with said.open("wb") as file:
        return subprocess.Popen([sys.executable, __file__, job, str(folder), str(out)], stdout=file)


def wait_for_moment(
    process: subprocess.Popen[bytes], said: Path, out: Path, seconds: float, moments: random.Random
) -> None:
    """Wait until a random moment of a job's work; half of the moments lie within the writing of a file."""
    while process.poll() is None and b"begun" not in said.read_bytes():
        time.sleep(0.01)
    until = time.monotonic() + moments.uniform(0, seconds)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    if moments.random() < 0.5:
        until = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < until and not any(out.rglob(".*.pixelwise*")):
            time.sleep(0.0005)


def kept_step(said: Path) -> int:
    """Return the last step that a training said to be safe."""
    return max((int(line.split()[1]) for line in said.read_text().splitlines() if line.startswith("kept")), default=0)


def stored_step(out: Path) -> int:
    """Return the step of the state that a training would go on from."""
    from pixelwise.runs.run_folder import Run

    state = Run(out / "run").load_last() if (out / "run").exists() else None
    return state["step"] if state else 0


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    do(arguments.job, arguments.folder, arguments.out)
