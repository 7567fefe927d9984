"""HarDNet's names: FC-HarDNet and the encoders trained on ImageNet."""

import re
from pathlib import Path

import golden
import pytest
import torch

import pixelwise as pw
from pixelwise.weights import save_weights

GOLDENS = Path(__file__).parent.parent / "goldens"

# Places of stem, blocks, 1x1 convolutions and strided convolutions in the release's row; pooling takes the others.
PLACES = {
    "hardnet-68": {"stem": (0, 1), "blocks": (3, 6, 8, 11, 14), "transitions": (4, 7, 9, 12, 15), "head": 16},
    "hardnet-39ds": {
        "stem": (0, 1),
        "blocks": (3, 6, 9, 12),
        "transitions": (4, 7, 10, 13),
        "halvings": (2, 5, 8, 11),
        "head": 14,
    },
}


def randomised(model):
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand(value.shape) + 0.5 if name.endswith("running_var") else 0.1 * torch.randn(value.shape)
            )
    return model.eval()


def released(name, encoder):
    """An encoder's state under the names of the release."""
    places, state = PLACES[name], {}
    for key, value in encoder.state_dict().items():
        part, index, rest = re.match(r"(\w+)\.(\d+)\.(.*)", key).groups()
        if part == "halvings":
            rest = rest.replace("convolution", "dwconv")
        rest = re.sub(r"^(layers\.\d+)\.0\.", r"\1.layer1.", rest)
        rest = re.sub(r"^(layers\.\d+)\.1\.convolution", r"\1.layer2.dwconv", rest)
        rest = re.sub(r"^(layers\.\d+)\.1\.", r"\1.layer2.", rest)
        state[f"base.{places[part][int(index)]}.{rest.replace('convolution', 'conv')}"] = value.clone()
    head = f"base.{places['head']}.3."
    return state | {f"{head}weight": torch.zeros(1000, encoder.channels[-1]), f"{head}bias": torch.zeros(1000)}


def test_fchardnet_makes_the_round_trip(tmp_path):
    spec = golden.load("fchardnet_70", GOLDENS)
    state = {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()}
    model = pw.create("fchardnet-70", classes=19).eval()
    report = pw.load_weights(model, {f"module.{key}": value for key, value in state.items()})
    assert report.layout == "FC-HarDNet"
    assert report.missing == report.unexpected == report.unused == ()
    assert len(report.matched) == len(state)
    assert model.align_corners
    save_weights(model, tmp_path / "model.safetensors")
    other = pw.create("fchardnet-70", classes=19).eval()
    pw.load_weights(other, tmp_path / "model.safetensors")
    image = torch.randn(1, 3, 64, 97)
    assert torch.equal(model(image), other(image))


@pytest.mark.parametrize("name", PLACES)
def test_an_imagenet_encoder_is_loaded_without_its_classifier(name):
    source = randomised(pw.create("fchardnet-70", classes=3, encoder=name))
    model = pw.create("fchardnet-70", classes=3, encoder=name).eval()
    report = pw.load_weights(model, released(name, source.encoder))
    assert report.layout == "HarDNet, ImageNet (encoder only)"
    assert len(report.unused) == 2
    assert report.unexpected == ()
    assert all(key.startswith("decoder.") for key in report.missing)
    image = torch.randn(1, 3, 64, 97)
    with torch.no_grad():
        for one, other in zip(source.encoder(image), model.encoder(image), strict=True):
            assert torch.equal(one, other)


def test_weights_of_another_variant_are_refused():
    source = pw.create("fchardnet-70", classes=3, encoder="hardnet-68")
    with pytest.raises(pw.WeightsError, match="variant"):
        pw.load_weights(pw.create("fchardnet-70", classes=3), released("hardnet-68", source.encoder))
