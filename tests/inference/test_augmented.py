import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_network import small_network

import pixelwise as pw
from pixelwise.inference.augmented import averaged_logits, output_stride


@pytest.mark.parametrize("scales", [(0.5, 1.0, 2.0), (2.0, 0.5, 1.0), (0.5,), (1.37,)])
@pytest.mark.parametrize("sides", [(96, 64), (75, 133), (33, 32)])
def test_zoomed_copies_are_averaged_as_logits_on_the_grid_of_the_image(scales, sides):
    network = small_network(stride=8)
    image = np.random.default_rng(0).standard_normal((3, *sides)).astype(np.float32)
    logits = averaged_logits(network, image[None], stride=8, flips=False, scales=scales)
    plain = averaged_logits(network, image[None], stride=8, flips=False, scales=(1.0,))
    assert logits.shape == plain.shape
    expected = torch.zeros_like(plain)
    for scale in scales:
        zoomed = torch.from_numpy(image)[None]
        if scale != 1:
            size = [max(32, round(side * scale / 32) * 32) for side in sides]
            zoomed = F.interpolate(zoomed, size=size, mode="bilinear", align_corners=False)
        copy = network.decode(zoomed).logits
        expected += F.interpolate(copy, size=plain.shape[-2:], mode="bilinear", align_corners=False) / len(scales)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
def test_the_stride_of_a_network_is_measured(stride):
    assert output_stride(small_network(stride=stride)) == stride


@torch.no_grad()
@pytest.mark.parametrize("decoder", ["segmenter-linear", "eomt-s"])
def test_patches_that_do_not_divide_tiles_are_answered_for_each_pixel(decoder):
    torch.manual_seed(0)
    options = {"encoder": "dinov2-small", "dim": 24, "depth": 6, "image_size": 70, "patch": 14}
    model = pw.create(decoder, classes=3, **options).eval()
    assert output_stride(model) == 1
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    asked = {"stride": 1, "scales": (1.0,)}
    logits = averaged_logits(model, image, flips=False, **asked)
    assert torch.equal(logits, model(torch.from_numpy(image)))
    mirrored = model(torch.from_numpy(image).flip(-1)).flip(-1)
    torch.testing.assert_close(averaged_logits(model, image, flips=True, **asked), (logits + mirrored) / 2)
    zoomed = averaged_logits(model, image, stride=1, flips=False, scales=(1.5,))
    larger = model(F.interpolate(torch.from_numpy(image), size=(96, 128), mode="bilinear"))
    torch.testing.assert_close(zoomed, F.interpolate(larger, size=(64, 96), mode="bilinear"))
