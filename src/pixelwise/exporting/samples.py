"""Images that an export is checked on: of the run's validation part, or noise where that is not at hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int16

from pixelwise.data.scenes import Scene
from pixelwise.data.split import open_split
from pixelwise.errors import PixelwiseError
from pixelwise.geo.coordinates import pixels_to_metres
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE
from pixelwise.runs.model_card import ModelCard
from pixelwise.runs.run_folder import open_finished_run

COUNT = 4
"""How many images."""
SIDE = 256
"""Of an image, at most, where its size is not given."""


@dataclass(frozen=True)
class Sample:
    """An image in raw units, and the class of each pixel where that is known."""

    values: Float32[np.ndarray, "C H W"]
    """Where there is no data, the mean."""
    mask: Int16[np.ndarray, "H W"]
    """`IGNORE` where nothing is known."""


@dataclass(frozen=True)
class Samples:
    """Images, what they are, and the ground that a pixel covers where that is known."""

    images: tuple[Sample, ...]
    source: str
    resolution: float | None = None
    """Metres."""


def find_samples(run: Path, card: ModelCard, size: tuple[int, int] | None) -> Samples:
    """Return images of a run's validation part; noise for a model folder, or where the data are gone.

    Args:
        size: height and width of the images; None: up to `SIDE`.
    """
    try:
        kept, config = open_finished_run(run)
        _, split = open_split(config, kept=kept.split, may_be_gone=True)
        chosen = _spread(split.validation)
        if chosen:
            images = tuple(_centre(scene, card, size) for scene in chosen)
            return Samples(images, "the run's validation part", _resolution(chosen[0]))
    except (PixelwiseError, OSError):
        # The model alone was copied, or the data are elsewhere: noise proves the same, but scores nothing.
        pass
    return Samples(tuple(_noise(card, size, seed) for seed in range(COUNT)), "noise (no validation images at hand)")


def _spread(scenes: list[Scene]) -> list[Scene]:
    step = max(1, len(scenes) // COUNT)
    return scenes[::step][:COUNT]


def _centre(scene: Scene, card: ModelCard, size: tuple[int, int] | None) -> Sample:
    full = (scene.info.height, scene.info.width)
    height, width = size or (max(32, min(SIDE, full[0])), max(32, min(SIDE, full[1])))
    crop = scene.read_padded(Window((full[0] - height) // 2, (full[1] - width) // 2, height, width))
    mean = np.asarray(card.mean, np.float32)[:, None, None]
    return Sample(np.where(crop.valid, crop.values, mean).astype(np.float32), crop.mask)


def _noise(card: ModelCard, size: tuple[int, int] | None, seed: int) -> Sample:
    height, width = size or (SIDE, SIDE)
    drawn = np.random.default_rng(seed).standard_normal((len(card.bands), height, width))
    values = drawn * np.array(card.std)[:, None, None] + np.array(card.mean)[:, None, None]
    if np.dtype(card.dtype).kind in "iu":
        limits = np.iinfo(card.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return Sample(values.astype(np.float32), np.full((height, width), IGNORE, np.int16))


def _resolution(scene: Scene) -> float | None:
    """Return the side of a pixel in metres, in the middle of a scene."""
    try:
        middle = np.array([[scene.info.width / 2, scene.info.height / 2]])
        return float(np.sqrt(abs(np.linalg.det(pixels_to_metres(scene.info, middle)[0]))))
    except PixelwiseError:
        return None
