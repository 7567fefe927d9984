"""Segmenter against the recorded outputs of its reference implementations."""

import golden
import pytest
import torch
import torch.nn.functional as F
from meeting import on_the_way, worst_errors

import pixelwise as pw

NETWORKS = {
    "segmenter_tiny_linear": "segmenter-linear",
    "segmenter_tiny_mask": "segmenter-mask",
    "segmenter_tiny_mask_eps": "segmenter-mask",
    "segmenter_t_mask_mmseg122": "segmenter-mask",
}


def outputs(model, image, run):
    height, width = image.shape[-2:]
    rows, columns = model.padded_size((height, width))
    padded = F.pad(image, (0, columns - width, 0, rows - height))
    maps, decoded, full = on_the_way(model, image)
    return {
        "logits": full,
        "masks_s16": decoded.logits,
        "logits_head": decoded.logits,
        "enc_tokens": model.encoder.tokens(padded)[-1],
        "feat0": maps[-1],
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_every_recorded_output_of_the_references_is_met(name, record_property):
    # Fused it is the same network: nothing here can be folded.
    errors = worst_errors(name, lambda: pw.create(NETWORKS[name], classes=150, encoder="vit-tiny"), outputs)
    record_property(f"{name} plain", max(errors.values()))
    assert max(errors.values()) <= 1e-5


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("_eps")])
def test_parameters_and_operations_are_those_recorded(name):
    spec = golden.load(name)
    options = {"patch_bias": False} if "mmseg" in name else {}
    with torch.device("meta"):
        model = pw.create(NETWORKS[name], classes=150, encoder="vit-tiny", **options)
    unused = 0 if "mmseg" in name else 1000 * 192 + 1000
    assert sum(p.numel() for p in model.parameters()) == spec["params"] - unused
    assert pw.cost(model, size=(512, 512)).flops == spec["flops_2mac"]["512"]


def test_every_parameter_of_the_mask_transformer_gets_a_gradient():
    torch.manual_seed(0)
    model = pw.create("segmenter-mask", classes=3, bands=4, encoder="vit-tiny", image_size=64).train()
    logits = model(torch.randn(2, 4, 77, 101))
    assert logits.shape == (2, 3, 77, 101)
    logits.square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_the_cells_of_a_convolutional_encoder_are_patches_too():
    model = pw.create("segmenter-mask", classes=3, encoder="resnet18").eval()
    decoded = model.decode(torch.randn(1, 3, 77, 131))
    assert decoded.logits.shape == (1, 3, 3, 5)
    assert decoded.features.shape == (1, 512, 3, 5)


@pytest.mark.parametrize(
    ("options", "words"), [({"decoder_depth": 0}, "from 1 on"), ({"dropout": 1}, "below 1"), ({"depht": 2}, "depth")]
)
def test_what_cannot_be_built_says_what_can(options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create("segmenter-mask", classes=3, encoder="vit-tiny", **options)
