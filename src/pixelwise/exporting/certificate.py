"""The proof that an exported file answers as the network that it was made from."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float32, Integer

from pixelwise.evaluation.metrics import confusion_matrix, scores
from pixelwise.exported.about import About, as_given
from pixelwise.exported.runtimes import Arrays
from pixelwise.exporting.samples import Samples
from pixelwise.geo.raster import normalize
from pixelwise.labels import label_dtype
from pixelwise.models import Segmenter
from pixelwise.upsampling import argmax_upsampled, upsample

DIFFERENCE = 1e-4
"""Largest difference that is allowed, as a share of the largest value."""
EQUAL_LABELS = 0.9999
"""Smallest share of equal labels that is allowed."""
LOSS = 0.01
"""Largest loss of mIoU that a lower precision may cost."""
EQUAL_LABELS_LOWERED = 0.99
"""Smallest share of equal labels of a lower precision, where no image is labelled."""
SHAPES = ((1, 32, 32), (1, 33, 47), (2, 64, 96), (1, 161, 129))
"""Batch, height and width of what is tried beside the samples themselves: the smallest, odd ones, a batch of two."""
KEPT = 1 << 28
"""Bytes of the network's answers that are kept for another file; the rest are computed again."""
SMALL = 64
"""Sides below it are tried, and where they alone differ they are not promised."""

Labels = Integer[np.ndarray, "B H W"]
Run = Callable[[np.ndarray], Arrays]
"""Takes an image as the file does, and returns outputs by name."""


@dataclass(frozen=True)
class Case:
    """One batch of images through both."""

    batch: int
    height: int
    width: int
    difference: float
    """Largest absolute difference of the outputs but labels."""
    largest: float
    """Largest finite absolute value that torch gave."""
    pixels: int
    equal: int
    """Pixels with equal labels."""
    error: str = ""
    """What the runtime said where it failed."""

    @property
    def small(self) -> bool:
        """A side is below `SMALL`."""
        return min(self.height, self.width) < SMALL

    @property
    def sound(self) -> bool:
        """Both gave the same, by `DIFFERENCE`; labels are judged over all cases."""
        return not self.error and self.difference <= DIFFERENCE * self.largest

    @property
    def whole(self) -> bool:
        """The file gave numbers, in the right shape. Of a lower precision no case asks for more."""
        return not self.error and np.isfinite(self.difference)


@dataclass(frozen=True)
class Lowered:
    """How a file of a lower precision was made."""

    precision: str
    calibrated_on: str
    """Images that ranges of values were read from; empty where none are needed."""
    kept_float: tuple[str, ...]
    """Layers that are float32 all the same, in words."""
    bytes: int
    """Of the file."""
    bytes_float32: int
    """Of the same file in float32."""
    processor: str
    """Instructions for the precision that the processor has which it was tried on."""
    allowed: bool = False
    """The user takes any loss."""


@dataclass(frozen=True)
class Certificate:
    """What was compared, and what came of it."""

    runtime: str
    """Its name and version."""
    made_by: str
    images: str
    """What was compared on."""
    cases: tuple[Case, ...]
    smallest_side: int
    """Of images for which this holds, in pixels."""
    miou_torch: float | None
    miou_export: float | None
    """On the labelled pixels of the samples; None where there are none."""
    labelled_pixels: int
    lowered: Lowered | None = None
    """None: float32."""

    @property
    def loss(self) -> float | None:
        """What the file's mIoU is below torch's, 0 to 1, negative where it is above; None where nothing is labelled."""
        if self.miou_torch is None or self.miou_export is None:
            return None
        return self.miou_torch - self.miou_export

    @property
    def difference(self) -> float:
        """The largest difference, as a share of the largest value of its case."""
        return max((case.difference / case.largest if case.largest else case.difference) for case in self.cases)

    @property
    def compared_labels(self) -> int:
        """Pixels whose labels were compared; none of a file that gives confidence alone."""
        return sum(case.pixels for case in self.cases)

    @property
    def equal_labels(self) -> float:
        """The share of equal labels over all cases."""
        return sum(case.equal for case in self.cases) / self.compared_labels if self.compared_labels else 1.0

    @property
    def sound(self) -> bool:
        """The file may be used."""
        if self.lowered is None:
            return all(case.sound for case in self.cases) and self.equal_labels >= EQUAL_LABELS
        if not all(case.whole for case in self.cases):
            return False
        cheap = self.equal_labels >= EQUAL_LABELS_LOWERED if self.loss is None else self.loss <= LOSS
        return cheap or self.lowered.allowed

    def worst(self) -> Case:
        """Return the case that speaks most against the file."""
        return max(self.cases, key=lambda case: (bool(case.error), case.difference / (case.largest or 1)))

    def to_dict(self) -> dict:
        """Return what ``certificate.json`` and the metadata hold."""
        lowered = {} if self.lowered is None else {**asdict(self.lowered), "loss": self.loss, "bound_of_loss": LOSS}
        bounds = {} if lowered else {"bound": DIFFERENCE, "bound_of_labels": EQUAL_LABELS}
        return {
            "runtime": self.runtime,
            "made_by": self.made_by,
            "images": self.images,
            "largest_difference": max(case.difference for case in self.cases),
            "largest_logit": max(case.largest for case in self.cases),
            "relative_difference": self.difference,
            "equal_labels": self.equal_labels if self.compared_labels else None,
            **bounds,
            **lowered,
            "smallest_side": self.smallest_side,
            "miou_torch": self.miou_torch,
            "miou_export": self.miou_export,
            "labelled_pixels": self.labelled_pixels,
            "cases": [asdict(case) for case in self.cases],
        }


def certify(
    run: Run,
    model: Segmenter,
    about: About,
    samples: Samples,
    *,
    runtime: str,
    made_by: str,
    known: dict[int, Arrays] | None = None,
) -> Certificate:
    """Compare a file with the network that it was made from.

    Args:
        run: the file.
        model: plain, in evaluation mode.
        runtime, made_by: names and versions.
        known: the network's answers by number of the batch, filled here, for another file of the same samples.
    """
    names = list(about.card.classes.names)
    cases, matrices = list[Case](), np.zeros((2, len(names), len(names)), np.int64)
    known = {} if known is None else known

    def compared(values: Float32[np.ndarray, "B C H W"]) -> tuple[Case, Labels, Labels | None]:
        number = len(cases)
        wanted = known.get(number) or expected(model, about, values)
        if sum(array.nbytes for answers in known.values() for array in answers.values()) < KEPT:
            known[number] = wanted
        return _compared(run, wanted, about, values)

    for values in _batches(samples, about):
        cases.append(compared(values)[0])
    for sample in samples.images:
        case, *labels = compared(sample.values[None])
        cases.append(case)
        for matrix, found in zip(matrices, labels, strict=True):
            if found is not None:
                matrix += confusion_matrix(sample.mask, found[0], len(names))
    smallest = 32 if about.options.size is None else min(about.options.size)
    exact = about.options.precision == "float32"
    wrong = [case for case in cases if not (case.sound if exact else case.whole)]
    if wrong and about.options.size is None and all(case.small for case in wrong):
        # The network's coarsest maps are a pixel there, for which it has rules of its own.
        cases, smallest = [case for case in cases if not case.small], SMALL
    labelled = int(matrices.sum(axis=(1, 2)).min())
    ours, theirs = (scores(matrix, names).miou if labelled else None for matrix in matrices)
    return Certificate(runtime, made_by, samples.source, tuple(cases), smallest, ours, theirs, labelled)


def _batches(samples: Samples, about: About) -> Iterator[Float32[np.ndarray, "B C H W"]]:
    """Cut images of several sizes out of the samples; of a fixed size, one batch of two."""
    whole = [sample.values for sample in samples.images]
    if about.options.size is not None:
        if not about.options.deepness:
            yield np.stack([whole[0], whole[-1]])
        return
    for batch, height, width in SHAPES:
        yield np.stack([_cut(whole[i % len(whole)], height, width) for i in range(batch)])


def _cut(image: Float32[np.ndarray, "C h w"], height: int, width: int) -> Float32[np.ndarray, "C H W"]:
    """Return the upper left of an image, mirrored where it is too small."""
    missing = [(0, max(0, side - there)) for side, there in zip((height, width), image.shape[1:], strict=True)]
    return np.pad(image, ((0, 0), *missing), mode="symmetric")[:, :height, :width]


def _compared(
    run: Run, wanted: Arrays, about: About, values: Float32[np.ndarray, "B C H W"]
) -> tuple[Case, Labels, Labels | None]:
    """Run one batch, and compare it with what the network gives.

    Returns:
        what came of it; the labels of torch; and those of the file, None if it gives nothing that they follow from.
    """
    batch, _, height, width = values.shape
    pixels = batch * height * width
    numbers = [name for name in about.options.outputs if name != "labels"]
    largest = max((_largest(wanted[name]) for name in numbers), default=0.0)
    try:
        found = run(as_given(values, about))
        difference = max((_difference(found[name], wanted[name]) for name in numbers), default=0.0)
        labels = labels_of(found, about, (height, width))
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        return Case(batch, height, width, float("inf"), largest, pixels, 0, reason), wanted["labels"], None
    if labels is None:
        return Case(batch, height, width, difference, largest, 0, 0), wanted["labels"], None
    same = labels.shape == wanted["labels"].shape
    equal = int((labels == wanted["labels"]).sum()) if same else 0
    return Case(batch, height, width, difference, largest, pixels, equal), wanted["labels"], labels if same else None


@torch.no_grad()
def expected(model: Segmenter, about: About, values: Float32[np.ndarray, "B C H W"]) -> Arrays:
    """Return all outputs as the network itself gives them, by the way that prediction takes."""
    if about.options.dtype != "float32":
        values = np.clip(np.rint(values), 0, np.iinfo(about.options.dtype).max).astype(np.float32)
    card, (height, width) = about.card, values.shape[2:]
    everywhere = np.ones((height, width), bool)
    images = torch.from_numpy(np.stack([normalize(one, everywhere, card.mean, card.std) for one in values]))
    logits, covered = model.decode(images).logits, model.padded_size((height, width))
    labels, shares = argmax_upsampled(
        logits, covered, confidence=True, temperature=card.temperature, align_corners=model.align_corners
    )
    assert shares is not None
    found = {
        "logits": logits.numpy(),
        "labels": labels[:, :height, :width].numpy(),
        "confidence": shares[:, :height, :width].numpy(),
    }
    if "probabilities" in about.options.outputs:
        full = upsample(logits, covered, align_corners=model.align_corners)[..., :height, :width]
        found["probabilities"] = (full / card.temperature).softmax(dim=1).numpy()
    return found


def labels_of(found: Arrays, about: About, size: tuple[int, int]) -> Labels | None:
    """Return the labels that a file gives for images of a size, or that follow from what it gives; else None."""
    if "labels" in found:
        return found["labels"]
    if "probabilities" in found:
        return found["probabilities"].argmax(axis=1).astype(label_dtype(len(about.card.classes)))
    if "logits" not in found:
        return None
    covered = (size[0] + -size[0] % about.multiple, size[1] + -size[1] % about.multiple)
    labels, _ = argmax_upsampled(torch.from_numpy(found["logits"]), covered, align_corners=about.align_corners)
    return labels[:, : size[0], : size[1]].numpy()


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    # Infinite logits that are equal do not differ.
    with np.errstate(invalid="ignore"):
        apart = np.abs(found.astype(np.float64) - wanted)
    return float(np.where(found == wanted, 0, np.nan_to_num(apart, nan=np.inf)).max())
