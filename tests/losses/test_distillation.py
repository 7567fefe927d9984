"""What a teacher says."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.losses.distillation import distillation_loss


@given(seed=st.integers(0, 99), temperature=st.floats(0.5, 8))
def test_its_gradient_is_the_difference_of_the_softened_probabilities(seed, temperature):
    torch.manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher, counted = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.rand(2, 4, 5) < 0.6
    distillation_loss(logits, teacher, counted, temperature).backward()
    # Hinton et al. 2015, eq. 2: (1/T)(q - p), here times T squared, over the cells that count.
    q, p = (torch.softmax(each.detach() / temperature, dim=1) for each in (logits, teacher))
    expected = temperature * (q - p) * counted[:, None] / max(1, int(counted.sum()))
    torch.testing.assert_close(logits.grad, expected)


def test_it_is_torch_s_divergence_0_for_equals_and_0_where_nothing_counts():
    torch.manual_seed(0)
    logits, teacher, everywhere = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3), torch.ones(1, 3, 3, dtype=bool)
    expected = torch.nn.functional.kl_div(
        torch.log_softmax(logits, dim=1), torch.log_softmax(teacher, dim=1), log_target=True, reduction="sum"
    )
    torch.testing.assert_close(distillation_loss(logits, teacher, everywhere, 1.0), expected / 9)
    assert distillation_loss(teacher, teacher, everywhere, 3.0) == 0
    assert distillation_loss(logits, teacher, ~everywhere, 1.0) == 0
