"""Makes the folders beside this file, with the code of commit 641485b. README.md says how."""

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

import pixelwise as pw
from pixelwise.jobs import train as job

HERE, PLACE = Path(__file__).parent, Path("/tmp/pixelwise-old")
"""Paths in the run's config.toml begin with PLACE; whoever copies the run puts its own place there."""
CONFIG = """
[data]
images = "images"
labels = "masks"
classes = ["dark", "bright"]
palette = ["#202020", "#f0f0f0"]
validation = 0.25

[model]
name = "unet"
options.filters = [4, 4, 4, 4, 8]

[train]
steps = 8
batch = 2
crop = 48
power = 0.9
clip = 2.0
average = 0.9
decoder_rate = 2.0
evaluate_every = 4
dice = 0.5
ohem = 0.5
ohem_keep = 500
workers = 0
device = "cpu"

[augment]
turn = true

[predict]
tile = 64
overlap = 0
"""


def make_data(folder: Path) -> None:
    """Four photos whose bright squares are one class."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(4):
        mask = np.kron(generator.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
        grey = 60 + 120 * mask + generator.integers(0, 4, mask.shape, dtype=np.uint8) * 8
        Image.fromarray(np.stack([grey, grey, 255 - grey], axis=-1)).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")


def stopped(*arguments: object) -> None:
    raise KeyboardInterrupt


def train(name: str) -> None:
    (PLACE / "data" / f"{name}.toml").write_text(f'{CONFIG.lstrip()}\n[run]\nfolder = "{PLACE / name}"\n')
    pw.train(PLACE / "data" / f"{name}.toml")


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    make_data(PLACE / "data")
    # To its end, for the model folder.
    train("whole")
    (PLACE / "whole" / "model").rename(PLACE / "model")
    labels = pw.load(PLACE / "model").segment(PLACE / "data" / "images" / "0.png").labels
    # Stopped in the sixth step, for the run folder: what is kept is from step 4.
    real, steps = job._loss, iter(range(5))
    job._loss = lambda *arguments: real(*arguments) if next(steps, None) is not None else stopped()
    with suppress(KeyboardInterrupt):
        train("run")
    (PLACE / "data" / "whole.toml").unlink()
    for name in ("data", "model", "run"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(PLACE / name, HERE / name, ignore=shutil.ignore_patterns("events*"))
    Image.fromarray(labels.astype(np.uint8)).save(HERE / "model" / "labels_of_0.png")


if __name__ == "__main__":
    main()
