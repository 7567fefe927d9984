import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pixelwise as pw
from pixelwise.fast import trained_linear
from pixelwise.fast.trained_linear import LARGE, TrainedLinear, train_faster

LARGE_SHAPE = (4, 32, 64, 64)
"""Of tokens that 64 outputs make a large product of."""


def layer_of(weight, bias=None):
    layer = TrainedLinear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer


@pytest.mark.parametrize("shape", [LARGE_SHAPE, (2, 3, 5, 64)], ids=["large", "small"])
def test_the_map_and_its_gradients_are_those_of_the_plain_formula(shape):
    torch.manual_seed(0)
    tokens, weight, bias, by_output = torch.randn(*shape), torch.randn(64, 64), torch.randn(64), torch.randn(*shape)
    exact = [each.double().requires_grad_() for each in (tokens, weight, bias)]
    layer, tokens = layer_of(weight, bias), tokens.requires_grad_()
    found, expected = layer(tokens), F.linear(*exact)
    assert torch.allclose(found, expected.float(), atol=1e-4)
    ours = torch.autograd.grad(found, [tokens, layer.weight, layer.bias], by_output)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, exact, by_output.double()), strict=True):
        assert (mine - theirs).abs().max() <= 1e-6 * theirs.abs().max()


def test_a_gradient_that_does_not_lie_in_one_piece_is_the_same():
    tokens, layer = torch.randn(LARGE_SHAPE, requires_grad=True), layer_of(torch.randn(64, 64))
    assert tokens.numel() * 64 >= LARGE
    layer(tokens).transpose(0, 1).sum().backward()
    assert torch.allclose(layer.weight.grad, tokens.detach().sum(dim=(0, 1, 2)).expand(64, -1), rtol=1e-3, atol=1e-2)
    assert torch.allclose(tokens.grad, layer.weight.detach().sum(dim=0).expand(LARGE_SHAPE), atol=1e-4)


def test_a_weight_that_takes_no_gradient_gets_none():
    tokens, layer = torch.randn(LARGE_SHAPE, requires_grad=True), layer_of(torch.randn(64, 64)).requires_grad_(False)
    layer(tokens).sum().backward()
    assert tokens.grad is not None
    assert layer.weight.grad is None


def test_under_autocast_the_product_is_of_half_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer_of(torch.randn(64, 64))(torch.randn(LARGE_SHAPE))
    assert found.dtype == torch.bfloat16


def test_without_onednns_operators_torch_multiplies(monkeypatch):
    monkeypatch.setattr(trained_linear, "linear_operators", lambda *_: None)
    tokens, layer = torch.randn(LARGE_SHAPE), layer_of(torch.randn(64, 64))
    assert torch.equal(layer(tokens), F.linear(tokens, layer.weight))


def test_a_network_keeps_its_parameters_and_is_fused_as_before():
    model = pw.create("segformer-b0", classes=3).eval()
    image, names = torch.randn(1, 3, 64, 64), list(model.state_dict())
    with torch.no_grad():
        expected = model(image)
        train_faster(model)
        assert any(isinstance(each, TrainedLinear) for each in model.modules())
        assert list(model.state_dict()) == names
        assert torch.equal(model(image), expected)
        fused = pw.fuse(model)
        assert not any(isinstance(each, TrainedLinear) for each in fused.modules())
        assert torch.allclose(fused(image), expected, atol=1e-5)
