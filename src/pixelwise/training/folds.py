"""Networks that judge labels they have not learned from: each is trained on all folds but one."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelwise.config import Config, DataConfig
from pixelwise.data.scenes import Scene
from pixelwise.data.split import BlockPart, Split, open_split, touches, write_split
from pixelwise.data.split_lists import PARTS
from pixelwise.data.split_ways import scene_groups
from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, replacing
from pixelwise.runs.run_folder import Run
from pixelwise.training.train import Progress, Say, train


@dataclass(frozen=True)
class Fold:
    """A run, and the scenes of a configuration that it has not learned from."""

    run: Run
    judged: Split
    """In the parts of the configuration's own split."""


def train_folds(
    config: Config, count: int, folder: Path, *, advance: Callable[[str, float], None] | None = None
) -> list[Fold]:
    """Train a network for each fold of a configuration's data, on all other folds, as its ``[train]`` says.

    Runs that were stopped go on. Finished ones are used again as long as configuration and labels stay as they are.

    Args:
        count: how many folds, 2 or more.
        folder: of the runs; those of other data that are there are removed.
        advance: called with what is done and the share of it, 0 to 1.

    Raises:
        ConfigError: fewer places than folds; and as `train` says.
    """
    _, split = open_split(config)
    divided = divide_in_folds(split, config.data, count, seed=config.train.seed)
    _keep_place(folder, _digest(config, count))
    folds = []
    for number, (learned, judged) in enumerate(divided, start=1):
        lists, run = folder / f"split{number}", Run(folder / f"fold{number}")
        held = [scene for part in PARTS for scene in getattr(judged, part)]
        write_split(lists, config.data.model_copy(update={"validation_images": None}), Split(learned, held, []))
        if not _is_finished(run, config.train.steps):
            started = (run.folder / "config.toml").exists()
            report = _as_stage(f"Training network {number} of {count}", advance)
            train(_for_fold(config, lists, run.folder), resume=started, report=report)
        folds.append(Fold(run, judged))
    if config.data.validation_images is not None:
        # No fold has learned from these.
        folds[0].judged.validation.extend(split.validation)
    return folds


def _as_stage(stage: str, advance: Callable[[str, float], None] | None) -> Say:
    def report(event: Progress | str) -> None:
        if advance is not None and isinstance(event, Progress):
            advance(stage, event.step / event.steps)

    return report


def divide_in_folds(split: Split, data: DataConfig, count: int, *, seed: int) -> list[tuple[list[Scene], Split]]:
    """Return for each fold the scenes to learn from, and those to judge; scenes that share ground stay together.

    Raises:
        ConfigError: fewer groups of scenes, or blocks, than folds.
    """
    rng = np.random.default_rng([seed, 0xF01D])
    own = {part: list[Scene](getattr(split, part)) for part in PARTS}
    if data.validation_images is not None:
        own["validation"] = []
    if data.split == "block":
        return _block_folds(own, count, rng)
    scenes = [scene for part in PARTS for scene in own[part]]
    groups = scene_groups(scenes, data)
    _require_enough(len(groups), count, "groups of scenes that share no ground")
    area, fold_of = np.zeros(count), dict[int, int]()
    sizes = [sum(scenes[i].info.height * scenes[i].info.width for i in group) for group in groups]
    # The largest first, so that the small ones make the folds equal.
    for g in sorted(rng.permutation(len(groups)).tolist(), key=lambda g: -sizes[g]):
        fold = int(area.argmin())
        area[fold] += sizes[g]
        fold_of |= {id(scenes[i]): fold for i in groups[g]}
    return [
        (
            [scene for scene in scenes if fold_of[id(scene)] != fold],
            Split(**{part: [scene for scene in own[part] if fold_of[id(scene)] == fold] for part in PARTS}),
        )
        for fold in range(count)
    ]


def _block_folds(own: dict[str, list[Scene]], count: int, rng: np.random.Generator) -> list[tuple[list[Scene], Split]]:
    blocks = {block for scenes in own.values() for scene in scenes for block in _block_part(scene).blocks}
    _require_enough(len(blocks), count, "blocks of ground")
    fold_of = dict(zip(sorted(blocks), (rng.permutation(len(blocks)) % count).tolist(), strict=True))
    everything = {scene.name: scene for part in PARTS for scene in own[part]}.values()
    divided = []
    for fold in range(count):
        inside = frozenset(block for block, other in fold_of.items() if other == fold)
        judged = {part: [_cut(scene, _block_part(scene).blocks & inside) for scene in own[part]] for part in PARTS}
        learned = [_cut(scene, frozenset(fold_of) - inside) for scene in everything]
        divided.append((_touched(learned), Split(**{part: _touched(scenes) for part, scenes in judged.items()})))
    return divided


def _block_part(scene: Scene) -> BlockPart:
    assert isinstance(scene.part, BlockPart)
    return scene.part


def _cut(scene: Scene, blocks: frozenset) -> Scene:
    return Scene(scene.name, scene.reader, scene.labels, part=BlockPart(_block_part(scene).grid, blocks))


def _touched(scenes: Sequence[Scene]) -> list[Scene]:
    return [scene for scene in scenes if touches(scene, _block_part(scene))]


def _require_enough(there: int, count: int, what: str) -> None:
    if there < count:
        raise ConfigError(
            f"{count} folds need {count} {what}, and the data has {there}. Ask for fewer with --folds.", code="PW310"
        )


def _for_fold(config: Config, lists: Path, run: Path) -> Config:
    """Return the configuration of a fold: its lists, and one evaluation, of what it has not learned from."""
    named = {"training_list": lists / PARTS["training"], "test_list": None, "split_table": None}
    if config.data.validation_images is None:
        named["validation_list"] = lists / PARTS["validation"]
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=named),
            "train": config.train.model_copy(update={"evaluate_every": config.train.steps}),
            "run": config.run.model_copy(update={"folder": run}),
        }
    )


def _is_finished(run: Run, steps: int) -> bool:
    return (run.folder / "model" / "model.toml").exists() and any(row["step"] == steps for row in run.log[-1:])


def _digest(config: Config, count: int) -> str:
    """Return what changes with the configuration or a file of labels."""
    stamps = []
    for place in config.data.label_places:
        files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        stamps += [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]
    about = config.model_dump_json(include={"data", "model", "train", "sampling", "augment"})
    return hashlib.sha256(repr((count, about, stamps)).encode()).hexdigest()


def _keep_place(folder: Path, digest: str) -> None:
    """Remove the networks of a folder if they learned from other data or in another way."""
    about = folder / "folds.json"
    if about.exists() and json.loads(about.read_text()).get("digest") != digest:
        for old in (*folder.glob("fold*/"), *folder.glob("split*/")):
            shutil.rmtree(old)
    with replacing(ensure_folder(folder) / about.name) as temporary:
        temporary.write_text(json.dumps({"digest": digest}))
