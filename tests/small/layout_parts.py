"""What layouts of published sets are made of."""

from pathlib import Path

import numpy as np
from PIL import Image
from small_folders import SHAPE, Made

PARTS = (("train", 5), ("val", 2), ("test", 2))


COLOURS = {"Animal": (64, 128, 64), "Road": (128, 64, 128), "Tree": (128, 128, 0), "Void": (0, 0, 0)}


def without(made: Made, *stems: str) -> Made:
    """Forget images that no configuration should name, such as those of a test."""
    for stem in stems:
        made.truth.pop(stem, None)
    return made


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def box_of(made: Made, stem: str, top: int = 8, left: int = 16, height: int = 32, width: int = 40) -> list[list[int]]:
    """Draw a rectangle of class 1 on class 0, and return its outline in pixels."""
    mask = np.zeros(SHAPE, np.int16)
    mask[top : top + height, left : left + width] = 1
    made.truth[stem] = mask
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


def write_jpeg(path: Path, values: np.ndarray, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, quality=quality)
