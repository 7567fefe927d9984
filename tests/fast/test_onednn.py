"""oneDNN's private operators are used where they are there and right, and nowhere else."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import pixelwise as pw
from pixelwise.fast import onednn
from pixelwise.fast.convolution import FusedConvolution
from pixelwise.fast.linear import PackedLinear


class Operator:
    """Stands where an operator and its overload stand."""

    def __init__(self, answer):
        self.answer = self.binary = answer

    def __call__(self, *arguments):
        return self.answer(*arguments)


def wrong(*arguments):
    return torch.zeros(1)


def refusing(*arguments):
    raise RuntimeError("other arguments are expected")


def without(monkeypatch, way):
    """Let torch lack the operators, or have others under their names."""
    if way == "missing":
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    elif way == "partly missing":
        monkeypatch.delattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_linear_pointwise=torch.ops.mkldnn._linear_pointwise))
    else:
        other = Operator({"wrong": wrong, "refusing": refusing}[way])
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", other)
        monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", other)


WAYS = ["missing", "partly missing", "wrong", "refusing"]
VALUES, WEIGHT = torch.ones(1, 4), torch.ones(4, 4)


def test_here_the_operators_are_there_and_right():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch is built without oneDNN")
    assert onednn.linear_operators(VALUES, WEIGHT) is not None
    assert onednn.convolution_operators(VALUES, WEIGHT) is not None


@pytest.mark.parametrize("way", WAYS)
def test_operators_that_are_missing_or_answer_otherwise_are_not_used(way, monkeypatch):
    without(monkeypatch, way)
    assert onednn.linear_operators(VALUES, WEIGHT) is None
    assert onednn.convolution_operators(VALUES, WEIGHT) is None


def test_they_stand_still_while_the_user_has_switched_onednn_off():
    with torch.backends.mkldnn.flags(enabled=False):
        assert onednn.linear_operators(VALUES, WEIGHT) is None
        assert onednn.convolution_operators(VALUES, WEIGHT) is None


def test_they_stand_still_for_gradients_other_numbers_autocast_and_nothing():
    assert onednn.linear_operators(VALUES.clone().requires_grad_(), WEIGHT) is None
    assert onednn.linear_operators(VALUES.double(), WEIGHT.double()) is None
    assert onednn.linear_operators(VALUES.to("meta"), WEIGHT) is None
    assert onednn.linear_operators(VALUES[:0], WEIGHT) is None
    with torch.autocast("cpu"):
        assert onednn.linear_operators(VALUES, WEIGHT) is None


def test_trying_them_leaves_the_users_random_numbers_alone():
    state = torch.get_rng_state()
    onednn._linear_is_right.cache_clear()
    onednn._convolution_is_right.cache_clear()
    onednn.linear_operators(VALUES, WEIGHT)
    onednn.convolution_operators(VALUES, WEIGHT)
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_that_has_ordered_its_weights_does_without(way, kernel, monkeypatch):
    torch.manual_seed(0)
    plain = nn.Conv2d(64, 64, kernel, padding=kernel // 2)
    layer, image, beside = FusedConvolution(plain, nn.ReLU()), torch.randn(1, 64, 16, 16), torch.randn(1, 64, 16, 16)
    expected = layer(image, beside)
    without(monkeypatch, way)
    assert (layer(image, beside) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (layer(image) - plain(image).relu()).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_a_linear_layer_that_has_ordered_its_weights_does_without():
    plain = nn.Linear(48, 32)
    layer, tokens = PackedLinear(plain), torch.randn(3, 7, 48)
    layer(tokens)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(layer(tokens), plain(tokens))


@torch.no_grad()
def test_a_network_is_the_same_function_before_and_after_onednn_is_switched_off():
    torch.manual_seed(0)
    model, image = pw.create("segformer-b0", classes=3).eval(), torch.randn(1, 3, 64, 64)
    expected = model(image)
    with torch.backends.mkldnn.flags(enabled=False):
        fused = pw.fuse(model)
        assert (fused(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (fused(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
    with torch.backends.mkldnn.flags(enabled=False):
        assert (fused(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
