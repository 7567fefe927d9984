"""DeepLabV3+ with separable convolutions, of which there is no recording, against the formula and the plain form."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pixelwise as pw
from pixelwise.models.deeplab import mix_3x3


def with_any_statistics(module):
    """Let no batch norm be the identity."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias, std=0.3)
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.3, 3)
    return module.eval()


def normed(image, norm):
    """The definition of a batch norm in evaluation, and a rectifier."""
    mean, deviation, scale, shift = (
        value[:, None, None]
        for value in (norm.running_mean, torch.sqrt(norm.running_var + norm.eps), norm.weight, norm.bias)
    )
    return ((image - mean) / deviation * scale + shift).clamp(min=0)


@pytest.mark.parametrize("rate", [1, 6])
@torch.no_grad()
def test_a_separable_convolution_looks_around_in_each_channel_and_then_mixes_channels(rate):
    torch.manual_seed(rate)
    layer = with_any_statistics(mix_3x3(5, 7, rate, separable=True)).double()
    depthwise, pointwise = layer
    image = torch.randn(2, 5, 17, 19, dtype=torch.float64)
    padded, total = F.pad(image, [rate] * 4), torch.zeros_like(image)
    for row in range(3):
        for column in range(3):
            tap = depthwise.convolution.weight[:, 0, row, column][:, None, None]
            total += tap * padded[..., row * rate : row * rate + 17, column * rate : column * rate + 19]
    mixed = torch.einsum("bchw,dc->bdhw", normed(total, depthwise.norm), pointwise.convolution.weight[..., 0, 0])
    torch.testing.assert_close(layer(image), normed(mixed, pointwise.norm))


@pytest.mark.parametrize("size", [(64, 64), (45, 71)])
@torch.no_grad()
def test_the_separable_network_is_fused_without_a_change_and_trains(size):
    torch.manual_seed(0)
    model = with_any_statistics(pw.create("deeplabv3plus", classes=5, encoder="resnet18", separable=True))
    image = torch.randn(2, 3, *size)
    expected, found = model.decode(image).logits, pw.fuse(model).decode(image).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    with torch.enable_grad():
        model.train()(image).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_separable_convolutions_are_kept_with_the_weights(tmp_path):
    model = pw.create("deeplabv3plus", classes=5, encoder="resnet18", separable=True)
    pw.save_weights(model, tmp_path / "weights.safetensors")
    other = pw.create("deeplabv3plus", classes=5, encoder="resnet18")
    pw.load_weights(other, tmp_path / "weights.safetensors")
    assert other.state_dict().keys() == model.state_dict().keys()
    plain = pw.create("deeplabv3plus", classes=5, encoder="resnet18")
    # 3 branches of 512 channels and 2 refinements of 304 and 256, each 3x3 to 256, become 3x3 in each channel and 1x1;
    # a batch norm more has two values for each of its channels.
    inputs = [512, 512, 512, 304, 256]
    saved = sum(9 * 256 * count - (9 * count + 256 * count + 2 * count) for count in inputs)
    assert pw.cost(plain).parameters - pw.cost(model).parameters == saved
