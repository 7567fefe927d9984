"""A step in parts against the step of the whole batch, in float64."""

import numpy as np
import pytest
import torch
from small_run import small_config, write_scenes
from torch import nn

import pixelwise as pw
from pixelwise.labels import IGNORE
from pixelwise.losses import segmentation_loss
from pixelwise.losses.masks import MaskLoss, mask_loss
from pixelwise.models import Decoded
from pixelwise.models.segmenter import Masks
from pixelwise.train_keys import TrainConfig
from pixelwise.training.accumulation import Parts, backward, is_separable
from pixelwise.training.train import train

LOSSES = [
    {"cross_entropy": 1.0},
    {"focal": 1.0, "label_smoothing": 0.1},
    {"dice": 1.0},
    {"soft_iou": 0.5, "cross_entropy": 0.0},
    {"ohem": 1.0, "ohem_min_kept": 40},
    {"bootstrapped": 1.0, "bootstrapped_min_kept": 30},
    {"lovasz": 1.0},
    {"rmi": 1.0, "binary_cross_entropy": 1.0, "cross_entropy": 0.0},
]


def network(**options):
    torch.manual_seed(0)
    return pw.create("unet", classes=3, filters=[4, 8], batch_norm=False, **options).double().train()


def crops(count=5):
    """Crops with other shares of labelled pixels each; the second has none."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(count, 3, 32, 32, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, 3, (count, 32, 32), generator=generator)
    for i in range(count):
        mask[i, : 6 * i] = IGNORE
    mask[1] = IGNORE
    return image, mask


def gradient(model, loss_of, parts, separable, weights=None, decode=None):
    image, mask = crops()
    model.zero_grad()
    loss, logits = backward(
        loss_of,
        decode or model.decode,
        model,
        image,
        mask,
        parts=Parts(parts, 7, separable),
        class_weights=weights,
    )
    slopes = [each.grad for each in model.parameters() if each.grad is not None]
    return loss, logits, torch.cat([each.flatten() for each in slopes])


@pytest.mark.parametrize("settings", LOSSES, ids=lambda settings: next(iter(settings)))
@pytest.mark.parametrize("parts", [2, 5])
def test_every_loss_has_the_gradient_of_the_whole_batch(settings, parts):
    model, train_keys, weights = network(), TrainConfig(**settings), torch.tensor([1.0, 0.25, 3.0]).double()

    def loss_of(decode, image, mask):
        logits = decode(image).logits
        return segmentation_loss(logits, mask, train_keys.losses, class_weights=weights), logits

    whole = gradient(model, loss_of, 1, True)
    found = gradient(model, loss_of, parts, is_separable(train_keys, model), weights)
    assert whole[2].abs().max() > 1e-4
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-6, atol=1e-9)


def test_parts_of_means_alone_would_not_be_the_whole():
    # The count of labelled pixels differs, so a mean of means is another loss: what the shares are for.
    model = network()

    def loss_of(decode, image, mask):
        logits = decode(image).logits
        return segmentation_loss(logits, mask), logits

    image, mask = crops()
    whole = gradient(model, loss_of, 1, True)[0]
    means = [loss_of(model.decode, image[i : i + 1], mask[i : i + 1])[0] for i in (0, 2, 3, 4)]
    assert abs(torch.stack(means).mean() - whole) > 2e-5
    torch.testing.assert_close(gradient(model, loss_of, 5, True)[0].double(), whole, rtol=1e-6, atol=0)


def test_only_means_over_pixels_are_separable():
    plain, deep = network(), network()
    assert is_separable(TrainConfig(), plain)
    assert is_separable(TrainConfig(focal=1.0), plain)
    assert not is_separable(TrainConfig(dice=1.0), plain)
    assert not is_separable(TrainConfig(teacher="runs/large"), plain)
    deep.aux_weights = {"classification": 1.0}
    assert not is_separable(TrainConfig(), deep)
    deep.aux_weights = {"level 2": 1.0}
    assert not is_separable(TrainConfig(aux_loss="binary_cross_entropy"), deep)


def test_masks_and_auxiliary_outputs_have_the_gradient_of_the_whole_batch():
    pytest.importorskip("scipy")
    torch.manual_seed(0)
    body = nn.Conv2d(3, 4, 4, 4).double()

    def decode(image):
        maps = body(image)
        chances = maps.mean(dim=(2, 3))[:, :, None] * torch.linspace(-1, 1, 4).double()
        return Decoded(maps[:, :3], {"early": maps[:, 1:]}, answers=(Masks(maps.float() * 3, chances.float()),))

    def loss_of(decode, image, mask):
        decoded = decode(image)
        # Masks are compared at points in float32.
        loss = mask_loss(decoded.answers, mask, MaskLoss(points=200)) + 0.3 * segmentation_loss(
            decoded.aux["early"], mask
        )
        return loss, decoded.logits

    torch.manual_seed(7)
    whole = gradient(body, loss_of, 1, False, decode=decode)
    found = gradient(body, loss_of, 3, False, decode=decode)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-6)


def test_a_part_draws_the_same_each_time_it_goes_through_the_network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 3, 4, 4), nn.Dropout(0.5)).double().train()
    seen = []

    def decode(image):
        seen.append(body(image))
        return Decoded(seen[-1])

    def loss_of(decode, image, mask):
        logits = decode(image).logits
        return segmentation_loss(logits, mask), logits

    gradient(body, loss_of, 2, False, decode=decode)
    first, second = seen[:2], seen[2:]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not torch.equal(first[0][:2] == 0, first[1][:2] == 0), "other draws for each part"


def test_a_run_in_parts_ends_like_a_run_of_whole_steps_and_batch_norms_are_said(tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    settings = {"steps": 4, "batch_size": 4, "dice": 0.5}
    whole = train(small_config(scenes, tmp_path / "whole", **settings))
    parts = train(small_config(scenes, tmp_path / "parts", accumulate=2, **settings))
    losses = [[row["loss"] for row in run.log] for run in (whole, parts)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    said = []
    norms = {"name": "unet", "options": {"filters": [4, 8], "batch_norm": True}}
    with_norms = small_config(scenes, tmp_path / "norms", accumulate=2, batch_size=4, model=norms, steps=1)
    train(with_norms, report=lambda what: said.append(str(what)))
    assert any("batch norms" in line and "[train].accumulate" in line for line in said)
