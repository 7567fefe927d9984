"""A run, a model and a configuration that version 0.1.0 wrote (commit 641485b; `old/README.md`) still work."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import pixelwise as pw
from pixelwise.errors import OldNameWarning
from pixelwise.runs.run_folder import Run

OLD = Path(__file__).parent / "old"


@pytest.fixture
def place(tmp_path):
    """A copy of the old files, whose configuration names the copy's paths."""
    place = tmp_path / "old"
    shutil.copytree(OLD, place)
    for path in (place / "run" / "config.toml", place / "data" / "run.toml"):
        path.write_text(path.read_text().replace("/tmp/pixelwise-old", place.as_posix()))
    return place


def test_the_model_folder_predicts_the_labels_that_it_did(place):
    labels = pw.load(place / "model").segment(place / "data" / "images" / "0.png").labels
    expected = np.asarray(Image.open(place / "model" / "labels_of_0.png"))
    assert 0.1 < expected.mean() < 0.9, "both classes"
    assert (labels != expected).mean() < 1e-3


def test_the_run_predicts_and_scores_what_it_did(place):
    assert pw.load(place / "run").segment(place / "data" / "images" / "1.png").labels.shape == (64, 64)
    with pytest.warns(OldNameWarning, match=r"crop is crop_size now"):
        scores = pw.evaluate(place / "run").scores
    kept = {row["step"]: row for row in Run(place / "run").log}[4]
    assert scores.miou == pytest.approx(kept["mIoU"], abs=1e-3)
    assert scores.pixel_accuracy == pytest.approx(kept["pixel_accuracy"], abs=1e-3)


def test_the_stopped_run_resumes_to_the_model_that_the_whole_run_had(place):
    with pytest.warns(OldNameWarning, match=r"average is ema_decay now"):
        run = pw.train(place / "data" / "run.toml", resume=True)
    assert [row["step"] for row in run.log] == list(range(1, 9))
    resumed, whole = (load_file(folder / "model.safetensors") for folder in (run.folder / "model", place / "model"))
    assert resumed.keys() == whole.keys()
    for name, expected in whole.items():
        torch.testing.assert_close(resumed[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_the_whole_run_had_another_model_than_the_stopped_one():
    whole, stopped = (load_file(OLD / name / "model.safetensors") for name in ("model", "run/model"))
    assert any(not torch.allclose(whole[name], stopped[name], rtol=1e-2) for name in whole)
