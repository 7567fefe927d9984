"""Crops that lower precisions are tuned and judged on: of a run's training and validation parts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pixelwise.data.folder import find_images
from pixelwise.data.scenes import Crop, Scene
from pixelwise.data.split import open_split
from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.exporting.samples import Sample, Samples, find_samples
from pixelwise.geo.raster import RasterInfo, Window, clip_window
from pixelwise.inference.images import open_file
from pixelwise.runs.model_card import ModelCard
from pixelwise.runs.run_folder import open_finished_run

SIDE = 512
"""Of a crop, at most, where no size is given."""
JUDGED = 64
"""Crops of the validation part that a lower precision is judged on, at most."""
TRIES = 8
"""Places that are looked at for a crop with data."""
SEED = 0

ReadCrop = Callable[[Window], Crop]
Crops = list[Float32[np.ndarray, "C H W"]]


def calibration_crops(
    run: Path, card: ModelCard, size: tuple[int, int] | None, count: int, folder: Path | None
) -> tuple[Crops, str]:
    """Return crops in raw units, always the same ones for the same images, and what they are of.

    Args:
        size: height and width of the crops; None: up to `SIDE`, and up to the model's tile.
        count: how many; images take turns, and the places are drawn.
        folder: images to take instead of the run's training part.

    Raises:
        ConfigError: the training images are not there, or there is no run that names them.
        DataError: images that the model does not take.
    """
    if count < 1:
        raise ConfigError(f"Calibration needs at least one image, not {count}.")
    if folder is None:
        sources, told = _training_sources(run)
    else:
        sources, told = _folder_sources(folder, card), f"images of {folder}"
    rng, crops = np.random.default_rng(SEED), Crops()
    for number in range(count):
        info, read = sources[number % len(sources)]
        crops.append(_drawn(info, read, card, size, rng))
    return crops, f"{count} crops of {told}"


def judged_samples(run: Path, card: ModelCard, size: tuple[int, int] | None) -> Samples:
    """Return crops that cover the validation part, or are spread over it where it is large.

    Returns:
        what `find_samples` does where no validation images are at hand.
    """
    few = find_samples(run, card, size)
    try:
        kept, config = open_finished_run(run)
        _, split = open_split(config, kept=kept.split, may_be_gone=True)
        grid = [(scene, window) for scene in split.validation for window in _grid(scene.info, card, size)]
        if grid:
            step = -(-len(grid) // JUDGED)
            images = tuple(_sample(scene.read_padded(window), card) for scene, window in grid[::step])
            share = "" if step == 1 else f" (1 in {step})"
            return Samples(images, f"{len(images)} crops of the run's validation part{share}", few.resolution)
    except (PixelwiseError, OSError):
        # As in `find_samples`.
        pass
    return few


def _training_sources(run: Path) -> tuple[list[tuple[RasterInfo, ReadCrop]], str]:
    try:
        kept, config = open_finished_run(run)
    except ConfigError:
        raise ConfigError(
            f"int8 is calibrated on training images, and {run} is not a run that names them. Export the run, or give "
            "--calibration FOLDER with images like those of the training.",
            code="PW703",
        ) from None
    try:
        _, split = open_split(config, kept=kept.split, may_be_gone=True)
    except (PixelwiseError, OSError) as error:
        raise ConfigError(
            f"int8 is calibrated on the run's training images, which could not be read: {str(error).rstrip('.')}. "
            "Bring them back, or give --calibration FOLDER with images like them.",
            code="PW703",
        ) from None
    if not split.training:
        raise ConfigError(
            f"None of the training images of {run} is in {config.data.images} any more. Bring them back, or give "
            "--calibration FOLDER with images like them.",
            code="PW703",
        )
    return [(scene.info, _reader_of(scene)) for scene in split.training], "the run's training part"


def _reader_of(scene: Scene) -> ReadCrop:
    return scene.read_padded


def _folder_sources(folder: Path, card: ModelCard) -> list[tuple[RasterInfo, ReadCrop]]:
    if not folder.exists():
        raise ConfigError(
            f"There is no folder {folder} to calibrate on. Name one with images like the training ones.", code="PW703"
        )
    sources = list[tuple[RasterInfo, ReadCrop]]()
    for path in find_images(folder):
        reader = open_file(path, card)

        def read(window: Window, reader=reader) -> Crop:
            inside, rows, columns = clip_window(window, reader.info.height, reader.info.width)
            values, valid = reader.read(inside)
            values = np.pad(values, ((0, 0), rows, columns), mode="symmetric")
            valid = np.pad(valid, (rows, columns), constant_values=False)
            return Crop(values, valid, np.zeros(valid.shape, np.int16))

        sources.append((reader.info, read))
    if not sources:
        raise DataError(f"{folder} holds no images to calibrate on.", code="PW703")
    return sources


def _sides(info: RasterInfo, card: ModelCard, size: tuple[int, int] | None) -> tuple[int, int]:
    most = min(SIDE, card.tile)
    return size or (max(32, min(most, info.height)), max(32, min(most, info.width)))


def _drawn(
    info: RasterInfo, read: ReadCrop, card: ModelCard, size: tuple[int, int] | None, rng: np.random.Generator
) -> Float32[np.ndarray, "C H W"]:
    """Return a crop; if it holds no data, one of another place, some times."""
    height, width = _sides(info, card, size)
    values = np.empty(0, np.float32)
    for _ in range(TRIES):
        top, left = (
            int(rng.integers(0, max(1, length - side + 1)))
            for length, side in ((info.height, height), (info.width, width))
        )
        crop = read(Window(top, left, height, width))
        values = _sample(crop, card).values
        if crop.valid.any():
            break
    return values


def _grid(info: RasterInfo, card: ModelCard, size: tuple[int, int] | None) -> Sequence[Window]:
    """Return windows side by side that cover an image."""
    height, width = _sides(info, card, size)
    tops, lefts = (range(0, length, side) for length, side in ((info.height, height), (info.width, width)))
    return [Window(top, left, height, width) for top in tops for left in lefts]


def _sample(crop: Crop, card: ModelCard) -> Sample:
    mean = np.asarray(card.mean, np.float32)[:, None, None]
    return Sample(np.where(crop.valid, crop.values, mean).astype(np.float32), crop.mask)
