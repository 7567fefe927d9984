"""Networks that judge labels which they have not learned from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_config, write_scenes

from pixelwise.config import Config
from pixelwise.data.split import open_split
from pixelwise.data.split_lists import PARTS
from pixelwise.errors import ConfigError
from pixelwise.evaluation.suspects import suspects_of_folds
from pixelwise.training.folds import divide_in_folds, train_folds


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("folds"), 6)


def names(scenes):
    return [scene.name for scene in scenes]


def judged_names(split):
    return [name for part in PARTS for name in names(getattr(split, part))]


@given(count=st.integers(2, 6), seed=st.integers(0, 5))
def test_each_scene_is_judged_once_by_a_network_that_learned_from_all_other_folds(
    scenes, tmp_path_factory, count, seed
):
    config = small_config(scenes, tmp_path_factory.mktemp("run"))
    _, split = open_split(config)
    everything = sorted(judged_names(split))
    divided = divide_in_folds(split, config.data, count, seed=seed)
    assert len(divided) == count
    assert sorted(name for _, judged in divided for name in judged_names(judged)) == everything
    for learned, judged in divided:
        assert sorted([*names(learned), *judged_names(judged)]) == everything
        assert learned
        assert set(names(judged.training)) <= set(names(split.training))


def test_blocks_of_ground_are_divided_too(scenes, tmp_path):
    config = small_config(scenes, tmp_path)
    data = config.data.model_copy(update={"split": "block", "block": 32})
    config = Config(data=data, model=config.model, train=config.train)
    _, split = open_split(config)
    divided = divide_in_folds(split, config.data, 2, seed=1)
    covered = {}
    for learned, judged in divided:
        for scene in learned:
            own = scene.part.read(scene.whole)
            others = [s for part in PARTS for s in getattr(judged, part) if s.name == scene.name]
            assert not any((own & other.part.read(other.whole)).any() for other in others)
        for part in PARTS:
            for scene in getattr(judged, part):
                covered[scene.name] = covered.get(scene.name, 0) + scene.part.read(scene.whole).astype(int)
    assert len(covered) == 6
    assert all((count == 1).all() for count in covered.values())


def test_too_many_folds_are_refused(scenes, tmp_path):
    config = small_config(scenes, tmp_path)
    _, split = open_split(config)
    with pytest.raises(ConfigError, match="7 folds need 7 groups of scenes that share no ground, and the data has 6"):
        divide_in_folds(split, config.data, 7, seed=0)


def test_networks_are_trained_once_and_again_when_labels_change(scenes, tmp_path):
    config = small_config(scenes, tmp_path / "run", steps=2)
    said = []
    folds = train_folds(config, 2, tmp_path / "folds", advance=lambda stage, share: said.append((stage, share)))
    assert said[-1] == ("Training network 2 of 2", 1.0)
    for fold in folds:
        kept = {line for line in (fold.run.split / "train.txt").read_text().splitlines() if not line.startswith("#")}
        assert not {f"{name}.tif" for name in judged_names(fold.judged)} & kept
        assert len(kept) == 3
    found, seen = suspects_of_folds([(fold.run.folder, fold.judged) for fold in folds])
    assert len(seen) == 6
    assert not any(suspect.learned for suspect in found)
    assert [suspect.score for suspect in found] == sorted((suspect.score for suspect in found), reverse=True)
    said.clear()
    train_folds(config, 2, tmp_path / "folds", advance=lambda stage, share: said.append(stage))
    assert said == []
    mask = next((scenes / "masks").iterdir())
    mask.write_bytes(mask.read_bytes())
    train_folds(config, 2, tmp_path / "folds", advance=lambda stage, share: said.append(stage))
    assert np.unique(said).tolist() == ["Training network 1 of 2", "Training network 2 of 2"]
