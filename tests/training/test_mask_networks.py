"""Runs of a network that answers with masks: trained, resumed to the bit, evaluated, mapped; and no loss of pixels."""

import sys

import numpy as np
import pytest
import rasterio
import torch
from small_run import small_config, write_scenes

from pixelwise.errors import ConfigError, MissingExtraError
from pixelwise.predictor import load
from pixelwise.training.boundary_losses import with_boundary_losses
from pixelwise.training.model_check import check_model, require_mask_loss
from pixelwise.training.train import train

OPTIONS = {"dim": 24, "depth": 6, "heads": 2, "image_size": 32, "queries": 4, "drop_path": 0.1}
EOMT = {"name": "eomt-s", "options": OPTIONS}


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes")


def stopped(config, step):
    def stop(event):
        if getattr(event, "step", 0) == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=stop)


def test_a_run_that_is_stopped_while_masks_are_annealed_goes_on_to_the_same_weights(scenes, tmp_path):
    def config(name):
        return small_config(scenes, tmp_path / name, model=EOMT, steps=5, evaluate_every=1)

    train(config("whole"))
    stopped(config("broken"), 3)
    train(config("broken"), resume=True)
    whole, broken = (tmp_path / name / "model/model.safetensors" for name in ("whole", "broken"))
    assert whole.read_bytes() == broken.read_bytes()
    rows = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    losses = [[row.split('"loss": ')[1].split(",")[0] for row in each] for each in rows]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5


def test_a_trained_network_maps_a_scene_in_tiles_and_says_how_sure_it_is(scenes, tmp_path):
    train(small_config(scenes, tmp_path / "run", model=EOMT, steps=2))
    predictor = load(tmp_path / "run")
    image = np.random.default_rng(0).integers(0, 200, (3, 150, 170)).astype(np.uint8)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=3, height=150, width=170, dtype="uint8"
    ) as out:
        out.write(image)
    result = predictor.segment(tmp_path / "scene.tif")
    assert result.labels.shape == (150, 170)
    assert result.confidence.min() >= 0.5
    assert result.confidence.max() <= 1
    predictor.map_scene(tmp_path / "scene.tif", tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as made:
        assert (made.read(1) == result.labels).all()


@pytest.mark.parametrize("losses", [{"dice": 1.0}, {"cross_entropy": 2.0}, {"label_smoothing": 0.1}])
def test_a_loss_of_pixels_is_refused_where_it_would_not_count(scenes, tmp_path, losses):
    config = small_config(scenes, tmp_path / "run", model=EOMT, **losses)
    with pytest.raises(ConfigError, match=rf"losses of pixels \({next(iter(losses))}\)"):
        train(config)
    assert any("losses of pixels" in problem for problem in check_model(config, bands=3))
    require_mask_loss(small_config(scenes, tmp_path / "run", **losses))


def test_boundaries_get_balanced_weights_of_masks_and_no_dice(tmp_path):
    config = small_config(tmp_path, tmp_path / "run", model=EOMT)
    data = config.data.model_copy(update={"labels": tmp_path / "fields.gpkg", "classes": ["background", "boundary"]})
    said = []
    settings = with_boundary_losses(config.model_copy(update={"data": data}), said.append).train
    assert (settings.dice, settings.class_weights) == (0, "balanced")
    assert "class_weights = 'balanced'" in said[0]


def test_training_without_scipy_names_the_extra(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingExtraError, match=r"pixelwise\[eomt\]"):
        train(small_config(scenes, tmp_path / "run", model=EOMT))


def test_chances_in_a_model_are_those_of_its_step(scenes, tmp_path):
    train(small_config(scenes, tmp_path / "run", model=EOMT, steps=5, evaluate_every=5, ema_decay=0.0))
    model = load(tmp_path / "run").model
    # The last of five steps begins at 4/5 of the training: with three blocks, all are annealed away.
    assert torch.equal(model.decoder.mask_chances, torch.zeros(3))
