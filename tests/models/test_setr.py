"""SETR against the recorded outputs of its reference implementation."""

import math

import golden
import pytest
import torch
from meeting import on_the_way, worst_errors
from unfilled import unfilled

import pixelwise as pw
from pixelwise.upsampling import upsample

KINDS = ("naive", "pup", "mla")
NAMES = [f"setr_{kind}_dim192_img128{suffix}" for kind in KINDS for suffix in ("", "_eps")]


def network_of(name, **options):
    return pw.create(f"setr-{name.split('_')[1]}", classes=19, encoder="vit-tiny", **options)


def outputs(model, image, run):
    maps, decoded, full = on_the_way(model, image)
    found = {"logits": full, "tokens_last": model.encoder.tokens(image)[-1]}
    found |= {name: upsample(aux, image.shape[-2:]) for name, aux in decoded.aux.items()}
    if hasattr(model.decoder, "sums"):
        found |= {f"mla_p{i + 2}": one for i, one in enumerate(model.decoder.sums(maps))}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_output_of_the_reference_is_met(name, record_property):
    errors = worst_errors(name, lambda: network_of(name), outputs)
    record_property(f"{name} plain", max(errors.values()))
    assert max(errors.values()) <= 5e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_fused_network_meets_the_recorded_logits_without_auxiliary_heads(name, record_property):
    spec = golden.load(name)
    for rule in spec["rules"]:
        with unfilled():
            model = network_of(name).eval()
        pw.load_weights(model, {key: torch.from_numpy(value) for key, value in golden.weights(spec, rule).items()})
        fused = pw.fuse(model)
        image = torch.from_numpy(golden.inputs(spec, "sq"))
        error = golden.compare(spec, f"{rule}/eval/sq/logits", fused(image).numpy())
        record_property(f"{name} fused", float(error))
        assert error <= 5e-6
        assert fused.decode(image).aux == {}
        assert not any(".auxiliary." in key for key in fused.state_dict())
        assert len(model.decoder.auxiliary) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_recorded_less_the_classifiers_that_are_never_called(kind):
    spec = golden.load(f"setr_{kind}_dim192_img128")
    unused = sum(math.prod(shape) for name, shape, _ in spec["state_dict"] if ".conv_seg." in name)
    with torch.device("meta"):
        model = network_of(f"setr_{kind}", image_size=128)
    assert sum(p.numel() for p in model.parameters()) == spec["params"] - unused


@pytest.mark.parametrize(("kind", "millions"), [("naive", 306), ("pup", 318), ("mla", 311)])
def test_the_large_networks_have_the_parameters_of_the_paper(kind, millions):
    with torch.device("meta"):
        model = pw.create(f"setr-{kind}", classes=19, image_size=768)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1.2)


@pytest.mark.parametrize("kind", KINDS)
def test_auxiliary_heads_weigh_two_fifths_and_every_parameter_learns_at_an_odd_size(kind):
    torch.manual_seed(0)
    model = network_of(f"setr_{kind}", bands=4, image_size=64).train()
    assert model.aux_weights == dict.fromkeys(("aux0", "aux1", "aux2", "aux3"), 0.4)
    image = torch.randn(2, 4, 77, 101)
    decoded = model.decode(image)
    assert set(decoded.aux) == set(model.aux_weights)
    loss = model(image).square().mean() + sum(aux.square().mean() for aux in decoded.aux.values())
    loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # MLA leaves the class token out, as its release does, but keeps it among the weights.
    assert idle == ({"encoder.class_token"} if kind == "mla" else set())


def test_strides_of_the_logits():
    image = torch.randn(1, 3, 64, 64)
    for kind, side, aux_side in (("naive", 4, 4), ("pup", 32, 16), ("mla", 16, 4)):
        decoded = network_of(f"setr_{kind}", image_size=64).eval().decode(image)
        assert decoded.logits.shape == (1, 19, side, side)
        assert all(aux.shape == (1, 19, aux_side, aux_side) for aux in decoded.aux.values())


def test_a_pyramid_has_an_auxiliary_head_on_each_of_its_last_four_maps():
    model = pw.create("setr-pup", classes=3, encoder="mit-b0").eval()
    decoded = model.decode(torch.randn(1, 3, 77, 131))
    assert decoded.logits.shape[-2:] == (24, 40)
    assert [tuple(aux.shape[-2:]) for aux in decoded.aux.values()] == [(20, 33), (20, 34), (20, 36), (12, 20)]


def test_aggregation_refuses_a_pyramid_and_says_what_to_take():
    with pytest.raises(pw.ConfigError, match=r"2, 4, 8, 16, 32.*encoder='vit-small'.*decoder='setr-pup'"):
        pw.create("setr-mla", classes=3, encoder="resnet18")


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("naive", {"kernel": 5}, "one of 1, 3, not 5"),
        ("pup", {"decoder_channels": 0}, "from 1 on"),
        ("mla", {"stream_channels": 0}, "from 1 on"),
    ],
)
def test_what_cannot_be_built_says_what_can(kind, options, words):
    with pytest.raises(pw.ConfigError, match=words):
        network_of(f"setr_{kind}", **options)
