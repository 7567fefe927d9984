"""What a run learns from: scenes of both parts, their statistics, and whether they changed since it began."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pixelwise.config import Config
from pixelwise.data.check import require_usable, survey
from pixelwise.data.scenes import Scene
from pixelwise.data.stats import BandStatistics, balanced_weights
from pixelwise.data.unlabelled import checksums
from pixelwise.errors import ConfigError
from pixelwise.labels import Classes

PARTS = ("training", "validation")
UNLABELLED = "unlabelled"
"""Images without labels, beside the parts."""


@dataclass(frozen=True)
class TrainingData:
    """Scenes that were read once from end to end."""

    classes: Classes
    training: list[Scene]
    validation: list[Scene]
    mean: tuple[float, ...]
    """Of each band over the valid training pixels, in raw units."""
    std: tuple[float, ...]
    class_pixels: tuple[int, ...]
    """Of the training part."""
    contents: dict[str, dict[str, list[int]]]
    """Part, or `UNLABELLED` -> scene -> checksums of its pixels and of its labels."""
    training_statistics: BandStatistics | None = None
    validation_statistics: BandStatistics | None = None
    """As they are today, to compare the parts; None where there is no validation part."""
    validation_pixels: tuple[int, ...] = ()
    """Of each class."""

    @property
    def record(self) -> dict:
        """What a run's state keeps of the data."""
        numbers = {"mean": list(self.mean), "std": list(self.std), "class_pixels": list(self.class_pixels)}
        return numbers | self.contents


def read_training_data(
    classes: Classes,
    training: Sequence[Scene],
    validation: Sequence[Scene],
    say: Callable[[str], None],
    unlabelled: Sequence[Scene] = (),
) -> TrainingData:
    """Read every pixel of both parts, and the files of images without labels.

    Raises:
        DataError: a file that does not work, or scenes that nothing can be learned from.
    """
    say(f"Reading {len(training)} training and {len(validation)} validation scenes.")
    found = survey(training, classes)
    require_usable(found, classes, "training")
    for note in found.notes:
        say(note)
    contents = {"training": found.contents, "validation": {}}
    other = None
    if validation:
        other = survey(validation, classes)
        require_usable(other, classes, "validation")
        contents["validation"] = other.contents
    if unlabelled:
        contents[UNLABELLED] = checksums(unlabelled)
    return TrainingData(
        classes,
        list(training),
        list(validation),
        tuple(float(mean) for mean in found.statistics.mean),
        tuple(float(std) for std in found.statistics.std),
        tuple(int(pixels) for pixels in found.class_pixels),
        contents,
        found.statistics,
        None if other is None else other.statistics,
        () if other is None else tuple(int(pixels) for pixels in other.class_pixels),
    )


def as_begun(data: TrainingData, record: dict, say: Callable[[str], None]) -> TrainingData:
    """Give data the statistics that a run began with, and say what has changed since.

    With new statistics the network would suddenly see other inputs.

    Args:
        record: `TrainingData.record` when the run began.
    """
    # States of earlier versions know nothing of images without labels.
    parts = [part for part in (*PARTS, UNLABELLED) if part in record and part in data.contents]
    changes = [change for part in parts for change in _changes(part, record[part], data.contents[part])]
    if changes:
        say(
            f"The data changed since the run began: {'; '.join(changes)}. The run goes on with what is there now, and "
            "with its first mean, deviation and class weights."
        )
    leaked = sorted((set(record["training"]) - set(record["validation"])) & set(data.contents["validation"]))
    if leaked:
        say(f"{_listed(leaked)} was in training and is in validation now, so the scores from here on are too good.")
    kept = {key: tuple(record[key]) for key in ("mean", "std", "class_pixels")}
    return replace(data, **kept)


def _changes(part: str, before: dict[str, list[int]], now: dict[str, list[int]]) -> list[str]:
    both = sorted(set(before) & set(now))
    found = (
        # A file without labels is not decoded for this.
        (
            "with other bytes" if part == UNLABELLED else "with other pixels",
            [name for name in both if before[name][0] != now[name][0]],
        ),
        ("with other labels", [name for name in both if before[name][1] != now[name][1]]),
        ("gone", sorted(set(before) - set(now))),
        ("new", sorted(set(now) - set(before))),
    )
    return [f"{part} scenes {what}: {len(names)} ({_listed(names)})" for what, names in found if names]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def require_weight_per_class(config: Config, classes: int) -> None:
    """Check that ``[train].class_weights``, if it is a list, has a number for each class.

    Raises:
        ConfigError: it has more or fewer.
    """
    weights = config.train.class_weights
    if isinstance(weights, list) and len(weights) != classes:
        raise ConfigError(
            f"[train].class_weights has {len(weights)} numbers for {classes} classes. Give one per class."
        )


def class_weights(config: Config, data: TrainingData, device: torch.device) -> Tensor | None:
    """Return what ``[train].class_weights`` asks for, a number per class; None for none.

    Raises:
        ConfigError: as `require_weight_per_class` says.
    """
    wanted = config.train.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        return torch.tensor(balanced_weights(np.array(data.class_pixels)), dtype=torch.float32, device=device)
    require_weight_per_class(config, len(data.classes))
    return torch.tensor(wanted, dtype=torch.float32, device=device)
