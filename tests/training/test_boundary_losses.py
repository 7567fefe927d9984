"""Which losses a configuration with a class of boundaries gets, where it names none."""

from pathlib import Path

import pytest

from pixelwise.config import Config, DataConfig, TrainConfig
from pixelwise.training.boundary_losses import with_boundary_losses


def config(tmp_path, *, labels="fields.gpkg", classes=("background", "field", "boundary"), **train):
    (tmp_path / "masks").mkdir(exist_ok=True)
    data = DataConfig(images=Path("scenes"), labels=tmp_path / labels, classes=list(classes))
    return Config(data=data, train=TrainConfig(**train))


def test_a_class_of_boundaries_alone_gets_dice_and_balanced_weights_and_the_user_is_told(tmp_path):
    said = []
    settings = with_boundary_losses(config(tmp_path, steps=7), said.append).train
    assert (settings.cross_entropy, settings.dice, settings.class_weights, settings.steps) == (1, 1, "balanced", 7)
    assert "'boundary'" in said[0]
    assert "dice = 1.0 and class_weights = 'balanced'" in said[0]


@pytest.mark.parametrize(
    "own",
    [
        {"dice": 0.0},
        {"focal": 1.0},
        {"class_weights": "none"},
        {"cross_entropy": 1.0},
        {"labels": "masks"},
        {"classes": ("background", "field")},
    ],
)
def test_what_the_user_wrote_stands_and_masks_and_other_classes_change_nothing(tmp_path, own):
    given, said = config(tmp_path, **own), []
    assert with_boundary_losses(given, said.append) == given
    assert said == []
