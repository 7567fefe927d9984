"""How often the warnings of a training come, and whether they are right: on runs that were made of real data.

* validation-unlike-training: on the runs' own splits; on splits of the same scenes drawn at random, where it should not
  come; and where the validation part is another data set, or has other units, and it should.
* rate-too-high: how far the loss rose above its start in each run's log.
* never-predicted: which runs said it, by their notes, and whether the class was still at an IoU of 0 in the end.

    python benchmarks/alarms.py runs/* --json benchmarks/results/alarms.json

Runs of the same images count as one data set.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import permutations
from pathlib import Path
from statistics import median

import numpy as np

from pixelwise.data.check import survey
from pixelwise.data.split import open_split
from pixelwise.data.stats import BandStatistics, merge_statistics
from pixelwise.errors import PixelwiseError
from pixelwise.runs.run_folder import Run, open_finished_run
from pixelwise.runs.run_notes import read_notes
from pixelwise.training.alarms import FIRST, LATER, rate_too_high, unlike_training

SHARE = 0.25
"""Of the scenes that a drawn validation part has."""
UNITS = {"0 to 1 instead of 0 to 255": 1 / 255, "0 to 65535 instead of 0 to 255": 257.0}

Part = tuple[BandStatistics, np.ndarray]


@dataclass
class Set:
    """What the scenes of a data set hold, one by one."""

    names: Sequence[str]
    bands: Sequence[int]
    training: list[Part]
    validation: list[Part]


def of_scenes(scenes: Sequence, classes) -> list[Part]:
    return [(found.statistics, found.class_pixels) for found in (survey([scene], classes) for scene in scenes)]


def joined(parts: Sequence[Part]) -> Part:
    return reduce(merge_statistics, (one for one, _ in parts)), np.sum([pixels for _, pixels in parts], axis=0)


def said(data: Set, training: Part, validation: Part) -> str | None:
    return unlike_training(data.names, training, validation, data.bands)


def drawn(data: Set, draws: int) -> int:
    """Return how many splits at random are called unlike."""
    rng, scenes, fired = np.random.default_rng(0), [*data.training, *data.validation], 0
    count = max(1, round(SHARE * len(scenes)))
    for _ in range(draws):
        order = rng.permutation(len(scenes))
        own, other = ([scenes[i] for i in part] for part in (order[count:], order[:count]))
        fired += said(data, joined(own), joined(other)) is not None
    return fired


def scaled(part: Part, factor: float) -> Part:
    own, pixels = part
    return BandStatistics(own.count, own.mean * factor, own.deviations * factor**2), pixels


def foreign(sets: dict[str, Set]) -> dict[str, list[int]]:
    """Return how many pairs of a set and another set's images are called unlike, by their bands alone, of how many."""
    told = {"images of another set": [0, 0], **{name: [0, 0] for name in UNITS}}
    for data in sets.values():
        own = joined(data.training)
        for name, factor in UNITS.items():
            if max(own[0].mean) > 1:
                told[name][0] += said(data, own, scaled(joined(data.validation), factor)) is not None
                told[name][1] += 1
    for one, other in permutations(sets.values(), 2):
        if len(one.bands) == len(other.bands):
            (own, _), (strange, _) = joined(one.training), joined(other.validation)
            told["images of another set"][0] += unlike_training((), (own, ()), (strange, ()), one.bands) is not None
            told["images of another set"][1] += 1
    return told


def risen(run: Run) -> tuple[float, bool]:
    """Return the largest ratio of the loss, by its median, to its start, and whether that was called too high."""
    losses = [row["loss"] for row in run.log if row.get("loss") is not None]
    first, fired, most = losses[:FIRST], False, 0.0
    for end in range(FIRST + LATER, len(losses) + 1):
        newest = losses[end - LATER : end]
        most = max(most, median(newest) / median(first))
        fired |= rate_too_high(first, newest, 1e-4) is not None
    return most, fired


def never(run: Run) -> dict | None:
    """Return what a run's notes say of classes that were never predicted, and the scores of these in the end."""
    notes = [note for note in read_notes(run.folder) if note.code == "never-predicted"]
    if not notes:
        return None
    newest = list(run.metrics.values())[-1] if run.metrics else {}
    scores = {name: each["IoU"] for name, each in newest.get("classes", {}).items() if f"'{name}'" in notes[0].text}
    return {"at step": notes[0].step, "IoU in the end": scores or "not evaluated"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--draws", type=int, default=200, help="splits at random for each data set")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sets, rows = dict[str, Set](), []
    for folder in options.runs:
        run, config = open_finished_run(folder)
        ratio, fired = risen(run)
        row = {"run": folder.parts[-3] if folder.name == "pixelwise" else folder.name, "steps": len(run.log)}
        row |= {"loss to its start": round(ratio, 2), "rate-too-high": fired}
        if (folder / "notes.jsonl").exists():
            row["never-predicted"] = never(run)
        try:
            classes, split = open_split(config, kept=run.split, may_be_gone=True)
            images = config.data.images
            key = str(images[0] if isinstance(images, list) else images)
            if split.training and split.validation:
                own = Set(classes.names, split.training[0].reader.bands, [], [])
                own.training, own.validation = (of_scenes(part, classes) for part in (split.training, split.validation))
                row["data"] = key
                row["unlike"] = said(own, joined(own.training), joined(own.validation))
                sets.setdefault(key, own)
        except PixelwiseError as problem:
            row["data"] = f"gone ({str(problem)[:80]})"
        rows.append(row)
        print(json.dumps(row), flush=True)
    splits = {key: drawn(data, options.draws) for key, data in sets.items() if len(data.training) >= 3}
    found = {"draws": options.draws, "called unlike": splits, "should be called unlike": foreign(sets), "runs": rows}
    print(json.dumps({key: value for key, value in found.items() if key != "runs"}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
