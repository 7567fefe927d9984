import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss
from pixelwise.losses.pixels import focal_parts


@st.composite
def images(draw):
    """Draw logits at the mask's own size, whose losses are all different, and a mask."""
    size = draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = 2 * torch.randn(*size, dtype=torch.float64, generator=generator)
    return logits, torch.randint(IGNORE, size[1], (size[0], *size[2:]), generator=generator)


def pixel_losses(logits, mask):
    return F.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="none").numpy()


def only(**options):
    return LossConfig(**({"cross_entropy": 0.0} | options))


@given(st.lists(st.just(0.0) | st.floats(1e-9, 40), min_size=1, max_size=9), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_the_focal_loss_and_its_slope_are_those_of_the_formula(losses, gamma):
    pixel_loss = torch.tensor(losses, dtype=torch.float64)
    value, slope = focal_parts(pixel_loss, gamma)
    probability = np.exp(-pixel_loss.numpy())
    miss = -np.expm1(-pixel_loss.numpy())
    np.testing.assert_allclose(value, miss**gamma * -np.log(probability), rtol=1e-9, atol=1e-15)
    with np.errstate(divide="ignore", invalid="ignore"):
        derivative = miss**gamma + gamma * miss ** (gamma - 1) * probability * pixel_loss.numpy()
    derivative = np.where(pixel_loss.numpy() == 0, float(gamma == 0), derivative)
    np.testing.assert_allclose(slope, derivative, rtol=1e-9)


@given(images())
def test_a_focal_loss_with_gamma_0_is_the_cross_entropy(case):
    logits, mask = case
    weights = torch.linspace(0.5, 1.5, logits.shape[1])
    focal = segmentation_loss(logits, mask, only(focal=1.0, focal_gamma=0.0), class_weights=weights)
    torch.testing.assert_close(focal, segmentation_loss(logits, mask, class_weights=weights))


def test_a_pixel_that_is_certain_in_float32_gives_a_focal_loss_and_slope_of_0():
    logits = torch.tensor([200.0, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = segmentation_loss(logits, torch.zeros(1, 1, 1, dtype=torch.long), only(focal=1.0, focal_gamma=0.5))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@given(images(), st.floats(0, 1), st.integers(1, 40))
def test_hard_examples_are_those_below_the_threshold_or_the_hardest(case, threshold, keep):
    logits, mask = case
    loss = segmentation_loss(logits, mask, only(ohem=1.0, ohem_threshold=threshold, ohem_min_kept=keep)).item()
    hardest = np.sort(pixel_losses(logits, mask)[mask.numpy() != IGNORE])[::-1]
    count = max(keep, int((np.exp(-hardest) < threshold).sum()))
    assert loss == pytest.approx(hardest[:count].mean() if len(hardest) else 0)


def test_hard_examples_that_all_tie_are_all_kept():
    loss = segmentation_loss(
        torch.zeros(1, 2, 4, 4),
        torch.zeros(1, 4, 4, dtype=torch.long),
        only(ohem=1.0, ohem_threshold=0.2, ohem_min_kept=3),
    )
    assert loss.item() == pytest.approx(np.log(2))


@given(images(), st.floats(0, 4), st.integers(1, 40))
def test_bootstrapping_takes_each_images_worst_pixels(case, threshold, keep):
    logits, mask = case
    losses = only(bootstrapped=1.0, bootstrapped_threshold=threshold, bootstrapped_min_kept=keep)
    loss = segmentation_loss(logits, mask, losses).item()
    means = []
    for losses, own_mask in zip(pixel_losses(logits, mask), mask.numpy(), strict=True):
        worst = np.sort(losses[own_mask != IGNORE])[::-1]
        if len(worst):
            means.append(worst[: max(keep, int((worst > threshold).sum()))].mean())
    assert loss == pytest.approx(np.mean(means) if means else 0)


@pytest.mark.parametrize("name", ["ohem", "bootstrapped"])
def test_class_weights_are_factors_of_the_kept_pixels_losses(name):
    logits, mask = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 8, 8))
    weights = torch.tensor([0.5, 1.0, 2.0])
    loss = segmentation_loss(logits, mask, only(**{name: 1.0}), class_weights=weights)
    expected = F.cross_entropy(logits, mask, weights, reduction="none").mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["ohem", "bootstrapped"])
def test_only_kept_pixels_have_a_gradient(name):
    logits, mask = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randint(0, 3, (2, 6, 6))
    options = {"ohem_min_kept": 10, "ohem_threshold": 0.0, "bootstrapped_min_kept": 5, "bootstrapped_threshold": 100.0}
    segmentation_loss(logits, mask, only(**{name: 1.0}, **options)).backward()
    assert int(logits.grad.abs().sum(dim=1).count_nonzero()) == 10
