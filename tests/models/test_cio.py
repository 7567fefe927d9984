"""Convolutional input and output, counted by hand and against the count of operations."""

import pytest
import torch

import pixelwise as pw
from pixelwise.models.cio import convolutional_traffic


def test_the_first_layers_are_as_counted_by_hand():
    with torch.device("meta"):
        rows = convolutional_traffic(pw.create("fchardnet-70", classes=19), (512, 1024))
    first, second, third = rows[0], rows[1], rows[2]
    assert first.name == "encoder.stem.0.convolution"
    assert first.macs == 16 * 3 * 9 * 256 * 512
    assert first.cio == 3 * 512 * 1024 + 16 * 256 * 512
    assert second.cio == (16 + 24) * 256 * 512
    assert third.macs_over_cio == pytest.approx(32 * 24 * 9 / (24 * 4 + 32))


def test_depthwise_and_transposed_convolutions_count_what_they_do():
    with torch.device("meta"):
        depthwise = convolutional_traffic(pw.create("linknet", classes=5, encoder="hardnet-39ds"), (64, 64))
    row = next(row for row in depthwise if row.name == "encoder.blocks.0.layers.0.1.convolution")
    assert (row.macs, row.cio) == (16 * 9 * 16 * 16, 2 * 16 * 16 * 16)
    last = depthwise[-1]
    assert last.name == "decoder.classifier"
    assert (last.macs, last.cio) == (32 * 5 * 4 * 32 * 32, 32 * 32 * 32 + 5 * 64 * 64)


@pytest.mark.parametrize("name", ["fchardnet-70", "linknet"])
def test_all_operations_of_a_convolutional_network_are_found(name):
    with torch.device("meta"):
        model = pw.create(name, classes=19)
    assert 2 * sum(row.macs for row in convolutional_traffic(model, (96, 160))) == pw.cost(model, size=(96, 160)).flops


def test_linear_layers_count_and_attention_does_not():
    with torch.device("meta"):
        model = pw.create("segformer-b0", classes=19)
    rows = {row.name: row for row in convolutional_traffic(model, (64, 64))}
    query = rows["encoder.stages.0.0.attention.query"]
    assert (query.macs, query.cio) == (32 * 32 * 16 * 16, 2 * 32 * 16 * 16)
    assert 2 * sum(row.macs for row in rows.values()) < pw.cost(model, size=(64, 64)).flops


def test_the_network_is_left_as_it_was():
    model = pw.create("fchardnet-70", classes=3).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    convolutional_traffic(model, (64, 64))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
