"""Rates of layers, and what is left out; rates of steps; averages."""

import copy

import numpy as np
import pytest
import torch

import pixelwise as pw
from pixelwise.config import Config
from pixelwise.training.optimizer import (
    MovingAverage,
    layer_factors,
    learning_rates,
    parameter_groups,
    rate_factor,
)


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


def torch_factors(steps, schedule_of):
    """The factors that a schedule of torch gives, from a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = schedule_of(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps", [4, 10, 57, 1000])
def test_schedules_are_those_of_torch(steps):
    def one_cycle(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps + 1)

    def own(schedule, total):
        return [rate_factor(i, steps=total, warmup=0, power=1.0, schedule=schedule) for i in range(steps)]

    assert own("one_cycle", steps + 1) == pytest.approx(torch_factors(steps, one_cycle), abs=1e-9)
    cosine = torch_factors(steps, lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps))
    assert own("cosine", steps) == pytest.approx(cosine, abs=1e-9)


def test_the_cosine_warms_up_and_short_cycles_stay_between_0_and_1():
    warm = [rate_factor(i, steps=100, warmup=10, power=1.0, schedule="cosine") for i in range(100)]
    assert warm[0] == pytest.approx(0.1)
    assert np.argmax(warm) in (9, 10)
    for steps in (1, 2, 3):
        factors = [rate_factor(i, steps=steps, warmup=0, power=1.0, schedule="one_cycle") for i in range(steps)]
        assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize(("decay", "tail"), [(0.9, None), (0.999, None), (0.9, 6)])
def test_the_average_is_what_a_loop_gives(decay, tail):
    torch.manual_seed(0)
    model = pw.create("unet", classes=2, filters=[2, 4])
    average = MovingAverage(model, copy.deepcopy(model), decay, tail)
    name = next(key for key, _ in model.named_parameters())
    history, expected = [], model.state_dict()[name].clone().double()
    for step in range(12):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        history.append(model.state_dict()[name].clone().double())
        average.update(step)
        if tail is None or step < tail:
            share = min(decay, (1 + step) / (10 + step))
            expected = share * expected + (1 - share) * history[-1]
        else:
            expected = torch.stack(history[tail:]).mean(dim=0)
        torch.testing.assert_close(average.average.state_dict()[name].double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "given", "expected"),
    [
        ({}, False, (1e-3, 1.0)),
        ({}, True, (6e-5, 10.0)),
        ({"schedule": "one_cycle"}, False, (2e-3, 1.0)),
        ({"optimizer": "lion"}, False, (1e-3 / 3, 1.0)),
        ({"optimizer": "lion", "schedule": "one_cycle"}, True, (4e-5, 10.0)),
        ({"optimizer": "lion", "schedule": "one_cycle", "learning_rate": 0.1, "decoder_lr_mult": 2}, True, (0.1, 2.0)),
    ],
)
def test_default_rates_follow_the_optimiser_and_the_schedule_and_own_ones_stand(settings, given, expected):
    data = {"images": "images", "labels": "masks", "classes": ["a", "b"]}
    model = {"weights": "w.safetensors"} if given else {}
    config = Config.model_validate({"data": data, "model": model, "train": settings})
    assert learning_rates(config) == pytest.approx(expected)
