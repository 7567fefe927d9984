"""What may change when a run goes on, key by key."""

import warnings
from pathlib import Path

import pytest
from small_run import small_config, write_scenes

from pixelwise.config import Config
from pixelwise.errors import ConfigError
from pixelwise.runs.changed_settings import MAY_CHANGE, PLACE, recorded_config, require_same_settings, say_changes
from pixelwise.training.train import train

BEFORE = small_config(Path("scenes"), Path("run"))
KEYS = [
    (table, key)
    for table in Config.model_fields
    if table not in ("run", "tune")
    for key in type(getattr(BEFORE, table)).model_fields
]
FREE = {
    *(
        ("data", key)
        for key in ("images", "labels", "annotations", "validation_images", "validation_labels", "unlabelled")
    ),
    *(
        ("data", key)
        for key in ("split_table", "training_list", "validation_list", "test_list")  # a run keeps lists of its own
    ),
    *(("model", key) for key in ("accept_licence", "mirrors", "weights")),
    *(("train", key) for key in ("steps", "evaluate_every", "keep_every", "save_every_minutes", "workers", "device")),
    *(("train", key) for key in ("compile", "activation_checkpointing", "teacher")),
    *(("predict", key) for key in ("tile", "overlap", "flips", "scales")),
}
"""Steps, evaluation, logging, workers, device, places, and what changes no weight."""
MOVE_ONLY = [("model", "weights"), ("data", "unlabelled"), ("data", "validation_images"), ("train", "teacher")]
LEARNED = [
    *(("model", key) for key in ("name", "options")),
    *(("data", key) for key in ("classes", "bands", "values", "ignore", "nodata")),
    *(("train", key) for key in ("crop_size", "seed", "optimizer", "learning_rate", "cross_entropy", "ema_decay")),
    *(("augment", "flip"), ("augment", "scale"), ("sampling", "hard")),
]
"""Some of what must stay: network, classes, bands, crop, seed, augmentation, optimiser, losses."""


def changed(table, key, value="other"):
    return BEFORE.model_copy(update={table: getattr(BEFORE, table).model_copy(update={key: value})})


def test_the_table_names_keys_of_the_configuration():
    assert {(table, key) for table, keys in MAY_CHANGE.items() for key in keys} <= set(KEYS)
    assert {(table, key) for table, keys in MAY_CHANGE.items() for key in keys} >= FREE


@pytest.mark.parametrize(("table", "key"), KEYS, ids=".".join)
def test_a_changed_key_is_allowed_and_said_or_refused_with_both_values(table, key):
    after, before = changed(table, key), getattr(getattr(BEFORE, table), key)
    shown = "not set" if before is None else str(before).lower() if isinstance(before, bool) else str(before)
    sentence = f"[{table}].{key} was {shown} and is other"
    if key in MAY_CHANGE.get(table, {}) and (table, key) not in MOVE_ONLY:
        require_same_settings(Path("run"), BEFORE, after)
        said = say_changes(BEFORE, after)
        assert said is None if MAY_CHANGE[table][key] == PLACE else sentence in said
        return
    with pytest.raises(ConfigError) as refused:
        require_same_settings(Path("run"), BEFORE, after)
    assert sentence in str(refused.value)
    assert f"pixelwise train {Path('run/config.toml')} --resume" in str(refused.value)


@pytest.mark.parametrize(("table", "key"), LEARNED, ids=".".join)
def test_what_is_learned_must_stay(table, key):
    with pytest.raises(ConfigError, match="began with other settings"):
        require_same_settings(Path("run"), BEFORE, changed(table, key))


def test_old_names_of_keys_that_a_run_recorded_are_not_said():
    table = BEFORE.model_dump(mode="json", exclude_none=True)
    table["train"]["batch"] = table["train"].pop("batch_size")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recorded_config(table, "a state").train == BEFORE.train


@pytest.mark.parametrize(("table", "key"), MOVE_ONLY, ids=".".join)
def test_weights_a_teacher_and_images_of_a_part_may_move_but_neither_go_nor_come(table, key):
    given = changed(table, key, Path("a.safetensors"))
    require_same_settings(Path("run"), given, changed(table, key, Path("b.safetensors")))
    with pytest.raises(ConfigError, match=rf"\[{table}\].{key} was a.safetensors and is not set"):
        require_same_settings(Path("run"), given, BEFORE)
    with pytest.raises(ConfigError, match=rf"\[{table}\].{key} was not set and is a.safetensors"):
        require_same_settings(Path("run"), BEFORE, given)


def test_a_value_of_no_data_that_is_no_number_has_not_changed():
    before = recorded_config(changed("data", "nodata", float("nan")).model_dump(mode="json", exclude_none=True), "")
    require_same_settings(Path("run"), before, changed("data", "nodata", float("nan")))
    assert say_changes(before, changed("data", "nodata", float("nan"))) is None
    with pytest.raises(ConfigError, match=r"\[data\].nodata was nan and is 0"):
        require_same_settings(Path("run"), before, changed("data", "nodata", 0.0))


def test_of_long_values_what_differs_is_shown():
    names = [f"class {i}" for i in range(40)]
    with pytest.raises(ConfigError) as refused:
        require_same_settings(
            Path("run"), changed("data", "classes", names), changed("data", "classes", [*names[:30], "wheat", "barley"])
        )
    assert "'class 30', 'class 31'" in str(refused.value)
    assert "'wheat', 'barley']" in str(refused.value)


def test_nothing_changed_says_nothing_and_long_values_are_cut():
    assert say_changes(BEFORE, BEFORE) is None
    many = changed("data", "classes", [f"class {i}" for i in range(150)])
    with pytest.raises(ConfigError) as refused:
        require_same_settings(Path("run"), BEFORE, many)
    assert len(str(refused.value)) < 500


def test_the_command_that_the_refusal_names_goes_on(tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    train(small_config(scenes, tmp_path / "run", steps=1))
    with pytest.raises(ConfigError, match=r"\[train\].seed was 0 and is 3"):
        train(small_config(scenes, tmp_path / "run", steps=1, seed=3), resume=True)
    assert len(train(tmp_path / "run/config.toml", resume=True).log) == 1
