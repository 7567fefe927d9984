"""LinkNet's names in its authors' release."""

import re
from pathlib import Path

import golden
import pytest
import torch

import pixelwise as pw
from pixelwise.weights import save_weights

GOLDENS = Path(__file__).parent.parent / "goldens"


def recorded():
    spec = golden.load("linknet_resnet18", GOLDENS)
    return {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()}


def test_the_authors_names_make_the_round_trip(tmp_path):
    state = recorded()
    model = pw.create("linknet", classes=19).eval()
    report = pw.load_weights(model, state)
    assert report.missing == report.unexpected == report.unused == ()
    assert len(report.matched) == len(state)
    assert model.architecture.options["port"] == "pytorch"
    save_weights(model, tmp_path / "model.safetensors")
    other = pw.create("linknet", classes=19).eval()
    pw.load_weights(other, tmp_path / "model.safetensors")
    image = torch.randn(1, 3, 64, 97)
    assert torch.equal(model(image), other(image))


def test_the_names_of_the_variant_with_its_own_blocks_are_read_alike():
    state = recorded()
    renamed = {}
    for key, value in state.items():
        key = re.sub(r"^(encoder\d)\.(\d)\.", lambda found: f"{found[1]}.block{int(found[2]) + 1}.", key)
        renamed[key.replace("in_block.0.", "conv1.").replace("in_block.1.", "bn1.")] = value
    one, other = pw.create("linknet", classes=19).eval(), pw.create("linknet", classes=19).eval()
    assert pw.load_weights(one, state).layout == pw.load_weights(other, renamed).layout
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(one(image), other(image))


def test_weights_of_a_network_without_this_decoder_are_refused():
    with pytest.raises(pw.WeightsError):
        pw.load_weights(pw.create("segformer-b0", classes=19), recorded())
