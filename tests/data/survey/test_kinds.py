"""`pixelwise init` on many kinds of folders: each pixel has the class it was drawn with."""

from copy import copy

import numpy as np
import pytest
from small_folders import KINDS

from pixelwise.config import load_config
from pixelwise.data.check import require_usable, survey
from pixelwise.data.split import open_split
from pixelwise.data.survey.proposal import Machine, propose
from pixelwise.data.survey.toml import to_toml
from pixelwise.labels import IGNORE


def configured(folder):
    """Propose a configuration, write it, and open what it names."""
    found = propose(folder / "data", machine=Machine(), ask=lambda question, answers: 0)
    path = folder / "mine.toml"
    path.write_text(to_toml(found, path), encoding="utf-8")
    config = load_config(path)
    return found, config, *open_split(config)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def drawn_and_proposed(request, tmp_path_factory):
    """What was drawn into a folder, and what is proposed for it."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    return request.param(folder / "data"), configured(folder)


def test_each_pixel_has_the_class_it_was_drawn_with(drawn_and_proposed):
    made, (found, _, classes, split) = drawn_and_proposed
    scenes = {scene.info.path.stem: copy(scene) for scene in [*split.training, *split.validation, *split.test]}
    assert set(scenes) == set(made.truth), found.saw
    assert split.validation
    # Nobody said how classes are called, so what counts is that each drawn class is one class of the configuration.
    seen: dict[int, set[int]] = {}
    for stem, truth in made.truth.items():
        scene = scenes[stem]
        scene.part = None
        mask = scene.read(scene.whole).mask
        for drawn in np.unique(truth).tolist():
            seen.setdefault(drawn, set()).update(np.unique(mask[truth == drawn]).tolist())
    # Along smoothed edges, drawn as -2, any class is right.
    seen.pop(-2, None)
    assert seen.pop(-1, {IGNORE}) == {IGNORE}
    assert all(len(indices) == 1 for indices in seen.values()), (seen, found.saw, found.guessed)
    assert sorted(index for indices in seen.values() for index in indices) == list(range(len(classes)))


def test_training_can_use_what_it_proposes(drawn_and_proposed):
    _, (found, config, classes, split) = drawn_and_proposed
    require_usable(survey(split.training, classes), classes, "training")
    # A crop is no larger than the smallest image, so that it is not mostly mirrored.
    smallest = min(min(scene.info.height, scene.info.width) for scene in split.training)
    assert config.train.crop_size <= max(32, smallest)
    assert found.saw
    assert found.guessed
