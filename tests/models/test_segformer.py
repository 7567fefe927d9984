"""SegFormer against the recorded outputs of its reference implementations, and against transformers."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pixelwise as pw

GOLDENS = Path(__file__).parent.parent / "goldens"
sys.path.insert(0, str(GOLDENS))
import golden  # noqa: E402  the recorder's own reader, kept beside its files

NAMES = sorted(path.stem for path in GOLDENS.glob("segformer_*.npz"))
TOLERANCE = 5e-6


def outputs_of(model, image, names):
    features = model.encoder(image)
    logits = model.decode(image).logits
    out = {"logits_s4": logits, "logits_head": logits, "encode_decode": model(image)}
    for i, feature in enumerate(features):
        out |= {f"c{i + 1}": feature, f"hidden{i}": feature, f"feat{i}": feature}
    return {name: out[name] for name in names}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["plain", "fused"])
def test_every_recorded_output_of_the_references_is_met(name, form):
    spec = golden.load(name, GOLDENS)
    worst = {}
    for rule in spec["rules"]:
        state = {key: torch.from_numpy(value) for key, value in golden.weights(spec, rule).items()}
        model = pw.create(f"segformer-{spec['variant'][:2]}", classes=150).eval()
        pw.load_weights(model, state)
        model = pw.fuse(model) if form == "fused" else model
        for recorded in spec["outputs"]:
            got_rule, run, tag, output = recorded.split("/")
            assert run == "eval"
            if got_rule == rule:
                with torch.no_grad():
                    got = outputs_of(model, torch.from_numpy(golden.inputs(spec, tag)), [output])[output]
                worst[recorded] = golden.compare(spec, recorded, got.numpy())
    print({k: f"{v:.1e}" for k, v in worst.items()})
    assert worst
    assert max(worst.values()) <= TOLERANCE
