"""What training images were: range of values, ground resolution, colours. It travels with a model."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from pixelwise.data.footprints import pixel_metres
from pixelwise.data.scenes import Scene
from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo, Readable, Window

SCENES = 64
"""Training scenes that are looked at, evenly over all."""
SIDE, ACROSS = 64, 3
"""Windows of a scene: so many of this side in each direction."""
FEWEST = 8
"""Scenes from which the colours of photos are told."""
SLACK = (0.02, 0.05, 0.01)
"""Added to the deviation of each colour trait, since few scenes look more alike than they are."""


@dataclass(frozen=True)
class Contract:
    """What an image must be like, so that a network sees what it has learned from."""

    low: tuple[float, ...]
    """1st percentile of each band, in raw units."""
    high: tuple[float, ...]
    """99th percentile of each band, in raw units."""
    pixel: float | None = None
    """Median side of a pixel in metres; None where training images have no place on the ground."""
    traits: tuple[float, ...] = ()
    """Mean colour traits (`colour_traits`) of the scenes; empty where there are too few, or not three bands."""
    trait_spread: tuple[tuple[float, ...], ...] = ()
    """Inverse of their covariance."""

    @property
    def top(self) -> float:
        """The largest 99th percentile of a band."""
        return max(self.high)


def contract_of(scenes: Sequence[Scene]) -> Contract | None:
    """Look at windows of some scenes; None where no pixel holds data."""
    sampled, traits, metres = [], [], []
    for scene in scenes[:: max(1, -(-len(scenes) // SCENES))]:
        try:
            values = sample(scene.reader)
        except DataError:
            # The survey has named it.
            continue
        if values.shape[1]:
            sampled.append(values)
            traits += [colour_traits(values)] if len(values) == 3 else []
        if (size := pixel_metres(scene.info)) is not None:
            metres.append(size)
    if not sampled:
        return None
    low, high = np.percentile(np.concatenate(sampled, axis=1), (1, 99), axis=1)
    kept = [each for each in traits if each is not None]
    mean, spread = _spread(np.array(kept)) if len(kept) >= FEWEST else ((), ())
    return Contract(
        tuple(map(float, low)), tuple(map(float, high)), float(np.median(metres)) if metres else None, mean, spread
    )


def sample(reader: Readable) -> Float64[np.ndarray, "C n"]:
    """Return the values of pixels with data in a grid of windows."""
    info = reader.info
    found = []
    for window in sample_windows(info):
        values, valid = reader.read(window)
        found.append(values[:, valid].astype(np.float64))
    return np.concatenate(found, axis=1)


def sample_windows(info: RasterInfo) -> Iterable[Window]:
    """Return windows over an image, the same each time."""
    height, width = min(SIDE, info.height), min(SIDE, info.width)
    tops = sorted({round(i * (info.height - height) / (ACROSS - 1)) for i in range(ACROSS)})
    lefts = sorted({round(i * (info.width - width) / (ACROSS - 1)) for i in range(ACROSS)})
    return [Window(top, left, height, width) for top in tops for left in lefts]


def colour_traits(values: Shaped[np.ndarray, "3 n"]) -> Float64[np.ndarray, " 3"] | None:
    """Return three numbers that change their sign when the first and the last band change places.

    They compare both bands' means, their deviations, and how they go with the middle band. None for grey photos.
    """
    pixels = values.astype(np.float64)
    mean, deviation = pixels.mean(axis=1), pixels.std(axis=1)
    if pixels.shape[1] < 100 or deviation.min() <= 0 or mean[0] + mean[2] == 0 or (pixels[0] == pixels[2]).all():
        return None
    together: np.ndarray = np.asarray(np.corrcoef(pixels))
    apart = (mean[0] - mean[2]) / (mean[0] + mean[2])
    return np.array([apart, math.log(deviation[0] / deviation[2]), together[0, 1] - together[2, 1]])


def looks_reversed(values: Shaped[np.ndarray, "3 n"], contract: Contract) -> bool:
    """Return whether an image fits the training images clearly better with its first and last band exchanged.

    Squared Mahalanobis distances are compared: as it stands at least 12 more than reversed, and reversed below 9. On
    269 training photos and scenes of five kinds, each held against the others, no image was taken for a reversed one.
    """
    if not contract.traits or (seen := colour_traits(values)) is None:
        return False
    spread, mean = np.array(contract.trait_spread), np.array(contract.traits)
    as_is, reversed_ = (float((each - mean) @ spread @ (each - mean)) for each in (seen, -seen))
    return as_is - reversed_ > 12 and reversed_ < 9


def _spread(traits: Float64[np.ndarray, "n 3"]) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    covariance = np.cov(traits.T) + np.diag(np.square(SLACK))
    inverse = np.linalg.inv(covariance)
    return tuple(traits.mean(axis=0).tolist()), tuple(tuple(row) for row in inverse.tolist())


TOPS = (1.0, 255.0, 10_000.0, 65_535.0)
"""Where common units end: reflectance, 8 bits, reflectance times 10,000, 16 bits."""


def unit_top(dtype: str, low: float, high: float) -> float | None:
    """Return where the units of values end, one of `TOPS`; None where no common unit is like them.

    Args:
        low, high: 1st and 99th percentile.
    """
    kind = np.dtype(dtype)
    if kind.kind in "ub" and kind.itemsize == 1:
        return 255.0
    if low < -0.1 * abs(high) or high <= 0:
        return None
    if kind.kind == "f":
        return next((top for top in TOPS if high <= top * (1.6 if top != 255.0 else 1.0)), None)
    return 255.0 if high <= 255 else 10_000.0 if high <= 20_000 else 65_535.0
