"""What looks wrong while a run trains, from numbers alone, and what to do about it."""

from collections.abc import Sequence
from statistics import median

import numpy as np
from jaxtyping import Int64

from pixelwise.data.stats import BandStatistics

EVALUATIONS = 3
"""A class counts as never predicted after so many evaluations in a row without a pixel of it ..."""
TRAINED = 0.5
"""... and this share of the steps."""
APART = 1.5
"""Means of a band that lie farther apart than this, in standard deviations of the training part, are unlike."""
SPREAD = 4.0
"""So are deviations of which one is so many times the other."""
SHARES = 0.4
"""So are the shares of a class that lie this far apart, ..."""
TIMES = 20.0
"""... or of which one is so many times the other, if it is at least ..."""
LEAST = 0.05
"""... this."""
FIRST, LATER = 10, 25
"""Steps whose losses, by their median, are the start and the present."""
RISEN, RISEN_BY = 2.0, 0.5
"""The loss is far above its start at so many times of it, and so much more."""


def never_predicted(
    names: Sequence[str], matrices: Sequence[Int64[np.ndarray, "K K"]], class_pixels: Sequence[int], trained: float
) -> str | None:
    """Say which classes of the validation part no evaluation has predicted for a while.

    Args:
        matrices: of the newest evaluations, the newest last; rows are the truth.
        class_pixels: of the training part. A class without any cannot be learned, and is not named here.
        trained: share of the steps that are made, 0 to 1.
    """
    if len(matrices) < EVALUATIONS or trained < TRAINED:
        return None
    predicted = np.sum([matrix.sum(axis=0) for matrix in matrices[-EVALUATIONS:]], axis=0)
    true = matrices[-1].sum(axis=1)
    missing = [i for i in range(len(names)) if true[i] and class_pixels[i] and not predicted[i]]
    if not missing:
        return None
    told = ", ".join(f"{names[i]!r} ({class_pixels[i] / sum(class_pixels):.2%})" for i in missing)
    return (
        f"The last {EVALUATIONS} evaluations predicted no pixel of {told}; in brackets, the share of the labelled "
        "training pixels. More steps may be enough. Else train again with [sampling].balanced = true, which aims crops "
        "at rare classes, or [train].class_weights = 'balanced'."
    )


def unlike_training(
    names: Sequence[str],
    training: tuple[BandStatistics, Sequence[int]],
    validation: tuple[BandStatistics, Sequence[int]],
    bands: Sequence[int],
) -> str | None:
    """Say how the pixels or the classes of the validation part differ from those of the training part.

    Args:
        training, validation: the statistics of the bands, and the pixels of each class.
        bands: their numbers in the file.
    """
    (own, own_pixels), (other, other_pixels) = training, validation
    said = []
    for i, band in enumerate(bands):
        apart = abs(other.mean[i] - own.mean[i]) / own.std[i]
        spread = max(other.std[i], own.std[i]) / max(min(other.std[i], own.std[i]), 1e-12)
        if apart > APART or spread > SPREAD:
            said.append(
                f"band {band} is {other.mean[i]:.4g} ± {other.std[i]:.4g} there and {own.mean[i]:.4g} ± "
                f"{own.std[i]:.4g} in training"
            )
    for name, here, there in zip(names, own_pixels, other_pixels, strict=True):
        share, shown = here / max(1, sum(own_pixels)), there / max(1, sum(other_pixels))
        most, least = max(share, shown), min(share, shown)
        if most - least > SHARES or (most >= LEAST and most > TIMES * least):
            said.append(f"{name!r} is {shown:.1%} of the labelled pixels there and {share:.1%} in training")
    if not said:
        return None
    more = f", and {len(said) - 3} more" if len(said) > 3 else ""
    return (
        f"The validation part is unlike the training part: {'; '.join(said[:3])}{more}. Its scores then say little of "
        "what the network learns. Mix the scenes of both parts ([data].split, `pixelwise split`), or name validation "
        "images that are like those the model is for."
    )


def rate_too_high(first: Sequence[float], newest: Sequence[float], rate: float) -> str | None:
    """Say that the loss has risen far above its start.

    Args:
        first: losses of the run's first `FIRST` steps.
        newest: of its newest `LATER` steps, none of which is among the first.
        rate: of the encoder, as it is in effect.
    """
    if len(first) < FIRST or len(newest) < LATER:
        return None
    start, now = median(first), median(newest)
    if now < RISEN * start or now < start + RISEN_BY:
        return None
    return (
        f"The loss has risen from {start:.3g} at the start to {now:.3g}, so the learning rate is probably too high. "
        f"Train again with [train].learning_rate = {rate / 5:.1g} (it is {rate:.3g})."
    )
