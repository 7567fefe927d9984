import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_network import small_network

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
