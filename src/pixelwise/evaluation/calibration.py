"""Calibration: whether a confidence of 0.8 is right in 80 of 100 pixels, and the temperature that makes it so.

Temperature scaling and the expected calibration error are those of Guo et al., On Calibration of Modern Neural
Networks (ICML 2017). Bins of equal mass: Nguyen and O'Connor, Posterior Calibration and Exploratory Analysis for
Natural Language Processing Models (EMNLP 2015). Risk against coverage and the area under it: Geifman, Uziel and
El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers (ICLR 2019).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from pixelwise.evaluation.pixel_sample import SampledPixels

FITTED_ON = "temperature_fitted_on"
"""Of the provenance in a model's card: what its temperature was fitted on; it is missing where none was."""
BINS = 15
"""Of confidence, as Guo et al. take them."""
COVERAGES = 100
"""Points of the curve of risk against coverage."""
COLDEST, HOTTEST = 1e-3, 1e3
"""Temperatures that are looked at."""
FEW_PIXELS = 1000
"""With fewer the temperature is rough, and that is said."""
_CHUNK = 1 << 20
"""Logits that are computed at once."""
_LOWEST = -1e4
"""A logit this far below the highest has no probability; lower ones would only overflow."""


@dataclass(frozen=True)
class Fit:
    """A temperature, and what it was fitted on."""

    temperature: float
    pixels: int
    labelled: int
    """Pixels that they were drawn from."""
    classes: int
    """That the truth of these pixels has."""
    notes: tuple[str, ...] = ()
    """Sentences on what makes it doubtful."""


@dataclass(frozen=True)
class Bins:
    """Pixels by confidence, from 0 to 1 in bins of equal width."""

    pixels: tuple[int, ...]
    confidence: tuple[float | None, ...]
    """Its mean; None in an empty bin."""
    accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class CalibrationScores:
    """How honest probabilities are at one temperature. None where no pixel counts."""

    temperature: float
    ece: float | None
    """Expected calibration error over 15 bins of equal width, 0 to 1: the mean distance of confidence and accuracy."""
    adaptive_ece: float | None
    """The same over 15 bins with equal numbers of pixels."""
    nll: float | None
    """Mean negative log-likelihood of the true class, in nats."""
    brier: float | None
    """Mean squared distance of all probabilities from the truth, summed over classes: 0 to 2 (Brier 1950)."""
    aurc: float | None
    """Area under the curve of risk against coverage, 0 to 1."""
    bins: Bins
    risk: tuple[float, ...]
    """Share of wrong pixels among the surest 1 %, 2 %, ... 100 %; empty where no pixel counts."""


@dataclass(frozen=True)
class Calibration:
    """What an evaluation found: before at temperature 1, after at the model's."""

    before: CalibrationScores
    after: CalibrationScores
    pixels: int
    labelled: int
    """Pixels that they were drawn from."""
    fitted_on: str
    """What the model's temperature was fitted on; empty: it was not fitted."""
    fitted_here: bool
    """It was fitted on these pixels, so that its scores flatter it."""

    def to_dict(self) -> dict:
        """Return what ``metrics.json`` keeps."""
        return asdict(self)


def calibration(sample: SampledPixels, temperature: float, *, fitted_on: str, fitted_here: bool) -> Calibration:
    """Score a sample of pixels at temperature 1 and at a model's."""
    before = calibration_scores(sample, 1.0)
    after = before if temperature == 1 else calibration_scores(sample, temperature)
    return Calibration(before, after, len(sample.truth), sample.labelled, fitted_on, fitted_here and bool(fitted_on))


def fit_temperature(sample: SampledPixels) -> Fit:
    """Return the temperature with the lowest negative log-likelihood of the truth.

    The likelihood is convex in 1/temperature, so Newton's steps between two bounds find the one minimum. Where there is
    none between `COLDEST` and `HOTTEST`, the temperature is 1 and a note says why.
    """
    truth, classes = sample.truth, len(np.unique(sample.truth))
    notes = []
    if not len(truth):
        return Fit(1.0, 0, sample.labelled, 0, ("No pixel is labelled, so nothing could be fitted.",))
    if len(truth) < FEW_PIXELS:
        notes.append(f"Only {len(truth)} pixels are labelled, so the temperature is rough.")
    if classes == 1:
        notes.append("The truth has one class alone, so the temperature says nothing of the others.")
    low, high = 1 / HOTTEST, 1 / COLDEST
    if _slopes(sample, high)[0] <= 0:
        notes.append("Nearly every pixel is right, so nothing says how sure is too sure: the temperature is left at 1.")
        return Fit(1.0, len(truth), sample.labelled, classes, tuple(notes))
    if _slopes(sample, low)[0] >= 0:
        notes.append("The network is hardly better than chance, so the temperature is left at 1.")
        return Fit(1.0, len(truth), sample.labelled, classes, tuple(notes))
    inverse = 1.0
    for _ in range(100):
        slope, bend = _slopes(sample, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        new = inverse - slope / bend if bend > 0 else low
        new = new if low < new < high else float(np.sqrt(low * high))
        done, inverse = abs(new - inverse) <= 1e-9 * inverse, new
        if done:
            break
    return Fit(float(1 / inverse), len(truth), sample.labelled, classes, tuple(notes))


def calibration_scores(sample: SampledPixels, temperature: float) -> CalibrationScores:
    """Score the probabilities of a sample of pixels at a temperature."""
    count = len(sample.truth)
    confidence, right = np.empty(count), np.empty(count, bool)
    losses, squares = np.empty(count), np.empty(count)
    for part, logits, truth in _parts(sample):
        scaled = logits / temperature
        shares = np.exp(scaled)
        total = shares.sum(axis=1)
        shares /= total[:, None]
        true = np.arange(len(truth)), truth
        confidence[part], right[part] = shares.max(axis=1), logits.argmax(axis=1) == truth
        losses[part] = np.log(total) - scaled[true]
        squares[part] = (shares**2).sum(axis=1) - 2 * shares[true] + 1
    bins, ece = _binned(confidence, right)
    # Pixels of equal confidence are in no order, so each counts as wrong as their mean.
    levels, level = np.unique(-confidence, return_inverse=True)
    sums, sizes = np.bincount(level, ~right, len(levels)), np.bincount(level, minlength=len(levels))
    wrong = (sums / np.maximum(1, sizes))[level][np.argsort(level, kind="stable")]
    risks = np.cumsum(wrong) / np.arange(1, count + 1)
    chosen = np.ceil(np.arange(1, COVERAGES + 1) * count / COVERAGES).astype(int) - 1
    return CalibrationScores(
        temperature=temperature,
        ece=ece,
        adaptive_ece=_adaptive_ece(np.sort(confidence)[::-1], wrong) if count else None,
        nll=float(losses.mean()) if count else None,
        brier=float(squares.mean()) if count else None,
        aurc=float(risks.mean()) if count else None,
        bins=bins,
        risk=tuple(risks[chosen].tolist()) if count else (),
    )


def _binned(confidence: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> tuple[Bins, float | None]:
    """Return the bins of equal width, each with its upper edge, and the expected calibration error."""
    index = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    pixels = np.bincount(index, minlength=BINS)
    sure, hit = (np.bincount(index, values, BINS) for values in (confidence, right))
    means = [
        tuple(float(total / size) if size else None for total, size in zip(sums, pixels, strict=True))
        for sums in (sure, hit)
    ]
    error = float(np.abs(hit - sure).sum() / len(confidence)) if len(confidence) else None
    return Bins(tuple(pixels.tolist()), means[0], means[1]), error


def _adaptive_ece(confidence: Float64[np.ndarray, " n"], wrong: Float64[np.ndarray, " n"]) -> float:
    """Return the expected calibration error over bins of equal mass; both are in the order of the confidence."""
    apart = [abs(float(part.sum())) for part in np.array_split(1 - wrong - confidence, BINS)]
    return sum(apart) / len(confidence)


def _slopes(sample: SampledPixels, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean negative log-likelihood by 1/temperature."""
    slope = bend = 0.0
    for _, logits, truth in _parts(sample):
        shares = np.exp(inverse * logits)
        shares /= shares.sum(axis=1, keepdims=True)
        mean = (shares * logits).sum(axis=1)
        slope += float((mean - logits[np.arange(len(truth)), truth]).sum())
        bend += float(((shares * logits**2).sum(axis=1) - mean**2).sum())
    return slope / len(sample.truth), bend / len(sample.truth)


def _parts(
    sample: SampledPixels,
) -> Iterator[tuple[slice, Float64[np.ndarray, "m K"], Int64[np.ndarray, " m"]]]:
    """Give the pixels in parts that fit a cache: where they are, logits less the highest of the pixel, and truth."""
    rows = max(1, _CHUNK // sample.logits.shape[1])
    for start in range(0, len(sample.truth), rows):
        part = slice(start, start + rows)
        logits: Float32[np.ndarray, "m K"] = sample.logits[part]
        below = np.maximum(logits.astype(np.float64) - logits.max(axis=1, keepdims=True), _LOWEST)
        yield part, below, sample.truth[part]
