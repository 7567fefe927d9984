"""A run whose encoder another library builds: it starts from its weights, goes on, and is used without them."""

import shutil
import tomllib

import pytest
from small_backbones import write_backbone
from small_run import small_config, write_scenes

import pixelwise as pw
from pixelwise.config import load_config
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.predictor import load
from pixelwise.runs.model_folder import read_origins
from pixelwise.training.model_check import check_model
from pixelwise.training.optimizer import learning_rates
from pixelwise.training.train import train


@pytest.fixture
def backbone(tmp_path):
    return write_backbone("dino", tmp_path / "dino")


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes")


def settings(backbone, **more):
    options = {"encoder": f"transformers:{backbone}", "pretrained": True, "drop_path": 0.1, **more}
    return {"name": "segmenter-linear", "options": options}


def test_a_run_learns_goes_on_and_predicts_after_the_librarys_folder_is_gone(backbone, scenes, tmp_path):
    said = []
    straight = small_config(scenes, tmp_path / "straight", model=settings(backbone), steps=4, crop_size=64)
    train(straight, report=said.append)
    assert any("weights of its name, whose licence is apache-2.0" in line for line in said if isinstance(line, str))
    card = tomllib.loads((tmp_path / "straight/model/model.toml").read_text())
    assert [(each["licence"], each["commercial"]) for each in card["origins"]] == [("Apache-2.0", "yes")]

    def stop(event):
        if getattr(event, "step", 0) == 3:
            raise KeyboardInterrupt

    broken = small_config(scenes, tmp_path / "broken", model=settings(backbone), steps=4, crop_size=64)
    with pytest.raises(KeyboardInterrupt):
        train(broken, report=stop)
    shutil.rmtree(backbone)
    train(broken, resume=True)
    same = [(tmp_path / run / "model/model.safetensors").read_bytes() for run in ("straight", "broken")]
    assert same[0] == same[1]
    predictor = load(tmp_path / "straight")
    scores = pw.evaluate(tmp_path / "straight")
    assert scores.scores.miou is not None
    assert predictor.segment(scenes / "images/0.tif").labels.shape == (64, 64)
    shutil.rmtree(scenes)
    with pytest.raises(ConfigError, match="is not there"):
        pw.create("segmenter-linear", classes=2, encoder=f"transformers:{backbone}")


def test_pretrained_encoders_get_the_rates_of_fine_tuning(backbone, scenes, tmp_path):
    given = learning_rates(small_config(scenes, tmp_path, model=settings(backbone)))
    fresh = learning_rates(small_config(scenes, tmp_path, model=settings(backbone, pretrained=False)))
    assert given == (6e-5, 10.0)
    assert fresh == (1e-3, 1.0)


def test_a_folder_in_a_configuration_counts_from_it(backbone, scenes, tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(
        '[data]\nimages = "scenes/images"\nlabels = "scenes/masks"\nclasses = ["dark", "bright"]\n'
        '[model]\nname = "setr-naive"\n[model.options]\nencoder = "transformers:./dino"\npretrained = true\n'
    )
    monkeypatch.chdir("/")
    config = load_config(tmp_path / "mine.toml")
    assert config.model.options["encoder"] == f"transformers:{backbone.resolve()}"
    assert check_model(config, bands=None) == []
    (backbone / "model.safetensors").unlink()
    assert "does not find the weights" in check_model(config, bands=None)[0]
    named = load_config(tmp_path / "mine.toml", ["model.options.encoder='transformers:facebook/dinov2-base'"])
    assert named.model.options["encoder"] == "transformers:facebook/dinov2-base"


def test_a_licence_that_forbids_commercial_use_is_to_be_accepted(backbone, scenes, tmp_path):
    (backbone / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    config = small_config(scenes, tmp_path / "run", model=settings(backbone), crop_size=64)
    # Before the weights are read, or fetched.
    kept = (backbone / "model.safetensors").rename(tmp_path / "kept")
    assert "CC-BY-NC-4.0" in check_model(config, bands=3)[0]
    with pytest.raises(WeightsError, match=r'accept_licence = "CC-BY-NC-4\.0"'):
        train(config)
    kept.rename(backbone / "model.safetensors")
    accepted = small_config(
        scenes, tmp_path / "run", model={**settings(backbone), "accept_licence": ["CC-BY-NC-4.0"]}, crop_size=64
    )
    train(accepted)
    assert [each.commercial for each in read_origins(tmp_path / "run")] == ["no"]
