"""Hierarchical attention, against the recorded outputs of its reference implementation."""

import golden
import pytest
import torch
from unfilled import unfilled

import pixelwise as pw
from pixelwise.models import MODELS

SCALES = {"nscale_0.5_1_2": (0.5, 1.0, 2.0), "nscale_0.25_0.5_1_1.5_2": (0.25, 0.5, 1.0, 1.5, 2.0)}


@pytest.fixture(scope="module")
def recorded():
    spec = golden.load("hmsa_hrnetw48_ocr")
    with unfilled():
        model = pw.create("hmsa", classes=19).eval()
    pw.load_weights(model, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w3").items()})
    return spec, model


def test_it_has_the_recorded_parameters(recorded):
    spec, model = recorded
    assert sum(p.numel() for p in model.parameters()) == spec["params"]


@torch.no_grad()
def test_one_scale_gives_the_recorded_answers_and_attention(recorded):
    spec, model = recorded
    image = torch.from_numpy(golden.inputs(spec, "sq"))
    decoded = model.decoder.network(model.encoder.network(image))
    answers, attention = model.decoder.answers(decoded, (128, 128)), model.decoder.trust(decoded, (128, 128))
    found = {"cls_out": answers["logits"], "aux_out": answers["regions"], "logit_attn": attention}
    for name, output in found.items():
        assert golden.compare(spec, f"w3/fwd1x/sq/{name}", output.numpy()) <= 5e-6


@torch.no_grad()
@pytest.mark.parametrize("tag", ["sq", "ns"])
def test_the_two_scales_of_training_are_mixed_as_recorded(recorded, tag, record_property):
    spec, model = recorded
    model.encoder.scales = model.encoder.training_scales
    decoded = model.decode(torch.from_numpy(golden.inputs(spec, tag)))
    error = golden.compare(spec, f"w3/two_scale/{tag}/pred", decoded.logits.numpy())
    record_property("hmsa_hrnetw48_ocr plain", error)
    assert error <= 5e-6


@torch.no_grad()
@pytest.mark.parametrize("run", SCALES)
def test_any_list_of_scales_is_mixed_as_recorded(recorded, run):
    spec, model = recorded
    model.encoder.scales = SCALES[run]
    image = torch.from_numpy(golden.inputs(spec, "sq"))
    assert golden.compare(spec, f"w3/{run}/sq/pred", model.decode(image).logits.numpy()) <= 5e-6
    assert golden.compare(spec, f"w3/{run}/sq/pred", pw.fuse(model)(image).numpy()) <= 1e-5


@pytest.mark.parametrize("network", ["segformer-b0", "segnext-t"])
def test_it_stands_around_any_network(network):
    model = pw.create("hmsa", classes=3, network=network)
    logits = model.train()(torch.randn(2, 3, 77, 99))
    assert logits.shape == (2, 3, 77, 99)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in model.decoder.attention.parameters())
    again = pw.create("hmsa", classes=3, **model.architecture.options)
    assert again.state_dict().keys() == model.state_dict().keys()


OTHERS = [name for name in MODELS if not name.startswith(("hrnet", "segformer-b", "segnext-", "eomt-"))]


@pytest.mark.parametrize("name", OTHERS)
def test_each_other_family_lets_it_see_what_its_classifier_sees(name):
    options = {"encoder": "vit-tiny", "image_size": 64} if MODELS[name].encoder == "vit-large" else {}
    with torch.device("meta"), unfilled():
        model = pw.create("hmsa", classes=3, network=name, **options).eval()
        assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)


def test_a_network_that_answers_with_masks_is_refused():
    with torch.device("meta"), pytest.raises(pw.ConfigError, match="answers with masks"):
        pw.create("hmsa", classes=3, network="eomt-s")


@torch.no_grad()
def test_an_image_that_is_too_small_at_some_scale_is_padded_there():
    torch.manual_seed(0)
    model = pw.create("hmsa", classes=3, network="segformer-b0", scales=[0.5, 1.0]).eval()
    image = torch.randn(1, 3, 40, 40)
    seen = []
    model.encoder.network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    assert model(image).isfinite().all()
    assert [one.shape[-2:] for one in seen] == [(40, 40), (32, 32)]
    assert seen[1][..., 20:, :].abs().max() == seen[1][..., 20:].abs().max() == 0


def test_scales_that_cannot_be_are_refused():
    with pytest.raises(pw.ConfigError, match="above 0, not -1"):
        pw.create("hmsa", classes=3, network="segformer-b0", scales=[0.5, -1])
