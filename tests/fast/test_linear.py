"""A packed linear layer is a linear layer, wherever it is sent."""

import copy
import io
import pickle

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import nn

import pixelwise as pw
from pixelwise.fast.linear import PackedLinear


@given(st.integers(1, 70), st.integers(1, 70), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.booleans())
def test_it_gives_what_a_linear_layer_gives(inputs: int, outputs: int, shape: list[int], bias: bool) -> None:
    linear = nn.Linear(inputs, outputs, bias=bias)
    tokens = torch.randn(*shape, inputs)
    packed = PackedLinear(copy.deepcopy(linear)).requires_grad_(False)
    expected = linear.double()(tokens.double())
    for _ in range(2):
        assert (packed(tokens) - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


@pytest.fixture
def used() -> tuple[nn.Linear, PackedLinear, torch.Tensor]:
    """A linear layer, and its packed copy that was called."""
    linear, tokens = nn.Linear(48, 32), torch.randn(3, 7, 48)
    packed = PackedLinear(copy.deepcopy(linear)).requires_grad_(False)
    packed(tokens)
    return linear, packed, tokens


def test_ordered_weights_do_not_outlive_a_cast(used: tuple) -> None:
    _, packed, tokens = used
    assert packed.bfloat16().ordered is None
    expected = F.linear(tokens, packed.float().weight, packed.bias)
    torch.testing.assert_close(packed(tokens), expected)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_what_was_used_can_be_copied_and_sent(used: tuple, way) -> None:
    linear, packed, tokens = used
    torch.testing.assert_close(way(packed)(tokens), linear(tokens))


def test_what_was_used_can_be_saved_and_moved(used: tuple) -> None:
    linear, packed, tokens = used
    file = io.BytesIO()
    torch.save(packed.state_dict(), file)
    assert torch.equal(packed.state_dict()["weight"], linear.weight)
    packed(tokens)
    torch.testing.assert_close(packed.double()(tokens.double()), linear.double()(tokens.double()))
    assert packed.to("meta")(tokens.to("meta")).shape == (3, 7, 32)


def test_it_passes_gradients_on_to_what_comes_before(used: tuple) -> None:
    linear, packed, tokens = used
    tokens.requires_grad_()
    (mine,) = torch.autograd.grad(packed(tokens).square().sum(), tokens)
    (expected,) = torch.autograd.grad(linear(tokens).square().sum(), tokens)
    torch.testing.assert_close(mine, expected)


def test_what_was_used_can_be_exported(used: tuple) -> None:
    linear, packed, tokens = used
    exported = torch.export.export(packed, (tokens,)).module()
    torch.testing.assert_close(exported(tokens), linear(tokens))


def test_a_fused_network_costs_the_same_after_its_use() -> None:
    fused = pw.fuse(pw.create("segformer-b0", classes=3))
    before = pw.cost(fused, size=(64, 64))
    fused.label_map(torch.randn(1, 3, 64, 64))
    assert pw.cost(fused, size=(64, 64)) == before
