"""What a network sees, against networks whose field is known, and what is written of it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_network import small_network

import pixelwise as pw
from pixelwise.jobs.analyze import Field, analyze, effective_receptive_fields


@pytest.mark.parametrize(("stride", "reach"), [(4, 0), (4, 1), (8, 1)])
def test_a_convolution_sees_its_kernel_and_nothing_else(stride, reach):
    network = small_network(stride=stride, reach=reach)
    field = effective_receptive_fields(network, [torch.randn(1, 3, 64, 64)])[0]
    expected = network.encoder.convolution.weight.detach().sum(0).abs().sum(0).numpy()
    top = 32 - reach * stride
    side = (2 * reach + 1) * stride
    seen = field.gradient[top : top + side, top : top + side]
    assert np.allclose(seen, expected / expected.sum(), atol=1e-6)
    assert field.gradient.sum() == pytest.approx(seen.sum())


def test_a_segformer_sees_wider_from_stage_to_stage():
    torch.manual_seed(0)
    network = pw.create("segformer-b0", classes=3)
    fields = effective_receptive_fields(network, [torch.randn(1, 3, 128, 128)])
    assert [field.stage for field in fields] == ["stage 1", "stage 2", "stage 3", "stage 4", "head"]
    assert fields[0].side(0.5) < fields[2].side(0.5)
    assert network.training, "the network is left as it was"


def test_the_side_of_a_field_is_that_of_the_smallest_square():
    gradient = np.zeros((9, 9))
    gradient[4, 4], gradient[4, 6] = 0.6, 0.4
    field = Field("one", gradient)
    assert (field.side(0.5), field.side(0.6), field.side(0.61), field.side(1.0)) == (1, 1, 5, 5)


def test_the_picture_has_a_row_per_network_and_the_table_every_layer(tmp_path):
    analyze(["segformer-b0", "segformer-b1"], tmp_path / "out", images=1, size=64)
    picture = Image.open(tmp_path / "out" / "fields.png")
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert picture.height == 2 * (224 + 48)
    assert [one["name"] for one in found] == ["segformer-b0", "segformer-b1"]
    with torch.device("meta"):
        whole = pw.cost(pw.create("segformer-b0", classes=19), size=(64, 64))
    for key in ("parameters", "flops", "activation_bytes", "traffic_bytes"):
        assert sum(layer[key] for layer in found[0]["layers"].values()) == getattr(whole, key)


def test_what_is_neither_run_nor_network_is_named(tmp_path):
    with pytest.raises(pw.ConfigError, match="neither a run"):
        analyze([str(tmp_path)], tmp_path / "out")
