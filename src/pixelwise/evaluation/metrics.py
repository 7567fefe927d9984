"""Scores: pure functions of one int64 confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer

from pixelwise.labels import IGNORE

CHUNK = 1 << 18
"""Pixels that are counted at a time: their copies in int64 stay within a core's cache."""


def confusion_matrix(
    truth: Integer[np.ndarray, "*s"], prediction: Integer[np.ndarray, "*s"], classes: int
) -> Int64[np.ndarray, "K K"]:
    """Count pixels by true class (rows) and predicted class (columns); `IGNORE` in the truth is left out.

    Matrices add: those of any partition of the pixels sum to that of the whole.

    Raises:
        ValueError: a value that is not a class.
    """
    assert truth.shape == prediction.shape, f"truth is {truth.shape}, prediction is {prediction.shape}"
    matrix = np.zeros((classes, classes), np.int64)
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, truth.size, CHUNK):
        part = slice(start, start + CHUNK)
        matrix += _count(flat_truth[part], flat_prediction[part], classes)
    return matrix


def _count(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    counted = truth != IGNORE
    row, column = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, values in (("truth", row), ("prediction", column)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(
                f"The {name} holds values from {values.min()} to {values.max()}, but there are {classes} classes. "
                f"Map other values to a class{f' or to {IGNORE} (ignored)' if name == 'truth' else ''}."
            )
    return np.bincount(row * classes + column, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScores:
    """Of one class, each from 0 to 1, or None where its denominator is 0."""

    name: str
    iou: float | None
    """Intersection over union; None only where neither truth nor prediction has the class."""
    precision: float | None
    """None where nothing was predicted as this class."""
    recall: float | None
    """None where the truth has no pixel of this class."""
    f1: float | None
    """Harmonic mean of precision and recall, 2 TP / (truth + predicted); None only where the class is absent."""
    pixels: int
    """Pixels of this class in the truth."""

    @property
    def absent(self) -> bool:
        """Neither truth nor prediction has the class."""
        return self.iou is None


@dataclass(frozen=True)
class Scores:
    """Of all classes together, each from 0 to 1 (kappa from -1), or None where nothing was counted."""

    classes: tuple[ClassScores, ...]
    miou: float | None
    """Mean IoU over the classes that truth or prediction has. One that is predicted but never true counts as 0."""
    pixel_accuracy: float | None
    mean_accuracy: float | None
    """Mean recall over the classes that the truth has."""
    frequency_weighted_iou: float | None
    """Mean IoU weighted by the classes' shares of the truth."""
    kappa: float | None
    """Cohen's kappa: agreement beyond that of chance; None too where chance agrees everywhere, in one class."""
    pixels: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(each.name for each in self.classes)

    def to_dict(self) -> dict:
        """Return what JSON can hold; None is null.

        ``absent`` lists the classes that neither truth nor prediction has, ``left_out`` those that each mean is not
        over.
        """
        return {
            "mIoU": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "frequency_weighted_IoU": self.frequency_weighted_iou,
            "kappa": self.kappa,
            "pixels": self.pixels,
            "absent": [each.name for each in self.classes if each.absent],
            "left_out": {
                "mIoU": [each.name for each in self.classes if each.iou is None],
                "mean_accuracy": [each.name for each in self.classes if each.recall is None],
            },
            "classes": {
                each.name: {
                    "IoU": each.iou,
                    "precision": each.precision,
                    "recall": each.recall,
                    "F1": each.f1,
                    "pixels": each.pixels,
                }
                for each in self.classes
            },
        }

    def rows(self) -> list[tuple[str, float | None, float | None, float | None, float | None, int]]:
        """Return one table row for each class: name, IoU, precision, recall, F1, pixels in the truth."""
        return [(each.name, each.iou, each.precision, each.recall, each.f1, each.pixels) for each in self.classes]


def scores(matrix: Int64[np.ndarray, "K K"], names: Sequence[str]) -> Scores:
    """Compute all scores of a confusion matrix whose rows are the truth."""
    assert len(names) == len(matrix), f"{len(names)} names for {len(matrix)} classes"
    right = np.diagonal(matrix).astype(np.float64)
    true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    union = true + predicted - right
    total = int(matrix.sum())
    classes = tuple(
        ClassScores(
            name=name,
            iou=_ratio(right[i], union[i]),
            precision=_ratio(right[i], predicted[i]),
            recall=_ratio(right[i], true[i]),
            f1=_ratio(2 * right[i], true[i] + predicted[i]),
            pixels=int(true[i]),
        )
        for i, name in enumerate(names)
    )
    # In floats from here on: products of counts overflow int64 for a country at 10 cm.
    chance = float((true / max(1, total)) @ (predicted / max(1, total)))
    agreed = _ratio(right.sum(), matrix.sum())
    weighted = [each.iou * each.pixels / total for each in classes if each.iou is not None and total]
    return Scores(
        classes=classes,
        miou=_mean([each.iou for each in classes]),
        pixel_accuracy=agreed,
        mean_accuracy=_mean([each.recall for each in classes]),
        frequency_weighted_iou=sum(weighted) if weighted else None,
        kappa=None if agreed is None or chance == 1 else (agreed - chance) / (1 - chance),
        pixels=total,
    )


def _ratio(part: float, whole: float | np.integer) -> float | None:
    return float(part / whole) if whole > 0 else None


def _mean(values: list[float | None]) -> float | None:
    counted = [value for value in values if value is not None]
    return sum(counted) / len(counted) if counted else None
