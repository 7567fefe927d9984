"""Run every benchmark at toy size, so that none of them rots.

    python benchmarks/toy.py [--only seams]

The figures mean nothing: each script only has to run to its end. They run in a copy of the repository's benchmarks and
docs, so the kept results stay as they are. A benchmark that needs root or a package that is not installed is left out,
and the output says so.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

ROOT = Path(__file__).parents[1]
SCENES = str(ROOT / "examples" / "fields" / "train")
PEERS = {"smp": "segmentation_models_pytorch", "onnxruntime": "onnxscript", "openvino": "onnxscript"}
"""Peer -> a package that it needs here; the file that the two runtimes run is written with onnxscript."""
MISSING = [peer for peer, module in PEERS.items() if importlib.util.find_spec(module) is None]
OPTIONAL = ("torchmetrics", "segmentation_models_pytorch")
"""Packages that a benchmark compares with, which the project does not install."""
TOY: dict[str, list[str]] = {
    "tables": [],
    "startup": ["--rounds", "1"],
    "class_map": ["--rounds", "1", "--size", "64", "--classes", "3", "--only", "b0", "--without", *MISSING],
    "choose": ["--measured", "measured.json"],
    "check": ["--images", "12", "--size", "64"],
    "costs": ["--only", "linknet", "--output", "costs.json"],
    "distributed": ["--steps", "2", "--without-ray"],
    "engine": ["--toy"],
    "evaluation": ["--images", "11", "--classes", "3", "--size", "32"],
    "example_model": ["--toy", "--run", "toy_run", "--output", "toy_model"],
    "exports": ["--json", "exports.json", "--network", "unet", "--to", "model.onnx"],
    "from_scratch": ["--seeds", "1", "--steps", "2"],
    "fuzz": ["--cases", "10"],
    "goldens": ["--only", "linknet"],
    "gpu": ["--device", "cpu", "--tiny", "--out", "gpu.jsonl"],
    "huge": [SCENES, "--sizes", "600"],
    "int8": ["--toy", "--only", "speed"],
    "kills": ["--kills", "1", "--height", "256", "--width", "600", "--polygonize", "1"],
    "kills_of_training": ["--kills", "1", "--runs", "1", "--stops", "1"],
    "large_scene_peers": [SCENES, "--sides", "600", "--rounds", "1"],
    "learns": ["--only", "linknet", "--steps", "1"],
    "loading": ["--images", "2", "--crop", "64", "--steps", "6", "--turns", "1", "--workers", "0", "1"],
    "loss": ["--steps", "1", "--threads", "1", "--size", "64"],
    "network_drawings": ["--only", "linknet"],
    "network_pages": [],
    "networks": ["--rounds", "1", "--size", "64", "--classes", "3", "--only", "linknet"],
    "overfit": ["pairs", "--steps", "1", "--side", "32", "--only", "linknet"],
    "power_cut": ["--cuts", "1", "--jobs", "polygonize"],
    "runtimes": [SCENES, "--side", "600", "--network", "small"],
    "seams": ["--steps", "2", "--scene", "small.tif"],
    "suspicious_labels": ["few", "--steps", "1", "--first", "5"],
    "time_to_score": [
        *("--data", "example=examples/fields", "--way", "plain", "--minutes", "0.01", "--threads", "1"),
        *("--seeds", "0", "--set", "train.crop_size=64"),
    ],
    "training_step": [
        "--network",
        "segformer-b0",
        "--repeats",
        "1",
        "--side",
        "64",
        "--without",
        *[peer for peer in MISSING if peer == "smp"],
    ],
}
"""Script -> its arguments. Not here: `paddle_class_map`, which needs an environment of its own."""


FIRST = ("tables", "network_pages", "choose")
"""Run before others change what they read; the rest run two at a time."""


def write_pairs(folder: Path) -> None:
    """Write four small images with masks."""
    generator = np.random.default_rng(0)
    for name, values in (("images", (32, 32, 3)), ("masks", (32, 32))):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 256 if name == "images" else 3, values, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def write_scene(path: Path) -> None:
    """Write a corner of an example scene."""
    with rasterio.open(sorted(Path(SCENES).glob("*.tif"))[0]) as source:
        values = source.read(window=((0, 320), (0, 320)))
        profile = {"driver": "GTiff", "count": len(values), "height": 320, "width": 320, "dtype": values.dtype}
        with rasterio.open(path, "w", crs=source.crs, transform=source.transform, **profile) as target:
            target.write(values)


def left_out(log: str) -> str | None:
    """Return the package that a benchmark stopped for want of, if that is why it stopped."""
    last = log.strip().splitlines()[-1] if log.strip() else ""
    return next((name for name in OPTIONAL if last == f"ModuleNotFoundError: No module named '{name}'"), None)


def runs(script: str, folder: Path) -> bool:
    """Run a benchmark, print how it ended, and return whether that was well."""
    started = time.monotonic()
    command = [sys.executable, f"benchmarks/{script}.py", *TOY[script]]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    package = left_out(done.stdout)
    said = f"left out, {package} is not installed" if package else "ok" if done.returncode == 0 else "FAILED"
    shown = done.stdout if said == "FAILED" else ""
    print(f"{script:20} {said} ({time.monotonic() - started:.0f} s)\n{shown}", end="", flush=True)
    return said != "FAILED"


def main() -> None:
    """Run them; leave with 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those with this in their names")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("benchmarks", "docs"):
            shutil.copytree(ROOT / part, folder / part)
        for part in ("examples", "tests", "src", "pyproject.toml"):
            (folder / part).symlink_to(ROOT / part)
        write_pairs(folder / "pairs")
        write_scene(folder / "small.tif")
        (folder / "few" / "scenes").mkdir(parents=True)
        for scene in sorted(Path(SCENES).glob("*.tif"))[:2]:
            (folder / "few" / "scenes" / scene.name).symlink_to(scene)
        (folder / "few" / "fields.gpkg").symlink_to(Path(SCENES).parent / "fields.gpkg")
        scripts = [script for script in TOY if only in script]
        first = [script for script in scripts if script in FIRST]
        failed = [script for script in first if not runs(script, folder)]
        rest = [script for script in scripts if script not in FIRST]
        with ThreadPoolExecutor(max_workers=2) as pool:
            ended = pool.map(lambda script: runs(script, folder), rest)
            failed += [script for script, fine in zip(rest, ended, strict=True) if not fine]
    if failed:
        sys.exit(f"These fail at toy size: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
