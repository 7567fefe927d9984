"""Statistics of bands and classes, streamed."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped


@dataclass(frozen=True)
class BandStatistics:
    """Count, mean and sum of squared deviations of each band over valid pixels, in raw units."""

    count: int
    mean: Float64[np.ndarray, " C"]
    deviations: Float64[np.ndarray, " C"]

    @property
    def std(self) -> Float64[np.ndarray, " C"]:
        """Standard deviation of each band; 1 for a band that is constant, which has no scale of its own."""
        std = np.sqrt(self.deviations / max(1, self.count))
        return np.where(std > 0, std, 1.0)


def no_statistics(bands: int) -> BandStatistics:
    """Return the statistics of no pixel at all."""
    return BandStatistics(0, np.zeros(bands), np.zeros(bands))


def statistics_of(values: Shaped[np.ndarray, "C h w"], valid: Bool[np.ndarray, "h w"]) -> BandStatistics:
    """Return the statistics of one window."""
    pixels = values[:, valid].astype(np.float64)
    if pixels.shape[1] == 0:
        return no_statistics(len(values))
    mean = pixels.mean(axis=1)
    return BandStatistics(pixels.shape[1], mean, ((pixels - mean[:, None]) ** 2).sum(axis=1))


def merge_statistics(a: BandStatistics, b: BandStatistics) -> BandStatistics:
    """Join the statistics of two sets of pixels (Chan, Golub and LeVeque 1983, eq. 2.1)."""
    count = a.count + b.count
    if count == 0:
        return a
    apart = b.mean - a.mean
    return BandStatistics(
        count,
        a.mean + apart * (b.count / count),
        a.deviations + b.deviations + apart**2 * (a.count * b.count / count),
    )


def balanced_weights(pixels: Int64[np.ndarray, " K"]) -> Float64[np.ndarray, " K"]:
    """Return a weight per class, the inverse root of its frequency, with mean 1 over the pixels that exist.

    The root keeps a class of one pixel in a thousand from drowning the others. A class without pixels weighs 1.
    """
    share = pixels / max(1, pixels.sum())
    present = share > 0
    weights = np.ones(len(pixels))
    weights[present] = share[present] ** -0.5
    weights[present] /= (weights * share)[present].sum()
    return weights
