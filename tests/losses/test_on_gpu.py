"""The ways that losses go on a GPU, on the CPU: whole images, and what lies between the kernels."""

import pytest
import torch
import torch.nn.functional as F

from pixelwise.labels import IGNORE
from pixelwise.loss_config import LossConfig
from pixelwise.losses import segmentation, segmentation_loss
from pixelwise.losses.on_gpu import count_on_gpu, pixels_at_once
from pixelwise.losses.streaming import strip_loss

LOSSES = [
    LossConfig(),
    LossConfig(focal=0.7, label_smoothing=0.2),
    LossConfig(cross_entropy=0.0, ohem=1.0, ohem_min_kept=20, bootstrapped=0.5, bootstrapped_min_kept=9),
    LossConfig(dice=0.5, soft_iou=0.5),
    LossConfig(ohem=0.5, ohem_min_kept=20, dice=0.5, label_smoothing=0.1),
]


def softmax_of_pixels(logits, target, smoothing, align_corners):
    full = F.interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=align_corners)
    smoothed = None if smoothing is None else (full * smoothing[:, None, None]).sum(dim=1)
    return full.logsumexp(dim=1), full.gather(1, target[:, None].long())[:, 0], smoothed


def gradient_of_cells(logits, target, total, share, at_target, smoothing, valid, align_corners):
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        full = F.interpolate(leaf, size=target.shape[1:], mode="bilinear", align_corners=align_corners)
        slope = share[:, None] * (full.detach() - total[:, None]).exp()
        slope = slope - at_target[:, None] * F.one_hot(target.long(), logits.shape[1]).movedim(3, 1)
        if smoothing is not None:
            slope = slope - smoothing[:, None, None] * valid[:, None]
    return torch.autograd.grad(full, leaf, slope.to(full.dtype))[0]


def case(size=(16, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 4, 4, 6, generator=generator)
    mask = torch.randint(IGNORE, 4, (3, *size), generator=generator)
    mask[1] = IGNORE
    return logits, mask, torch.tensor([1.0, 0.5, 2.0, 0.0])


def found(logits, mask, losses, weights, aligned=False):
    leaf = logits.clone().requires_grad_()
    loss = segmentation_loss(leaf, mask, losses, class_weights=weights, align_corners=aligned)
    loss.backward()
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("losses", LOSSES, ids=range(len(LOSSES)))
@pytest.mark.parametrize(("size", "aligned"), [((16, 24), False), ((15, 31), True)])
def test_whole_images_have_the_loss_and_gradient_of_strips(monkeypatch, losses, size, aligned):
    logits, mask, weights = case(size)
    strips = found(logits, mask, losses, weights, aligned)
    monkeypatch.setattr("pixelwise.losses.pixel_strips.takes_images", lambda device: True)
    for one, other in zip(found(logits, mask, losses, weights, aligned), strips, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("losses", [each for each in LOSSES if not each.dice], ids=repr)
def test_all_pixels_at_once_have_the_loss_and_gradient_of_strips(monkeypatch, losses):
    logits, mask, weights = case()
    strips = found(logits, mask, losses, weights)

    def at_once(*arguments):
        return pixels_at_once(*arguments, kernels=(softmax_of_pixels, gradient_of_cells))

    monkeypatch.setattr(segmentation, "gpu_loss", lambda logits, terms: at_once)
    for one, other in zip(found(logits, mask, losses, weights), strips, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-7)


def test_a_batch_without_a_labelled_pixel_has_the_loss_0_without_being_asked():
    # On a GPU the count is not asked for, so the terms themselves must come out as 0.
    logits, mask, _ = case()
    mask = torch.full_like(mask, IGNORE)
    losses = LossConfig(focal=0.5, label_smoothing=0.1, dice=0.5, soft_iou=0.5)
    terms = segmentation._strip_terms(losses, torch.ones(4))
    gradient = torch.zeros_like(logits)
    loss = strip_loss(logits, mask, torch.zeros(3, 4), terms, False, gradient)
    assert loss == 0
    assert not gradient.any()


def test_pixels_are_counted_as_bincount_does():
    _, mask, _ = case((40, 50))
    counts = count_on_gpu(mask, 4)
    expected = [[int((one == k).sum()) for k in range(4)] for one in mask]
    assert counts.tolist() == expected
