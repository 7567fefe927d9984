"""Lion against the paper's algorithm, written with numpy."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pixelwise.training.lion import Lion


@given(
    seed=st.integers(0, 999),
    rate=st.floats(1e-4, 1e-1),
    decay=st.floats(0, 1),
    fast=st.floats(0.5, 0.99),
    slow=st.floats(0.5, 0.999),
)
def test_weights_are_those_of_algorithm_2(seed, rate, decay, fast, slow):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(5, 3, 4))
    gradients[2, 0] = 0.0
    expected, momentum = rng.normal(size=(3, 4)), np.zeros((3, 4))
    weight = nn.Parameter(torch.from_numpy(expected.copy()))
    optimizer = Lion([weight], lr=rate, betas=(fast, slow), weight_decay=decay)
    for gradient in gradients:
        update = np.sign(fast * momentum + (1 - fast) * gradient)
        expected = expected - rate * (update + decay * expected)
        momentum = slow * momentum + (1 - slow) * gradient
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_weight_without_a_gradient_stays_and_a_state_is_taken_up_again():
    torch.manual_seed(0)
    first, idle = nn.Parameter(torch.randn(4)), nn.Parameter(torch.ones(2))
    optimizer = Lion([first, idle], lr=0.1, weight_decay=0.5)
    first.grad = torch.randn(4)
    optimizer.step()
    assert torch.equal(idle, torch.ones(2))
    second = nn.Parameter(first.detach().clone())
    other = Lion([second, nn.Parameter(torch.ones(2))], lr=0.1, weight_decay=0.5)
    other.load_state_dict(optimizer.state_dict())
    first.grad = second.grad = torch.randn(4)
    optimizer.step()
    other.step()
    assert torch.equal(first, second)
