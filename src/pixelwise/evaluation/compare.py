"""Runs side by side: their scores on the same pixels, and whether a difference is more than noise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pixelwise.config import Config
from pixelwise.errors import ConfigError
from pixelwise.evaluation.blocks import (
    BLOCK,
    BlockCounts,
    drawn_ious,
    interval,
    ious,
    load_blocks,
    mean_iou,
    unit_of,
)
from pixelwise.evaluation.names import VALIDATION
from pixelwise.runs.changed_settings import same_value
from pixelwise.runs.run_folder import Run, open_finished_run

FEWEST = 5
"""With fewer units to draw, an interval says nothing."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """A share from 0 to 1, and what 95 % of the draws lie between; None where it is not known."""

    value: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """A score less that of the first run, from -1 to 1; the draws are the same for both."""

    value: float | None
    interval: Interval | None

    @property
    def more_than_noise(self) -> bool | None:
        """Whether the interval leaves 0 out; None where there is none."""
        return None if self.interval is None else not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class ComparedRun:
    """One run, scored on the pixels that all have."""

    name: str
    folder: Path
    miou: Score
    classes: dict[str, Score]
    miou_difference: Difference | None
    """To the first run; None for the first itself."""
    class_differences: dict[str, Difference]
    loss: tuple[tuple[int, float], ...]
    """Steps and losses of the log."""
    validation: tuple[tuple[int, float], ...]
    """Steps and mIoUs of the evaluations in training."""
    seconds: float | None
    """That training took."""


@dataclass(frozen=True)
class Comparison:
    """Several runs on the same pixels."""

    evaluation: str
    runs: tuple[ComparedRun, ...]
    scenes: int
    units: int
    """What was drawn for the intervals: so many scenes or blocks."""
    unit: str
    """What they are, in the plural."""
    left_out: int
    """Scenes that only some of the runs were scored on."""
    settings: dict[str, tuple[object, ...]]
    """Keys of the configurations that differ, with each run's value."""
    seeds: tuple[tuple[str, ...], ...]
    """Names of runs that differ in nothing but the seed."""
    learned: tuple[tuple[str, int], ...] = ()
    """Runs that learned from some of the scenes, or from the same ground, and from how many."""

    @property
    def drawn(self) -> str:
        """What was drawn for the intervals, in words."""
        one = self.unit.replace("scenes", "scene").replace("blocks", "block")
        return f"{self.units} {self.unit if self.units != 1 else one}"

    def notes(self) -> list[str]:
        """Return sentences on what the figures do not say."""
        found = []
        if self.left_out:
            found.append(f"{self.left_out} scenes were scored for some of the runs only, and are left out.")
        for name, count in self.learned:
            found.append(
                f"{name} learned from {count} of the {self.scenes} scenes, or on their ground: that flatters it."
            )
        if self.units < FEWEST:
            verb = "is" if self.units == 1 else "are"
            found.append(f"{self.drawn} {verb} too few for intervals. Score on more scenes.")
        for names in self.seeds:
            values = [run.miou.value for run in self.runs if run.name in names and run.miou.value is not None]
            if values:
                found.append(
                    f"{' and '.join(names)} differ in their seed alone: mIoU {min(values):.3f} to {max(values):.3f}. "
                    "A difference to another run that is no larger may be chance."
                )
        if not self.seeds:
            found.append(
                "The intervals say what other ground would change, not what another seed would: train with a second "
                "[train].seed to see that."
            )
        return found

    def to_dict(self) -> dict:
        """Return what JSON can hold."""
        runs = []
        for run in self.runs:
            told = {key: value for key, value in asdict(run).items() if key not in ("loss", "validation", "folder")}
            if run.miou_difference is not None:
                told["more_than_noise"] = run.miou_difference.more_than_noise
            runs.append({**told, "folder": str(run.folder)})
        return {
            "evaluation": self.evaluation,
            "scenes": self.scenes,
            "units": self.units,
            "unit": self.unit,
            "settings": {key: [str(value) for value in values] for key, values in self.settings.items()},
            "runs": runs,
            "notes": self.notes(),
        }


def compare(folders: Sequence[str | Path], *, evaluation: str = VALIDATION) -> Comparison:
    """Compare runs by an evaluation that all have, on the scenes that all were scored on.

    Intervals are of the block bootstrap (`evaluation.blocks.drawn_ious`).

    Args:
        folders: of runs; differences are to the first.
        evaluation: its name in each run, such as 'validation' or 'test'.

    Raises:
        ConfigError: fewer than two runs, one that was not evaluated so, other classes, no common scene, or another
            truth for the same scene.
    """
    if len(folders) < 2:
        raise ConfigError("Name at least two runs to compare.")
    opened = [open_finished_run(folder) for folder in folders]
    names = _short_names([run.folder for run, _ in opened])
    classes = [tuple(config.data.classes) for _, config in opened]
    for name, each in zip(names, classes, strict=True):
        if each != classes[0]:
            raise ConfigError(
                f"{name} has the classes {', '.join(each)}, and {names[0]} has {', '.join(classes[0])}. Compare runs "
                "of the same classes in the same order.",
                code="PW614",
            )
    counts = [_counts(run, evaluation) for run, _ in opened]
    shared, left_out = _shared(counts, names)
    units = len(set(unit_of(shared[0]).tolist()))
    unit = "scenes" if units == len(set(shared[0].scenes)) else f"blocks of {BLOCK}x{BLOCK} pixels"
    drawn = drawn_ious(shared) if units >= FEWEST else [None] * len(shared)
    runs = tuple(
        _compared(name, run, classes[0], (each, shared[0]), (draws, drawn[0]))
        for name, (run, _), each, draws in zip(names, opened, shared, drawn, strict=True)
    )
    configs = [config for _, config in opened]
    scenes = set(shared[0].scenes)
    learned = [
        (name, len(scenes & set(run.metrics[evaluation].get("learned", ()))))
        for name, (run, _) in zip(names, opened, strict=True)
    ]
    return Comparison(
        evaluation,
        (replace(runs[0], miou_difference=None, class_differences={}), *runs[1:]),
        scenes=len(scenes),
        units=units,
        unit=unit,
        left_out=left_out,
        settings=_different_settings(configs),
        seeds=_seeds(names, configs),
        learned=tuple((name, count) for name, count in learned if count),
    )


def _compared(
    name: str,
    run: Run,
    classes: tuple[str, ...],
    blocks: tuple[BlockCounts, BlockCounts],
    draws: tuple[np.ndarray | None, np.ndarray | None],
) -> ComparedRun:
    """Score one run; ``blocks`` and ``draws`` are its own and those of the first run."""
    own, first = (ious(each.right.sum(0), each.truth.sum(0), each.predicted.sum(0)) for each in blocks)
    mean, first_mean = float(mean_iou(own)), float(mean_iou(first))
    drawn, first_drawn = draws
    means = None if drawn is None else mean_iou(drawn)
    changes = None if drawn is None or first_drawn is None else drawn - first_drawn
    mean_changes = None if drawn is None or first_drawn is None else mean_iou(drawn) - mean_iou(first_drawn)
    log = run.log
    return ComparedRun(
        name=name,
        folder=run.folder,
        miou=Score(_known(mean), None if means is None else interval(means)),
        classes={
            each: Score(_known(own[i]), None if drawn is None else interval(drawn[:, i]))
            for i, each in enumerate(classes)
        },
        miou_difference=Difference(_known(mean - first_mean), None if mean_changes is None else interval(mean_changes)),
        class_differences={
            each: Difference(_known(own[i] - first[i]), None if changes is None else interval(changes[:, i]))
            for i, each in enumerate(classes)
        },
        loss=_curve(log, "loss"),
        validation=_curve(log, "mIoU"),
        seconds=next((row["seconds"] for row in reversed(log) if row.get("seconds") is not None), None),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _curve(log: Sequence[dict], key: str) -> tuple[tuple[int, float], ...]:
    return tuple((row["step"], row[key]) for row in log if row.get(key) is not None and np.isfinite(row[key]))


def _short_names(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    if len(set(map(str, (folder.resolve() for folder in folders)))) < len(folders):
        raise ConfigError("A run is named twice. Name each run once.")
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _counts(run: Run, evaluation: str) -> BlockCounts:
    path = run.blocks(evaluation)
    if evaluation in run.metrics and path.exists():
        return load_blocks(path)
    has = ", ".join(run.metrics) or "none"
    raise ConfigError(
        f"{run.folder} has no evaluation {evaluation!r} that can be compared (it has: {has}). Score it with `pixelwise "
        f"evaluate {run.folder}`; versions before 0.2 did not keep what a comparison needs.",
        code="PW614",
    )


def _shared(counts: Sequence[BlockCounts], names: Sequence[str]) -> tuple[list[BlockCounts], int]:
    """Return the counts of the scenes that all have, in one order, and how many scenes are left out."""
    common = set.intersection(*(set(each.scenes) for each in counts))
    every = set.union(*(set(each.scenes) for each in counts))
    if not common:
        raise ConfigError(
            f"{' and '.join(names)} were scored on no common scene. Score each on the same data: `pixelwise evaluate "
            "RUN DATA.toml --name shared`, then compare with --evaluation shared.",
            code="PW614",
        )
    shared = []
    for each in counts:
        keys = [(scene, *place) for scene, place in zip(each.scenes, each.places.tolist(), strict=True)]
        order = sorted((i for i, key in enumerate(keys) if key[0] in common), key=lambda i: keys[i])
        shared.append(each.chosen(order))
    for name, each in zip(names[1:], shared[1:], strict=True):
        if each.scenes != shared[0].scenes or not np.array_equal(each.truth, shared[0].truth):
            raise ConfigError(
                f"The truth of the scenes of {name} is not that of {names[0]}: labels, ignored values, sizes of "
                "scenes, or the blocks of ground that are in this part differ. Score both on the same data: `pixelwise "
                "evaluate RUN DATA.toml --name shared`.",
                code="PW614",
            )
    return shared, len(every - common)


def _flat(config: Config) -> dict[str, object]:
    tables = config.model_dump(mode="json")
    return {f"[{name}].{key}": value for name, table in tables.items() if name != "run" for key, value in table.items()}


def _different_settings(configs: Sequence[Config]) -> dict[str, tuple[object, ...]]:
    flat = [_flat(config) for config in configs]
    return {
        key: tuple(each.get(key) for each in flat)
        for key in flat[0]
        if not all(same_value(each.get(key), flat[0][key]) for each in flat[1:])
    }


def _seeds(names: Sequence[str], configs: Sequence[Config]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, dict[str, int]] = {}
    for name, config in zip(names, configs, strict=True):
        same = {key: value for key, value in _flat(config).items() if key != "[train].seed"}
        groups.setdefault(repr(sorted(same.items())), {})[name] = config.train.seed
    # Copies of a run say nothing of other seeds.
    return tuple(tuple(group) for group in groups.values() if len(set(group.values())) > 1)
