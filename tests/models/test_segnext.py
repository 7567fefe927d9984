"""SegNeXt against the recorded outputs of its reference implementations."""

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from meeting import on_the_way, worst_errors

import pixelwise as pw
from pixelwise.models import segnext
from pixelwise.models.layers import over_joined

NAMES = ["segnext_t_official", "segnext_t_official_eps", "segnext_t_mmseg122", "segnext_t_mmseg122_eps"]


def outputs(model, image, run):
    ham = model.decoder.ham
    # The reference drew bases for each image of the batch; what it drew for the first is what we draw for all.
    drawn = np.random.default_rng(4242).random((len(image), *ham.bases.shape[1:])).astype(np.float32)
    ham.bases = F.normalize(torch.from_numpy(drawn), dim=1)
    ham.training = run == "train_steps6"
    features, decoded, full = on_the_way(model, image)
    seen = {}
    squeeze = over_joined(model.decoder.squeeze, features[-3:], features[-3].shape[-2:])
    seen["squeeze"] = F.relu(model.decoder.squeeze_norm(squeeze))
    # The reference's ReLU works in place, so what was recorded has passed it.
    seen["ham_in"] = F.relu(model.decoder.bread_in(seen["squeeze"]))
    seen["ham_out"] = ham(seen["ham_in"])
    named = {f"{kind}{i + first}": f for i, f in enumerate(features) for kind, first in (("c", 1), ("feat", 0))}
    return {"logits_s8": decoded.logits, "logits_head": decoded.logits, "encode_decode": full, **seen, **named}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_output_of_the_references_is_met(name, fused, record_property):
    errors = worst_errors(name, lambda: pw.create("segnext-t", classes=150), outputs, fused=fused)
    record_property(f"{name} {'fused' if fused else 'plain'}", max(errors.values()))
    assert max(errors.values()) <= 5e-6


def test_the_bases_are_those_of_the_seed_for_every_image():
    ham = pw.create("segnext-t", classes=3).decoder.ham
    drawn = np.random.default_rng(4242).random((1, *ham.bases.shape[1:])).astype(np.float32)
    assert torch.equal(ham.bases, F.normalize(torch.from_numpy(drawn), dim=1))


@pytest.mark.parametrize(("variant", "millions"), [("t", 4.26), ("s", 13.9), ("b", 27.6), ("l", 48.9)])
def test_sizes_are_those_of_the_paper(variant, millions):
    with torch.device("meta"):
        model = pw.create(f"segnext-{variant}", classes=150)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_tiny_one_has_the_recorded_parameters():
    model = pw.create("segnext-t", classes=150)
    assert sum(p.numel() for p in model.parameters()) == golden.load("segnext_t_official")["params"]


@pytest.mark.parametrize(("variant", "gmacs"), [("t", 6.4), ("s", 15.65), ("b", 34.66), ("l", 69.69)])
def test_operations_are_near_those_recorded_of_the_release(variant, gmacs):
    with torch.device("meta"):
        found = pw.cost(pw.create(f"segnext-{variant}", classes=150), size=(512, 512)).flops / 2e9
    # Ours squeezes before it upsamples, which saves some; the recorded count leaves no room for more.
    assert 0.85 * gmacs <= found <= 1.01 * gmacs


def test_maps_that_are_made_again_change_no_gradient_and_are_not_kept(monkeypatch):
    torch.manual_seed(0)
    model, image = pw.create("segnext-t", classes=3, drop_path=0.0, dropout=0.0).train(), torch.randn(2, 3, 64, 64)

    def gradients():
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            logits = model.decode(image).logits
        return torch.autograd.grad(logits.square().sum(), list(model.parameters())), sum(kept)

    found, kept = gradients()
    monkeypatch.setattr(segnext, "made_again", lambda layer, image: layer(image))
    expected, plain = gradients()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert kept < 0.6 * plain
