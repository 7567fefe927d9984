"""Runs that learn from a teacher, and from images without labels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from small_network import small_network
from small_run import NETWORK, small_config, write_scenes
from test_resuming_runs import sentences, stopped, weights

from pixelwise.config import AugmentConfig, Config, load_config
from pixelwise.errors import ConfigError, DataError, WeightsError
from pixelwise.hub.licences import GIVEN_BY_PATH, Origin
from pixelwise.labels import IGNORE
from pixelwise.models import create
from pixelwise.recipes import RECIPES
from pixelwise.runs.model_folder import load_model, read_origins, save_model
from pixelwise.training import teaching
from pixelwise.training.first_weights import teacher_origins
from pixelwise.training.train import train


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes")


@pytest.fixture
def unlabelled(tmp_path):
    return write_scenes(tmp_path / "more", 3, seed=7) / "images"


def changed(config, **tables):
    table = config.model_dump(mode="json", exclude_unset=True)
    for name, keys in tables.items():
        table[name] = {**table.get(name, {}), **keys}
    return Config.model_validate(table)


EVERYTHING = {
    "sampling": {"balanced": 0.3, "hard": 0.6},
    "augment": {"classmix": 0.4, "cutmix": 0.3, "elastic": 2.0, "noise": 0.1, "blur": 0.5, "cutout": 2, "rotate": 90},
}


@pytest.mark.parametrize("taught", [False, True], ids=["by its average", "by a teacher"])
def test_a_killed_run_of_all_recipes_ends_with_the_same_bits_with_any_number_of_workers(
    scenes, unlabelled, tmp_path, monkeypatch, taught
):
    # Rounds of 3 steps, so that hard places count, and the kills fall into the middle of a round and on its end.
    monkeypatch.setattr("pixelwise.training.crops.ROUND", 3)
    settings = {"batch_size": 2, "steps": 8, "optimizer": "lion", "schedule": "one_cycle", "tail_average": 0.5}
    settings |= {"evaluate_every": 5, "save_every_minutes": 0.0, "confidence": 0.0}
    if taught:
        settings["teacher"] = train(small_config(scenes, tmp_path / "teacher", steps=2)).folder

    def config(name, **more):
        plain = small_config(scenes, tmp_path / name, **settings, **more)
        return changed(plain, data={"unlabelled": str(unlabelled)}, **EVERYTHING)

    whole = train(config("whole"))
    for step, workers in ((4, 0), (6, 2)):
        stopped(config(f"run{step}", workers=workers), step)
        run = train(config(f"run{step}", workers=1), resume=True)
        assert weights(run.folder) == weights(whole.folder)
        assert [row["loss"] for row in run.log] == [row["loss"] for row in whole.log]
    assert train(config("again", workers=3)).log[-1]["loss"] == whole.log[-1]["loss"]


def test_each_part_changes_the_run(scenes, unlabelled, tmp_path):
    teacher = train(small_config(scenes, tmp_path / "teacher", steps=2)).folder
    plain = {"batch_size": 2, "confidence": 0.0}
    ends = {
        name: train(changed(small_config(scenes, tmp_path / name, **plain), **tables)).log[-1]["loss"]
        for name, tables in {
            "nothing": {},
            "taught": {"train": {"teacher": str(teacher), "distillation": 5.0}},
            "unlabelled": {"data": {"unlabelled": str(unlabelled)}, "train": {"unlabelled": 50.0}},
            "balanced": {"sampling": {"balanced": 1.0}},
            "classmix": {"augment": {"classmix": 1.0}},
        }.items()
    }
    assert len(set(ends.values())) == len(ends)


def test_a_teacher_of_other_classes_bands_or_weights_is_refused(scenes, tmp_path):
    folder = train(small_config(scenes, tmp_path / "teacher", steps=2)).folder
    model, card, _ = load_model(folder)
    taught = small_config(scenes, tmp_path / "run", teacher=tmp_path / "other")
    save_model(tmp_path / "other", model, replace(card, classes=replace(card.classes, names=("night", "day"))))
    with pytest.raises(
        ConfigError, match=r"teacher = .*other has the classes night, day, and this run has dark, bright"
    ):
        train(taught)
    patches = {"encoder": "dinov2-small", "dim": 16, "depth": 6, "heads": 2, "image_size": 56}
    other = create("segmenter-linear", classes=2, **patches)
    save_model(tmp_path / "other", other, replace(card, architecture=other.architecture))
    # Patches of 14 pixels, and tiles of 32.
    with pytest.raises(ConfigError, match=r"pad to different sizes\. Take a multiple of 224\."):
        train(taught)
    with pytest.raises(WeightsError, match="holds no model"):
        train(small_config(scenes, tmp_path / "run", teacher=tmp_path / "nowhere"))
    save_model(tmp_path / "other", model, card)
    stopped(taught, 2)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    save_model(tmp_path / "other", model, card)
    with pytest.raises(WeightsError, match="other weights than when the run began"):
        train(taught, resume=True)


def test_the_teacher_sees_images_as_it_was_trained_to(scenes, tmp_path):
    folder = train(small_config(scenes, tmp_path / "teacher", steps=2)).folder
    model, card, _ = load_model(folder)
    own = replace(card, mean=(3.0, 50.0, 70.0), std=(9.0, 20.0, 30.0))
    teacher = teaching.Teacher(small_config(scenes, tmp_path / "run", teacher=folder), own, model, torch.device("cpu"))
    raw = torch.rand(1, 3, 32, 32) * 200
    normalised = [
        (raw - torch.tensor(each.mean)[:, None, None]) / torch.tensor(each.std)[:, None, None] for each in (own, card)
    ]
    with torch.no_grad():
        expected = model.decode(normalised[1]).logits
    torch.testing.assert_close(teacher.logits(normalised[0]), expected, atol=1e-4, rtol=1e-4)


def test_what_validation_is_scored_on_is_never_learned_from(scenes, unlabelled, tmp_path):
    config = changed(small_config(scenes, tmp_path / "run", steps=1), data={"unlabelled": str(scenes / "images")})
    _, said = sentences(config)
    assert any("1 images of [data].unlabelled are for validation or test, and so left out." in line for line in said)
    with rasterio.open(next(unlabelled.iterdir()), "w", driver="GTiff", count=3, height=9, width=9, dtype="uint16"):
        pass
    with pytest.raises(DataError, match="uint16"):
        train(changed(config, data={"unlabelled": str(unlabelled)}, run={"folder": str(tmp_path / "bands")}))
    without = changed(config, train={"ema_decay": 0.0}, run={"folder": str(tmp_path / "average")})
    with pytest.raises(ConfigError, match=r"\[data\].unlabelled needs a teacher"):
        train(without)


def test_resuming_says_which_images_without_labels_changed(scenes, unlabelled, tmp_path):
    config = changed(small_config(scenes, tmp_path / "run", steps=3), data={"unlabelled": str(unlabelled)})
    stopped(config, 2)
    _, said = sentences(config, resume=True)
    assert not any("The data changed" in line for line in said)
    with rasterio.open(unlabelled / "0.tif", "r+") as file:
        file.write(255 - file.read())
    (unlabelled / "1.tif").rename(unlabelled / "9.tif")
    _, said = sentences(config, resume=True)
    (line,) = [line for line in said if line.startswith("The data changed since the run began")]
    assert "unlabelled scenes with other bytes: 1 (0)" in line
    assert "unlabelled scenes gone: 1 (1)" in line
    assert "unlabelled scenes new: 1 (9)" in line


def test_a_run_that_began_with_images_without_labels_keeps_them(scenes, unlabelled, tmp_path):
    config = changed(small_config(scenes, tmp_path / "run", steps=3), data={"unlabelled": str(unlabelled)})
    stopped(config, 2)
    with pytest.raises(ConfigError, match=r"\[data\].unlabelled was .* and is not set"):
        train(small_config(scenes, tmp_path / "run", steps=3), resume=True)


def test_only_sure_pixels_with_data_get_pseudo_labels():
    logits = torch.tensor([3.0, 0.0, -3.0, 0.1]).view(1, 1, 2, 2)
    logits = torch.cat([logits, -logits], dim=1)
    masks = torch.zeros(1, 2, 2, dtype=torch.long)
    masks[0, 0, 0] = IGNORE

    found = teaching.pseudo_labels(small_network(classes=2), logits, masks, 0.9)
    assert found.tolist() == [[[IGNORE, IGNORE], [1, IGNORE]]]


def test_the_weight_of_pseudo_labels_rises_to_its_value():
    found = [teaching.unlabelled_weight(step, 100, 2.0) for step in range(100)]
    assert found[0] == pytest.approx(2 * math.exp(-5))
    assert found == sorted(found)
    assert found[30] == found[99] == 2.0


def test_images_are_disturbed_alike_for_the_same_draw_and_empty_pixels_stay_empty():
    images, masks = torch.randn(3, 5, 8, 8), torch.randint(0, 3, (3, 8, 8))
    images[:, :, :2] = 0
    masks[:, :2] = IGNORE
    draws = [[np.random.default_rng([4, i]) for i in range(3)] for _ in range(2)]
    first, again = (teaching.disturbed(images, masks, AugmentConfig(), rngs) for rngs in draws)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not first[0][:, :, :2].any()


def test_a_recipe_sets_what_is_not_written_and_the_run_keeps_the_values(scenes, tmp_path, monkeypatch):
    recipe = {"train": {"schedule": "cosine", "grad_clip": 0.5}, "augment": {"cutmix": 0.25}}
    monkeypatch.setitem(RECIPES, "quick", recipe)
    run = train(small_config(scenes, tmp_path / "run", recipe="quick", grad_clip=0.75))
    kept = load_config(run.folder / "config.toml")
    assert (kept.train.recipe, kept.train.schedule, kept.train.grad_clip) == ("quick", "cosine", 0.75)
    assert kept.augment.cutmix == 0.25
    assert kept.augment.flip
    # Going on takes the same values from the recipe again.
    train(small_config(scenes, tmp_path / "run", recipe="quick", grad_clip=0.75, steps=6), resume=True)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_sets_keys_that_exist_and_own_ones_win(name):
    data = {"images": "images", "labels": "masks", "classes": ["a", "b"]}
    config = Config.model_validate({"data": data, "train": {"recipe": name}})
    for table, keys in RECIPES[name].items():
        for key, value in keys.items():
            assert getattr(getattr(config, table), key) == value
    own = Config.model_validate({"data": data, "train": {"recipe": name, "schedule": "poly"}})
    assert own.train.schedule == "poly"


def test_what_learns_from_a_teacher_descends_from_what_it_descends_from(scenes, tmp_path):
    folder = train(small_config(scenes, tmp_path / "first", steps=2)).folder
    model, card, _ = load_model(folder)
    origin = Origin("mit-b0", "a hub", "NVIDIA-SegFormer", "no", "", "")
    save_model(tmp_path / "teacher", model, replace(card, origins=(origin,)))
    with pytest.raises(WeightsError, match="accept_licence"):
        train(small_config(scenes, tmp_path / "run", teacher=tmp_path / "teacher"))
    accepted = {**NETWORK, "accept_licence": ["NVIDIA-SegFormer"]}
    run = train(small_config(scenes, tmp_path / "run", model=accepted, teacher=tmp_path / "teacher"))
    assert read_origins(run.folder) == (origin,)
    # Of an early version's model nobody knows what it descends from.
    save_model(tmp_path / "old", model, replace(card, origins=None))
    (unknown,) = teacher_origins(tmp_path / "old", [])
    assert (unknown.name, unknown.licence) == ("old", GIVEN_BY_PATH)
