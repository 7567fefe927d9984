"""HRNet in its three versions, against the recorded outputs of its reference implementations."""

import golden
import pytest
import torch
from meeting import on_the_way, worst_errors
from unfilled import unfilled

import pixelwise as pw

NETWORKS = {
    "hrnetv2_w18_seg": ("hrnet-w18", 19, {}),
    "hrnetv2_w18_seg_eps": ("hrnet-w18", 19, {}),
    "hrnetv2_w18_seg_alignT": ("hrnet-w18", 19, {"align_corners": True}),
    "hrnetv2_w18_seg_alignT_eps": ("hrnet-w18", 19, {"align_corners": True}),
    "hrnetv2_w18_mmseg122": ("hrnet-w18", 19, {}),
    "hrnetv1_w32_pose": ("hrnetv1-w32", 17, {}),
}


def outputs(model, image, run):
    branches, decoded, _ = on_the_way(model, image)
    found = {name: decoded.logits for name in ("logits_s4", "logits_head", "out_s4")}
    for i, branch in enumerate(branches):
        found |= {f"stage4_{i}": branch, f"feat{i}": branch, f"branch{i}": branch}
    if hasattr(model.decoder, "pyramid"):
        found |= {f"p{i}": level for i, level in enumerate(model.decoder.pyramid(branches))}
    return found


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_recorded_output_of_the_references_is_met(name, fused, record_property):
    network, classes, options = NETWORKS[name]
    errors = worst_errors(name, lambda: pw.create(network, classes=classes, **options), outputs, fused=fused)
    record_property(f"{name} {'fused' if fused else 'plain'}", max(errors.values()))
    assert max(errors.values()) <= 5e-6


def test_every_level_of_the_recorded_pyramid_is_met():
    spec = golden.load("hrnetv2p_w18_hrfpn")
    for rule in spec["rules"]:
        model = pw.create("hrnetv2p-w18", classes=3).eval()
        state = {key: torch.from_numpy(value) for key, value in golden.weights(spec, rule).items()}
        report = pw.load_weights(model, state, partial=True)
        assert set(report.missing) == {"decoder.classifier.weight", "decoder.classifier.bias"}
        assert not report.unexpected
        for tag in ("sq", "ns"):
            with torch.no_grad():
                found = outputs(model, torch.from_numpy(golden.inputs(spec, tag)), "eval")
            for recorded in spec["outputs"]:
                if recorded.startswith(f"{rule}/eval/{tag}/"):
                    output = recorded.rpartition("/")[2]
                    assert golden.compare(spec, recorded, found[output].numpy()) <= 5e-6


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("_eps")])
def test_parameters_are_as_many_as_recorded(name):
    network, classes, options = NETWORKS[name]
    spec = golden.load(name)
    with unfilled():
        model = pw.create(network, classes=classes, **options)
    state = {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()}
    pw.load_weights(model, state)
    assert sum(p.numel() for p in model.parameters()) == spec["params"]


@pytest.mark.parametrize(("width", "size", "gmacs"), [("18", (1024, 2048), 147.4), ("48", (1024, 2048), 747.51)])
def test_operations_are_those_recorded_of_the_release(width, size, gmacs):
    with torch.device("meta"):
        found = pw.cost(pw.create(f"hrnet-w{width}", classes=19), size=size).flops / 2e9
    assert found == pytest.approx(gmacs, rel=2e-3)
