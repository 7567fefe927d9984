import pytest
import torch
import torch.nn.functional as F

from pixelwise.models import trained_linear
from pixelwise.models.trained_linear import TrainedLinear, linear, product

LARGE_SHAPE = (4, 32, 64, 64)
"""Of tokens that 64 outputs make a large product of."""


def gradients(function, tokens, weight, bias, by_output):
    return torch.autograd.grad(function(tokens, weight, bias), [tokens, weight, bias], by_output)


@pytest.mark.parametrize("shape", [LARGE_SHAPE, (2, 3, 5, 64)], ids=["large", "small"])
def test_a_linear_map_and_its_gradients_are_those_of_the_plain_formula(shape):
    torch.manual_seed(0)
    given = [torch.randn(*shape), torch.randn(64, 64), torch.randn(64), torch.randn(*shape)]
    exact = [each.double().requires_grad_() for each in given[:3]]
    ours = [each.requires_grad_() for each in given[:3]]
    assert torch.allclose(linear(*ours), F.linear(*exact).float(), atol=1e-4)
    found_ones = gradients(linear, *ours, given[3])
    for found, expected in zip(found_ones, gradients(F.linear, *exact, given[3].double()), strict=True):
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_a_gradient_that_does_not_lie_in_one_piece_is_the_same():
    tokens, weight = torch.randn(LARGE_SHAPE, requires_grad=True), torch.randn(64, 64, requires_grad=True)
    assert tokens.numel() * len(weight) >= trained_linear.LARGE
    linear(tokens, weight, None).transpose(0, 1).sum().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, tokens.detach().sum(dim=(0, 1, 2)).expand(64, -1), rtol=1e-3, atol=1e-2)
    assert torch.allclose(tokens.grad, weight.detach().sum(dim=0).expand(LARGE_SHAPE), atol=1e-4)


def test_a_large_product_has_a_second_derivative_too():
    tokens, weight = torch.randn(LARGE_SHAPE, requires_grad=True), torch.randn(64, 64, requires_grad=True)
    by_output = torch.randn(LARGE_SHAPE)
    (by_tokens,) = torch.autograd.grad(linear(tokens, weight, None), tokens, by_output, create_graph=True)
    (second,) = torch.autograd.grad(by_tokens.sum(), weight)
    assert torch.allclose(second, by_output.sum(dim=(0, 1, 2))[:, None].expand(64, 64), rtol=1e-3, atol=1e-2)


def test_a_weight_that_takes_no_gradient_gets_none():
    tokens, layer = torch.randn(LARGE_SHAPE, requires_grad=True), TrainedLinear(64, 64).requires_grad_(False)
    layer(tokens).sum().backward()
    assert tokens.grad is not None
    assert layer.weight.grad is None


def test_where_a_gradient_is_asked_for_the_product_is_one_that_has_it():
    tokens, weight = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4)
    product(tokens, weight, None).sum().backward()
    assert tokens.grad is not None
    assert torch.allclose(tokens.grad, weight.sum(dim=0).expand(3, -1))


def test_under_autocast_a_backward_pass_has_the_precision_of_the_forward_pass():
    tokens, weight = torch.randn(LARGE_SHAPE, requires_grad=True), torch.randn(64, 64, requires_grad=True)
    expected = torch.autograd.grad(linear(tokens, weight, None).sum(), [tokens, weight])
    total = linear(tokens, weight, None).sum()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(total, [tokens, weight])
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
