"""Time and memory of `pixelwise check` on many small images, and of a second check after ten of them changed.

    python benchmarks/check.py --images 10000 --size 512 --folder /tmp/many --output benchmarks/results/check.json

Images are JPEGs, masks PNGs of four classes; both are drawn from random shapes and noise. Each check runs in a process
of its own, which reports its time and its largest memory. What is in the folder is used again, so the drawing and the
checks can be separate calls.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = """[data]
images = "images"
labels = "masks"
classes = ["a", "b", "c", "d"]
"""


def draw(folder: Path, number: int, size: int, seed: int = 0) -> None:
    """Write one image and its mask."""
    rng = np.random.default_rng([seed, number])
    height = Image.fromarray(rng.normal(size=(6, 6)).astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    mask = np.digitize(np.asarray(height), [-0.5, 0.0, 0.5]).astype(np.uint8)
    noise = rng.integers(0, 40, (size, size, 3), np.uint8)
    colours = rng.integers(20, 210, (4, 3)).astype(np.uint8)
    Image.fromarray(colours[mask] + noise).save(folder / "images" / f"{number:06d}.jpg", quality=90)
    Image.fromarray(mask).save(folder / "masks" / f"{number:06d}.png", compress_level=1)


def fill(folder: Path, images: int, size: int) -> None:
    """Draw what is not there yet."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    there = {int(path.stem) for path in (folder / "masks").iterdir()}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda i: draw(folder, i, size), sorted(set(range(images)) - there)))
    (folder / "many.toml").write_text(CONFIG)


def check(folder: Path) -> None:
    """Run one check and print what it took as JSON."""
    from pixelwise.config import load_config
    from pixelwise.data.doctor import examine

    started = time.perf_counter()
    found = examine(load_config(folder / "many.toml"), stride=4, cache=folder / "facts.jsonl")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    codes = sorted({finding.code for finding in found.findings})
    print(json.dumps({"seconds": seconds, "peak_MiB": peak, "read": found.read, "codes": codes}))


def checked(folder: Path) -> dict:
    """Run one check in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--check", str(folder)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, images: int, size: int) -> dict:
    """Check everything, then again after ten images changed."""
    fill(folder, images, size)
    kept = folder / "first.json"
    if not kept.exists():
        (folder / "facts.jsonl").unlink(missing_ok=True)
        kept.write_text(json.dumps(checked(folder)))
    first = json.loads(kept.read_text())
    unchanged = checked(folder)
    changed = min(10, images)
    for number in range(changed):
        draw(folder, number, size, seed=1 + int(time.time()))
    second = checked(folder)
    share = second["seconds"] / first["seconds"]
    return {
        "images": images,
        "size": size,
        "changed": changed,
        "first": first,
        "unchanged": unchanged,
        "second": second,
        "second_over_first": share,
    }


def main() -> None:
    """Measure at one or several numbers of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="where images are drawn and kept; default: a temporary folder")
    parser.add_argument("--draw", action="store_true", help="draw the images, and check nothing")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    if options.check is not None:
        check(options.check)
        return
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for images in options.images:
            folder = (options.folder or Path(temporary)) / str(images)
            if options.draw:
                fill(folder, images, options.size)
                continue
            rows.append(measure(folder, images, options.size))
            print(json.dumps(rows[-1]), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
