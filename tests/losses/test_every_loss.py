"""What holds for each loss and for their sum."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F

from pixelwise.config import TrainConfig
from pixelwise.labels import IGNORE
from pixelwise.loss_config import LOSSES
from pixelwise.losses import LossConfig, segmentation_loss

SETTINGS = {"ohem_min_kept": 40, "ohem_threshold": 0.2, "bootstrapped_min_kept": 30, "bootstrapped_threshold": 2.5}


def drawn(*shape, size, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, dtype=dtype, generator=generator)
    return logits, torch.randint(IGNORE, shape[1], (shape[0], *size), generator=generator)


def only(**losses):
    return LossConfig(**({"cross_entropy": 0.0} | SETTINGS | losses))


def loss_and_gradient(logits, mask, *, align_corners=False, **losses):
    logits = logits.clone().requires_grad_()
    loss = segmentation_loss(logits, mask, only(**losses), align_corners=align_corners)
    loss.backward()
    return loss.detach(), logits.grad


def test_each_loss_and_setting_is_a_key_of_the_configuration_with_the_same_default():
    names = [field.name for field in fields(LossConfig)]
    assert set(LOSSES) < set(names)
    assert {name: TrainConfig.model_fields[name].get_default() for name in names} == vars(LossConfig())


def test_the_keys_of_the_configuration_become_the_losses():
    given = {"cross_entropy": 0.25, "rmi": 0.5, "rmi_radius": 4, "ms_ssim_product": "unet3p", "foreground_only": True}
    assert TrainConfig(**given, steps=7).losses == LossConfig(**given)


@pytest.mark.parametrize("name", LOSSES)
def test_logits_that_only_ignored_pixels_see_change_neither_loss_nor_gradient(name):
    logits, mask = drawn(2, 3, 20, 24, size=(20, 24))
    other = torch.where(mask[:, None] == IGNORE, 9 * torch.randn(logits.shape), logits)
    loss, gradient = loss_and_gradient(logits, mask, **{name: 1.0})
    other_loss, other_gradient = loss_and_gradient(other, mask, **{name: 1.0})
    assert loss > 0 or name == "rmi"
    torch.testing.assert_close(other_loss, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-4, atol=1e-8)
    assert not gradient.movedim(1, -1)[mask == IGNORE].any()
    assert gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_valid_pixel_has_loss_0_and_gradient_0(name):
    logits, mask = drawn(2, 3, 5, 6, size=(20, 24))
    loss, gradient = loss_and_gradient(logits, torch.full_like(mask, IGNORE), **{name: 1.0})
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_that_is_ignored_whole_changes_nothing_for_the_others(name):
    logits, mask = drawn(2, 3, 5, 6, size=(20, 24))
    loss, gradient = loss_and_gradient(logits, mask, **{name: 1.0})
    both, more = torch.cat([logits + 3, logits]), torch.cat([torch.full_like(mask, IGNORE), mask])
    padded_loss, padded = loss_and_gradient(both, more, **{name: 1.0})
    torch.testing.assert_close(padded_loss, loss)
    torch.testing.assert_close(padded[2:], gradient)
    assert torch.equal(padded[:2], torch.zeros_like(logits))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_that_of_the_upsampled_logits(name, align_corners):
    logits, mask = drawn(2, 3, 5, 6, size=(21, 24), dtype=torch.float64)
    full = F.interpolate(logits, size=(21, 24), mode="bilinear", align_corners=align_corners)
    loss, _ = loss_and_gradient(logits, mask, align_corners=align_corners, **{name: 1.0})
    expected, _ = loss_and_gradient(full, mask, **{name: 1.0})
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_finite_differences(name, align_corners):
    logits, mask = drawn(2, 2, 2, 3, size=(17, 18), dtype=torch.float64)
    losses = only(**{name: 1.0})
    assert torch.autograd.gradcheck(
        lambda x: segmentation_loss(x, mask, losses, align_corners=align_corners), logits.requires_grad_()
    )


def test_the_loss_is_the_weighted_sum_and_so_is_its_gradient():
    logits, mask = drawn(2, 3, 5, 6, size=(20, 24), dtype=torch.float64)
    weights = {name: 0.3 + 0.1 * i for i, name in enumerate(LOSSES)}
    loss, gradient = loss_and_gradient(logits, mask, **weights)
    parts = [loss_and_gradient(logits, mask, **{name: 1.0}) for name in LOSSES]
    torch.testing.assert_close(loss, sum(w * part[0] for w, part in zip(weights.values(), parts, strict=True)))
    torch.testing.assert_close(gradient, sum(w * part[1] for w, part in zip(weights.values(), parts, strict=True)))


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", LOSSES)
def test_without_gradients_the_loss_is_the_same(name, without):
    logits, mask = drawn(2, 3, 5, 6, size=(20, 24))
    loss, _ = loss_and_gradient(logits, mask, **{name: 1.0})
    with without():
        assert segmentation_loss(logits.requires_grad_(), mask, only(**{name: 1.0})) == loss


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_computed_with_in_float32_also_under_autocast(name):
    logits, mask = drawn(2, 3, 5, 6, size=(20, 24))
    logits = logits.bfloat16()
    expected, slope = loss_and_gradient(logits.float(), mask, **{name: 1.0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradient = loss_and_gradient(logits, mask, **{name: 1.0})
    assert loss.dtype == torch.float32
    assert loss == expected
    assert torch.equal(gradient, slope.bfloat16())


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "rmi"])
def test_a_right_prediction_costs_nothing_and_one_that_is_8_pixels_off_does(name):
    mask = torch.zeros(1, 32, 32, dtype=torch.long)
    mask[:, 8:24, 4:20] = 1
    right = 50.0 * (F.one_hot(mask, 2).movedim(-1, 1) - 0.5)
    assert loss_and_gradient(right, mask, **{name: 1.0})[0] == pytest.approx(0, abs=2e-3)
    assert loss_and_gradient(right.roll(8, dims=-1), mask, **{name: 1.0})[0] > 0.3


@pytest.mark.parametrize("name", ["dice", "soft_iou", "ms_ssim"])
def test_foreground_only_leaves_out_the_first_class(name):
    logits, mask = drawn(1, 3, 5, 6, size=(20, 24))
    empty = torch.where(mask > 0, 0, mask)
    loss, gradient = loss_and_gradient(logits, empty, foreground_only=True, **{name: 1.0})
    assert loss == 0
    assert not gradient.any()
    assert loss_and_gradient(logits, empty, **{name: 1.0})[0] > 0
    assert loss_and_gradient(logits, mask, foreground_only=True, **{name: 1.0})[0] > 0
