"""A report on damaged files of a run says which file, and shows no traceback."""

import json

import pytest

from pixelwise.errors import ConfigError, WeightsError
from pixelwise.evaluation.pictures import load_pictures
from pixelwise.report import content
from pixelwise.runs.model_folder import read_card
from pixelwise.runs.run_folder import Run

CARD = """
bands = [1, 2, 3]
dtype = "uint8"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[architecture]
name = "unet"
classes = 2
bands = 3
[classes]
names = ["a", "b"]
palette = [[1, 2, 3], [4, 5, 6]]
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[classes]", "[clases]"),
        ("palette = [[1, 2, 3], [4, 5, 6]]", "palette = [nan, 1]"),
        ("[4, 5, 6]", "[4, 5]"),
        ("[4, 5, 6]", "[4, 5, 999]"),
        (', "b"]', "]"),
        ("[1, 2, 3]\ndtype", "5\ndtype"),
        ('name = "unet"', ""),
        (CARD, "<html>"),
    ],
)
def test_a_damaged_card_is_named(tmp_path, old, new):
    path = tmp_path / "model.toml"
    path.write_text(CARD)
    assert read_card(tmp_path)[0].classes.names == ("a", "b")
    path.write_text(CARD.replace(old, new, 1))
    with pytest.raises(WeightsError, match=r"model\.toml is damaged"):
        read_card(tmp_path)


@pytest.mark.parametrize("held", [b"", b"<html>", b"\x00" * 40, b"\xff" * 40])
def test_damaged_weights_and_pictures_are_named(tmp_path, held):
    (tmp_path / "model.safetensors").write_bytes(held)
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        content._about_weights(tmp_path / "model.safetensors")
    (tmp_path / "test.npz").write_bytes(held)
    with pytest.raises(ConfigError, match=r"test\.npz is damaged"):
        load_pictures(tmp_path / "test.npz")


@pytest.mark.parametrize(
    "entry",
    [{}, {"confusion": 5}, {"confusion": [["x"]]}, {"confusion": [[1]]}, {"confusion": [[1, 2], [3, 4]], "about": "x"}],
)
def test_scores_without_a_whole_matrix_are_named(tmp_path, entry):
    known = {"classes": {"a": {}, "b": {}}}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": known | {"confusion": [[1, 2], [3, 4]]}}))
    assert list(Run(tmp_path).metrics) == ["test"]
    (tmp_path / "metrics.json").write_text(json.dumps({"test": known | entry}))
    with pytest.raises(ConfigError, match=r"metrics\.json is damaged"):
        _ = Run(tmp_path).metrics
