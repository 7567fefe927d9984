"""Configurations with the key names of version 0.1 still load; what is written has today's names."""

import tomllib
import warnings

import pytest

from pixelwise.config import Config, TrainConfig, load_config, parse_config, save_config
from pixelwise.config_table import OLD_KEYS
from pixelwise.errors import ConfigError, OldNameWarning

OLD = """
[data]
images = "scenes"
labels = "fields.gpkg"
classes = ["background", "field"]
[train]
batch = 3
crop = 96
decoder_rate = 7.0
first_layer_rate = 0.5
power = 0.9
clip = 2.0
average = 0.5
ohem_keep = 11
bootstrapped_keep = 12
checkpointing = true
mixed_precision = "off"
[augment]
turn = true
"""
"""As a run of version 0.1 keeps it in its config.toml."""
NEW = {
    "train": {
        **{"batch_size": 3, "crop_size": 96, "decoder_lr_mult": 7.0, "first_layer_lr_mult": 0.5, "poly_power": 0.9},
        **{"grad_clip": 2.0, "ema_decay": 0.5, "ohem_min_kept": 11, "bootstrapped_min_kept": 12},
        **{"activation_checkpointing": True, "precision": "fp32"},
    },
    "augment": {"rotate90": True},
}


def test_a_file_of_version_0_1_loads_with_one_warning_that_names_each_new_key(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(OLD)
    with pytest.warns(OldNameWarning) as told:
        config = load_config(path)
    (said,) = [str(each.message) for each in told]
    assert str(path) in said
    assert "\n" not in said
    for table, keys in OLD_KEYS.items():
        for old, new in keys.items():
            assert f"[{table}].{old} is {new} now" in said
            assert getattr(getattr(config, table), new) == NEW[table][new]


def test_what_is_written_has_new_names_alone_and_reads_back_without_a_word(tmp_path):
    with pytest.warns(OldNameWarning):
        config = parse_config(tomllib.loads(OLD), "old run")
    save_config(config, tmp_path / "config.toml")
    table = tomllib.loads((tmp_path / "config.toml").read_text())
    for name, keys in OLD_KEYS.items():
        assert not set(keys) & set(table[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_config(tmp_path / "config.toml").train == config.train


def test_a_base_with_old_names_meets_new_ones_and_set_takes_both(tmp_path):
    (tmp_path / "base.toml").write_text(OLD)
    (tmp_path / "own.toml").write_text('base = "base.toml"\n[train]\nbatch_size = 5\n')
    with pytest.warns(OldNameWarning):
        config = load_config(tmp_path / "own.toml", ["train.crop=128"])
    assert (config.train.batch_size, config.train.crop_size) == (5, 128)


def test_an_old_name_beside_its_new_one_is_refused():
    table = tomllib.loads(OLD)
    table["train"]["batch_size"] = 4
    with pytest.raises(ConfigError, match=r"\[train\] has both batch and batch_size, its new name\. Keep batch_size"):
        parse_config(table, "here")


def test_old_names_work_from_python_too():
    with pytest.warns(OldNameWarning, match="batch is batch_size now"):
        assert TrainConfig(batch=3).batch_size == 3
    with pytest.warns(OldNameWarning):
        assert Config.model_validate(tomllib.loads(OLD)).augment.rotate90 is True


def test_every_new_name_is_a_key_and_no_old_one_is():
    for table, keys in OLD_KEYS.items():
        fields = Config.model_fields[table].annotation.model_fields
        assert set(keys.values()) <= set(fields)
        assert not set(keys) & set(fields)
