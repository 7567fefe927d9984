"""How networks start: sure of no class, with signals that neither die out nor grow."""

import math
from itertools import cycle

import pytest
import torch
import torch.nn.functional as F
from test_every_network import LIGHTER, NAMES
from torch import nn

import pixelwise as pw
from pixelwise.models import list_models

NORMED = ("segmenter-mask", "depict-sa", "depict-ca")
"""Their logits end in a layer norm over the classes, as their authors start them, so they have a variance of 1."""


def images(kind, side=64):
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    return {
        "noise": noise,
        "bright": noise + 2,
        "contrasty": 5 * noise,
        "smooth": F.interpolate(noise[:, :, ::16, ::16], size=(side, side), mode="bilinear"),
    }[kind]


def first_losses(name, classes, kind):
    torch.manual_seed(0)
    model = pw.create(name, classes=classes, **LIGHTER.get(name, {})).train()
    mask = torch.randint(0, classes, (2, 64, 64), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        decoded = model.decode(images(kind))
    every = {"logits": decoded.logits, **{key: aux for key, aux in decoded.aux.items() if aux.ndim == 4}}
    return {
        key: F.cross_entropy(F.interpolate(logits, size=(64, 64), mode="bilinear"), mask).item()
        for key, logits in every.items()
    }


CASES = [
    *[
        (name, classes, kind)
        for name in NAMES
        for classes, kind in zip((2, 3, 19, 150), ("noise", "bright", "contrasty", "smooth"), strict=True)
    ],
    *[
        (name, 19, kind)
        for name, kind in zip([n for n in list_models() if n not in NAMES], cycle(("noise", "bright")), strict=False)
    ],
]


@pytest.mark.parametrize(("name", "classes", "kind"), CASES)
def test_a_fresh_network_is_sure_of_no_class_and_no_more_are_its_auxiliary_heads(name, classes, kind):
    for head, loss in first_losses(name, classes, kind).items():
        assert abs(loss - math.log(classes)) < (0.5 if name in NORMED else 0.1), head


def test_a_linear_decoder_on_a_pyramid_is_sure_of_no_class_either():
    torch.manual_seed(0)
    model = pw.create("segmenter-linear", classes=3, encoder="resnet50").train()
    mask = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss = F.cross_entropy(F.interpolate(model.decode(images("noise")).logits, size=(64, 64)), mask)
    assert abs(loss.item() - math.log(3)) < 0.1


def test_the_guide_of_unet3p_starts_undecided():
    torch.manual_seed(0)
    model = pw.create("unet3p", classes=3, guided=True, filters=[8, 16, 32, 64, 128]).train()
    seen = model.decode(images("noise")).aux["classification"].softmax(dim=1)
    assert (seen - 0.5).abs().max() < 0.1


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_the_attention_of_hmsa_starts_where_its_sigmoid_learns(kind):
    torch.manual_seed(0)
    model = pw.create("hmsa", classes=3, network="hrnet-w18").train()
    image = images(kind)
    with torch.no_grad():
        decoded = model.decoder.network(model.encoder.network(image))
        trust = model.decoder.trust(decoded, (64, 64))
    assert (trust - 0.5).abs().max() < 0.25


def variances_at_norms(model, image):
    """Return what each batch norm is given: the smallest variance of a channel, and its epsilon."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda module, inputs: found.append((inputs[0].var(dim=(0, 2, 3)).mean().item(), module.eps))
            )
    with torch.no_grad():
        model.train().encoder(image)
    return found


def test_depthwise_convolutions_hand_on_more_than_an_epsilon():
    torch.manual_seed(0)
    model = pw.create("unet", classes=3, encoder="efficientnet-lite0")
    found = variances_at_norms(model, images("noise"))
    # A stem, a block of two convolutions and 15 of three.
    assert len(found) == 1 + 2 + 15 * 3
    assert all(variance > 50 * epsilon for variance, epsilon in found)


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_a_unet_without_norms_keeps_the_size_of_its_signal(upsampling):
    torch.manual_seed(0)
    options = {"batch_norm": False, "upsampling": upsampling, "filters": [16, 32, 64, 128, 256]}
    model = pw.create("unet", classes=3, **options).eval()
    sizes = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.out_channels > 3:
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.square().mean().item()))
    with torch.no_grad():
        model.decode(images("noise"))
    assert len(sizes) >= 18
    assert min(sizes) > 0.3
    assert max(sizes) < 20


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Conv2d(64, 128, 3), 64 * 9),
        (nn.Conv2d(64, 64, 3, groups=64), 9),
        (nn.ConvTranspose2d(64, 32, 2, 2), 64),
        (nn.ConvTranspose2d(64, 64, 3, 2, padding=1), 64 * 9 / 4),
    ],
)
def test_the_rule_by_inputs_counts_what_makes_one_value(layer, inputs):
    from pixelwise.models.layers import initialise_by_inputs

    torch.manual_seed(0)
    initialise_by_inputs(layer)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.1)
    assert layer.bias.abs().max() == 0
