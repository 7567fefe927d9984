"""DINOv2 beside transformers' own classes, with the same random weights."""

import pytest
import torch
from test_eomt import close, shaken
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

import pixelwise as pw
from pixelwise.models.dinov2 import VARIANTS, Options, dinov2
from pixelwise.models.vit import resized_positions

SIZES = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": 70, "patch_size": 14}


def theirs(registers, gated):
    kind, config = (
        (Dinov2WithRegistersModel, Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4, use_swiglu_ffn=gated))
        if registers
        else (Dinov2Model, Dinov2Config(**SIZES, use_swiglu_ffn=gated))
    )
    return shaken(kind(config)).eval()


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_tokens_are_those_of_transformers(registers, gated):
    network = theirs(registers, gated)
    model = pw.create("segmenter-linear", classes=3, encoder="dinov2-small", dim=48, depth=6, heads=3).eval()
    report = pw.load_weights(model, network.state_dict())
    assert report.layout == "DINOv2, transformers (encoder only)"
    assert all(name.startswith("decoder.") for name in report.missing)
    assert report.unexpected == ()
    for height, width in ((70, 70), (56, 98), (140, 84)):
        image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        expected, found = network(image).last_hidden_state, model.encoder.tokens(image)[-1]
        assert found.shape == expected.shape
        assert close(found, expected)


@pytest.mark.parametrize(
    ("variant", "registers", "millions"),
    [("small", 0, 22.06), ("base", 0, 86.58), ("large", 0, 304.37), ("giant", 0, 1136.48), ("base", 4, 86.58)],
)
def test_variants_have_the_parameters_of_the_releases(variant, registers, millions):
    with torch.device("meta"):
        encoder = dinov2(variant, 3, Options(registers=registers))
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=1e-3)


def test_positions_are_resized_by_an_offset_factor_as_the_release_does():
    torch.manual_seed(0)
    positions = torch.randn(1, 1 + 25, 8)
    grid = positions[:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, scale_factor=((4 + 0.1) / 5, (7 + 0.1) / 5), mode="bicubic")
    found = resized_positions(positions, 1, (4, 7), "offset")
    assert torch.equal(found[:, 1:], expected.flatten(2).transpose(1, 2))
    # The factor, not the quotient of sizes, places the samples.
    assert not torch.allclose(found, resized_positions(positions, 1, (4, 7), "bicubic"), atol=1e-3)


def test_every_decoder_of_plain_transformers_takes_a_dinov2():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 75, 64)
    for name in ("segmenter-linear", "segmenter-mask", "setr-naive", "setr-pup", "setr-mla", "depict-sa", "eomt-s"):
        options = {"dim": 48, "depth": 6, "heads": 3, "image_size": 70, "patch": 14, "registers": 2}
        model = pw.create(name, classes=3, encoder="dinov2-small", **options)
        logits = model(image)
        assert logits.shape == (2, 3, 75, 64)
        logits.square().mean().backward()
        assert model.encoder.patches.weight.grad.abs().sum() > 0
    assert set(VARIANTS) == {"small", "base", "large", "giant"}
