"""Rates of layers, and what is left out."""

import pytest
import torch

import pixelwise as pw
from pixelwise.training.optimizer import layer_factors, parameter_groups


def groups_of(model, **options):
    return parameter_groups(model, **{"rate": 1e-3, "decoder_lr_mult": 10.0, "weight_decay": 0.01, **options})


def test_every_parameter_is_in_one_group_and_only_matrices_decay():
    model = pw.create("segformer-b0", classes=3)
    groups = groups_of(model)
    placed = [id(p) for group in groups for p in group["params"]]
    assert sorted(placed) == sorted(id(p) for p in model.parameters())
    assert all((group["weight_decay"] > 0) == (p.ndim > 1) for group in groups for p in group["params"])
    assert {group["lr"] for group in groups} == {1e-3, 1e-2}


EXEMPT = ("class_token", "distillation_token", "positions", "class_embeddings", "scale1", "scale2", "step", "bias")


@pytest.mark.parametrize(
    "name", ["segmenter-mask", "segmenter-linear", "setr-mla", "setr-pup", "depict-sa", "depict-ca", "segnext-t"]
)
def test_tokens_embeddings_scales_and_biases_do_not_decay_but_matrices_do(name):
    options = {} if name == "segnext-t" else {"encoder": "vit-tiny", "image_size": 64, "distilled": True}
    with torch.device("meta"):
        model = pw.create(name, classes=3, **options)
    decay = {id(p): group["weight_decay"] for group in groups_of(model) for p in group["params"]}
    matrices = {
        id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    for key, parameter in model.named_parameters():
        assert (decay[id(parameter)] > 0) == (id(parameter) in matrices), key
        if key.rpartition(".")[2] in EXEMPT:
            assert decay[id(parameter)] == 0, key


def test_a_frozen_encoder_is_left_to_itself():
    model = pw.create("segformer-b0", classes=3)
    model.encoder.requires_grad_(False)
    placed = {id(p) for group in groups_of(model) for p in group["params"]}
    assert placed == {id(p) for p in model.decoder.parameters()}


@pytest.mark.parametrize(
    "name",
    ["segformer-b0", "pspnet", "unet", "hrnet-w18", "segnext-t", "fchardnet-70", "segmenter-linear"],
)
def test_rates_rise_along_the_way_of_an_image(name):
    options = {"encoder": "vit-tiny", "image_size": 64} if name == "segmenter-linear" else {}
    model = pw.create(name, classes=3, **options)
    factors = layer_factors(model, 0.1)
    assert set(factors) == {key for key, _ in model.encoder.named_parameters()}
    assert min(factors.values()) == pytest.approx(0.1)
    assert max(factors.values()) == pytest.approx(1.0)


def test_a_block_of_a_later_stage_learns_faster():
    factors = layer_factors(pw.create("segformer-b0", classes=3), 0.01)
    ways = [factors[f"stages.{i}.1.feed_forward.project.weight"] for i in range(4)]
    assert ways == sorted(ways)
    assert ways[0] < ways[3]
    assert factors["embeddings.1.projection.weight"] > factors["stages.0.1.feed_forward.project.weight"]


def test_the_groups_follow_the_factors():
    torch.manual_seed(0)
    model = pw.create("segformer-b0", classes=3)
    factors = layer_factors(model, 0.1)
    named = {id(p): name for name, p in model.encoder.named_parameters()}
    for group in groups_of(model, first_layer_lr_mult=0.1):
        for parameter in group["params"]:
            factor = factors[named[id(parameter)]] if id(parameter) in named else 10.0
            assert group["lr"] == pytest.approx(1e-3 * factor)
