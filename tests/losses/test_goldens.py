"""What the releases of HRNet, FC-HarDNet, HMSA and UNet 3+ give, recorded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelwise.labels import IGNORE
from pixelwise.losses import LossConfig, segmentation_loss
from pixelwise.losses.ms_ssim import combined, similarity_levels

GOLDENS = Path(__file__).parents[1] / "goldens"
OFFICIAL = json.loads((GOLDENS / "losses_official.json").read_text())["values"]
UNET3P = json.loads((GOLDENS / "unet3p_losses.json").read_text())["values"]


@pytest.fixture(scope="module")
def official():
    """Logits at full size, the same at a quarter, and the mask."""
    generator = np.random.default_rng(99)
    logits = torch.from_numpy(generator.standard_normal((2, 5, 48, 56)).astype(np.float32) * 2)
    labels = np.kron(generator.integers(0, 5, (2, 6, 7)), np.ones((8, 8), int))
    labels[:, :3] = IGNORE
    return logits, F.avg_pool2d(logits, 4), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def organ():
    """A foreground's probability [2,1,192,208], its logit in float64, and its mask."""
    generator = np.random.default_rng(77)
    logit = torch.from_numpy(generator.standard_normal((2, 1, 192, 208)))
    mask = np.kron(generator.standard_normal((2, 1, 12, 13)) > 0, np.ones((16, 16), bool))
    return logit.sigmoid().float(), logit, torch.from_numpy(mask)


def only(**weights):
    return LossConfig(**({"cross_entropy": 0.0} | weights))


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("rmi_lambda_way1", {"binary_cross_entropy": 0.5, "rmi": 0.5}),
        ("rmi_lambda_way0", {"binary_cross_entropy": 1.0, "rmi": 0.5}),
    ],
)
def test_region_mutual_information_and_its_gradient_are_those_of_the_release(official, name, weights):
    logits, _, mask = official
    logits = logits.clone().requires_grad_()
    loss = segmentation_loss(logits, mask, only(**weights))
    loss.backward()
    expected = OFFICIAL[name]
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    assert logits.grad.double().abs().sum().item() == pytest.approx(expected["grad_sumabs"], rel=1e-6)
    assert logits.grad[0, 2, 20, 20].item() == pytest.approx(expected["grad_0_2_20_20"], rel=1e-5)
    assert logits.grad.flatten()[:8].tolist() == expected["grad_first8"]


def test_the_binary_cross_entropy_beside_it_is_that_of_the_release(official):
    logits, _, mask = official
    loss = segmentation_loss(logits, mask, only(binary_cross_entropy=1.0))
    assert loss.item() == pytest.approx(OFFICIAL["rmi_bce_only"], rel=1e-6)


def test_a_weighted_sum_over_two_outputs_is_that_of_hrnets_release(official):
    logits, low, mask = official
    main = segmentation_loss(logits, mask)
    aux = segmentation_loss(low, mask, align_corners=True)
    assert (0.4 * aux + main).item() == pytest.approx(OFFICIAL["hrnet_ce_balance_0.4_1"], rel=1e-6)


@pytest.mark.parametrize(("threshold", "keep"), [(0.9, 1000), (0.3, 100)])
def test_hard_examples_of_the_last_output_are_those_of_hrnets_release(official, threshold, keep):
    # The release averages the auxiliary cross-entropy over all pixels, ignored ones being 0: against our one rule.
    logits, low, mask = official
    settings = {"ohem_threshold": threshold, "ohem_min_kept": keep}
    hard = segmentation_loss(logits, mask, only(ohem=1.0, **settings))
    aux = segmentation_loss(low, mask, align_corners=True) * (mask != IGNORE).float().mean()
    expected = OFFICIAL[f"hrnet_ohem_thres{threshold}_minkept{keep}"]
    assert (0.4 * aux + hard).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 3])
def test_the_bootstrapped_cross_entropy_is_that_of_fchardnets_release(official, threshold):
    logits, _, mask = official
    settings = {"bootstrapped_threshold": float(threshold), "bootstrapped_min_kept": 400}
    loss = segmentation_loss(logits, mask, only(bootstrapped=1.0, **settings))
    assert loss.item() == pytest.approx(OFFICIAL[f"fchardnet_bootstrapped_K400_th{threshold}"], rel=1e-6)


def test_the_soft_iou_of_a_foreground_is_that_of_unet3ps_release(organ):
    _, logit, mask = organ
    logits = torch.cat([torch.zeros_like(logit), logit], dim=1).float()
    loss = segmentation_loss(logits, mask[:, 0].long(), only(soft_iou=1.0, foreground_only=True))
    assert loss.item() == pytest.approx(UNET3P["iou_loss"], rel=1e-6)


def test_the_ms_ssim_with_the_releases_product_is_that_of_unet3ps_release(organ):
    probability, _, mask = organ
    structure, contrast = similarity_levels(probability[:, 0], mask[:, 0], torch.ones(192, 208, dtype=torch.bool))
    # The release averages over the batch before it multiplies the levels.
    similarity = combined(structure.mean(dim=1), contrast.mean(dim=1), product="unet3p")
    assert similarity.item() == pytest.approx(UNET3P["msssim_normalize_true"], rel=1e-6)
    paper = combined(structure.mean(dim=1), contrast.mean(dim=1), product="paper")
    assert paper.item() > 1.3 * similarity.item()


def test_the_ssim_at_full_size_is_that_of_unet3ps_release(organ):
    probability, _, mask = organ
    structure, contrast = similarity_levels(probability[:, 0], mask[:, 0], torch.ones(192, 208, dtype=torch.bool))
    # The release's window in float32 sums to 1 - 1.2e-7; covariances cancel, and 1e-7 of 1 is what is left of that.
    assert structure[0].mean().item() == pytest.approx(UNET3P["ssim_cs"][0], abs=1.5e-7)
    assert contrast[0].mean().item() == pytest.approx(UNET3P["ssim_cs"][1], abs=1.5e-7)
