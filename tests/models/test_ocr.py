"""Object-contextual representations, against the recorded outputs of the reference implementations."""

import golden
import pytest
import torch
from meeting import worst_errors
from unfilled import unfilled

import pixelwise as pw

NAMES = ["hrnetocr_w18", "hrnetocr_w18_eps", "hrnetocr_w18_mmseg122"]


def outputs(model, image, run):
    branches = model.encoder(image)
    decoded = model.decoder(branches)
    found = {"logits_s4": decoded.logits, "logits_head": decoded.logits}
    for i, branch in enumerate(branches):
        found |= {f"feat{i}": branch, f"stage4_{i}": branch}
    for aux in decoded.aux.values():
        found |= {"aux_s4": aux, "stage0": aux}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_output_of_the_references_is_met(name, record_property):
    # Rule w1 makes the attention between pixels and objects a matter of rounding; the recorded noise says so.
    rules = None if name.endswith("_eps") else ("w3",)
    errors = worst_errors(name, lambda: pw.create("hrnet-w18-ocr", classes=19), outputs, rules=rules)
    record_property(f"{name} plain", max(errors.values()))
    assert max(errors.values()) <= 5e-6


@pytest.mark.parametrize("name", ["hrnetocr_w18", "hrnetocr_w18_mmseg122"])
def test_the_fused_network_meets_the_recorded_logits(name, record_property):
    spec = golden.load(name)
    with unfilled():
        model = pw.create("hrnet-w18-ocr", classes=19).eval()
    pw.load_weights(model, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w3").items()})
    assert sum(p.numel() for p in model.parameters()) == spec["params"]
    with torch.no_grad():
        decoded = pw.fuse(model).decode(torch.from_numpy(golden.inputs(spec, "sq")))
    assert decoded.aux == {}
    output = next(name for name in spec["outputs"] if name.startswith("w3/eval/sq/logits"))
    error = golden.compare(spec, output, decoded.logits.numpy())
    record_property(f"{name} fused", float(error))
    assert error <= 5e-6
