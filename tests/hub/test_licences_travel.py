"""A model that was trained from weights of others names their licence wherever it goes."""

import json
import tomllib
from dataclasses import replace

import pytest
import rasterio
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from small_hub import serving
from small_network import noise, predictor_of, write_scene
from small_run import NETWORK, small_config, write_scenes

import pixelwise as pw
from pixelwise.cli import commands
from pixelwise.errors import WeightsError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.hub import ledger
from pixelwise.hub.licences import (
    GIVEN_BY_PATH,
    LICENCES_TAG,
    Origin,
    merged_origins,
    notice,
    origin_tags,
    origins_from,
    origins_of_tags,
    records,
)
from pixelwise.report import write_report
from pixelwise.runs.model_folder import load_model, read_card, read_origins, save_model
from pixelwise.runs.run_folder import Run
from pixelwise.training.train import train
from pixelwise.weights import save_weights

ROW = ledger.Row(
    name="owner/small-unet",
    licence="NVIDIA-SegFormer",
    layout="pixelwise",
    data="noise",
    attribution="Made by somebody for this test.",
    read="this test",
    short="imagenet",
    network="unet",
    file="model.safetensors",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that began with weights for non-commercial use, fetched by a short name, and was stopped and resumed."""
    folder = tmp_path_factory.mktemp("travel")
    save_weights(pw.create("unet", classes=2, **NETWORK["options"]), folder / "theirs.safetensors")
    contents = (folder / "theirs.safetensors").read_bytes()
    licences, rows = ledger._table()
    with pytest.MonkeyPatch.context() as patch, serving() as hub:
        patch.setattr(ledger, "_table", lambda: (licences, (ROW, *rows)))
        patch.setenv("HF_HUB_CACHE", str(folder / "cache"))
        hub.put(ROW.name, ROW.file, contents)
        mirrors = {"huggingface.co": hub.address}
        model = {**NETWORK, "weights": "imagenet", "accept_licence": ROW.licence, "mirrors": mirrors}
        config = small_config(write_scenes(folder), folder / "run", model=model)

        class StopError(Exception):
            pass

        def stop(event):
            if getattr(event, "step", 0) == 3:
                raise StopError

        with pytest.raises(StopError):
            train(config, report=stop)
    # What is resumed needs neither the network nor the name again.
    train(config, resume=True)
    evaluate(folder / "run")
    return folder / "run"


def said(*arguments):
    result = CliRunner().invoke(commands, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_model_folder_names_it_in_the_card_the_notice_and_the_weights(trained, tmp_path):
    (origin,) = read_card(trained / "model")[0].origins
    assert (origin.name, origin.licence, origin.commercial) == (ROW.name, ROW.licence, "no")
    assert origin.source == "https://huggingface.co/owner/small-unet/resolve/main/model.safetensors"
    table = tomllib.loads((trained / "model" / "model.toml").read_text(encoding="utf-8"))
    assert table["origins"][0]["attribution"] == ROW.attribution
    text = (trained / "model" / "NOTICE.txt").read_text(encoding="utf-8")
    assert all(part in text for part in (ROW.name, ROW.licence, ROW.attribution, origin.sha256))
    # The weights alone, away from their folder, still say it.
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((trained / "model" / "model.safetensors").read_bytes())
    assert read_origins(alone) == (origin,)


def test_a_map_and_a_picture_with_a_place_name_it_in_their_tags(trained, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 64, 64))
    predictor = pw.load(trained)
    predictor.map_scene(scene, tmp_path / "map.tif", confidence=True)
    predictor.segment(scene).save(tmp_path / "photo.tif")
    for name in ("map.tif", "map.confidence.tif", "photo.tif"):
        with rasterio.open(tmp_path / name) as file:
            tags = file.tags()
        assert ROW.licence in tags[LICENCES_TAG]
        assert "no commercial use" in tags[LICENCES_TAG]
        assert ROW.attribution.rstrip(".") in tags[LICENCES_TAG]
        assert json.loads(said("licences", tmp_path / name, "--json")) == records(origins_of_tags(tags))


def test_a_map_of_a_model_without_origins_has_no_such_tags(tmp_path):
    predictor_of().map_scene(write_scene(tmp_path / "scene.tif", noise(3, 32, 32)), tmp_path / "map.tif", tile=64)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert not [tag for tag in file.tags() if "LICENCES" in tag or "ORIGINS" in tag]
    assert "names no weights of others" in said("licences", tmp_path / "map.tif")


def test_the_page_names_it(trained):
    page = write_report(trained).read_text(encoding="utf-8")
    assert "binds this model and its maps" in page
    assert f"It descends from {ROW.name}" in page
    assert all(part in page for part in (ROW.licence, ROW.attribution, "no commercial use"))


def test_the_command_lists_it_for_runs_models_and_files(trained, tmp_path):
    for path in (trained, trained / "model", trained / "model" / "model.safetensors", trained / "last" / "state.pt"):
        text = said("licences", path)
        assert text.startswith(f"{ROW.name}\n")
        assert "research and evaluation" in text
    torch.save({"a": torch.zeros(1)}, tmp_path / "mine.pth")
    assert GIVEN_BY_PATH in said("licences", tmp_path / "mine.pth")
    result = CliRunner().invoke(commands, ["licences", str(tmp_path / "gone")])
    assert isinstance(result.exception, WeightsError)


@pytest.mark.parametrize("part", ["", "model", "model/model.safetensors"])
def test_a_model_that_is_trained_further_inherits_it_and_asks_again(trained, tmp_path, part):
    scenes = trained.parent
    model = {**NETWORK, "weights": trained / part}
    with pytest.raises(WeightsError, match="owner/small-unet is under the licence NVIDIA-SegFormer"):
        train(small_config(scenes, tmp_path / "second", model=model))
    assert not (tmp_path / "second").exists()
    if part == "model":
        config = small_config(scenes, tmp_path / "second", model={**model, "accept_licence": ROW.licence}, steps=2)
        run = train(config)
        assert read_origins(run.folder) == read_origins(trained)


def test_a_run_from_fresh_weights_says_so(tmp_path):
    run = train(small_config(write_scenes(tmp_path), tmp_path / "run", steps=2))
    assert read_card(run.folder / "model")[0].origins == ()
    assert not (run.folder / "model" / "NOTICE.txt").exists()
    assert "began with fresh ones" in said("licences", run.folder)
    evaluate(run.folder)
    assert "fresh weights" in write_report(run.folder).read_text(encoding="utf-8")
    # Nor does a model that goes on from it descend from others.
    second = train(small_config(tmp_path, tmp_path / "second", model={**NETWORK, "weights": run.folder}, steps=2))
    assert read_card(second.folder / "model")[0].origins == ()


def test_a_model_of_an_early_version_says_nothing_and_goes_on_as_a_users_own(trained, tmp_path):
    model, card, _ = load_model(trained)
    save_model(tmp_path / "old", model, replace(card, origins=None))
    assert "origins" not in tomllib.loads((tmp_path / "old" / "model.toml").read_text(encoding="utf-8"))
    assert "made before pixelwise kept them" in said("licences", tmp_path / "old")
    config = small_config(trained.parent, tmp_path / "run", model={**NETWORK, "weights": tmp_path / "old"}, steps=2)
    (origin,) = read_origins(train(config).folder)
    assert origin.licence == GIVEN_BY_PATH


def test_a_state_and_a_card_that_were_tampered_with_are_refused(trained, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", metadata={"pixelwise.origins": "[{}]"})
    with pytest.raises(WeightsError, match="descends from is damaged"):
        read_origins(tmp_path / "w.safetensors")
    card = trained / "model" / "model.toml"
    (tmp_path / "model.toml").write_text(card.read_text().replace('commercial = "no"', 'commercial = "yes"'))
    with pytest.raises(WeightsError, match="has changed since it was written"):
        read_origins(tmp_path)


def test_a_run_keeps_its_origins_in_its_state(trained):
    state = Run(trained).load_last()
    assert origins_from(state["origins"]) == read_origins(trained)


def test_records_go_to_tags_and_back():
    first = Origin("a/b", "https://example.org/w.pth", "MIT", "yes", "By A. Ünal.", "00ff")
    second = replace(first, name="c", licence=GIVEN_BY_PATH, commercial="unknown", attribution="")
    assert origins_of_tags(origin_tags([first, second])) == (first, second)
    assert merged_origins([first], [second, first]) == (first, second)
    assert origin_tags([]) == origin_tags(None) == {}
    assert "not known" in notice([second])
    for damaged in ({}, [{}], [{**records([first])[0], "name": 3}], "text"):
        with pytest.raises(ValueError, match="origin"):
            origins_from(damaged)
