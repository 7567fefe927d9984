"""What networks do while torch records them is what they do otherwise."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.models import layers
from pixelwise.models.linknet import Deconvolution


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 3, 6]))
def test_pooling_by_products_is_adaptive_pooling(height, width, side):
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 31 + width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "recorded", lambda: True)
        found = layers.adaptive_mean(image, side)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(image, side))


@given(st.integers(1, 40), st.integers(1, 40))
def test_means_of_blocks_by_products_are_those_of_pooling(height, width):
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 41 + width))
    side = min(16, height, width)
    wanted = F.avg_pool2d(image, side, side)
    torch.testing.assert_close(layers.block_means(image, 16), wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "recorded", lambda: True)
        torch.testing.assert_close(layers.block_means(image, 16), wanted)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1), st.integers(0, 1))
def test_a_cut_transposed_convolution_is_one_with_less_output_padding(height, width, below, right):
    layer = Deconvolution(2, 3, stride=2, bias=True, epsilon=1e-5)
    image = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(height * 31 + width))
    size = (2 * height - 1 + below, 2 * width - 1 + right)
    with torch.no_grad():
        wanted = F.conv_transpose2d(
            image, layer.convolution.weight, layer.convolution.bias, 2, padding=1, output_padding=(below, right)
        )
        torch.testing.assert_close(layer.widened(image, size), wanted)


# An image is two patches wide at least; for one torch's own antialiasing gives other rows than for two.
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 9))
def test_a_grid_resized_by_products_is_interpolated(height, width, side):
    grid = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(height * 31 + width))
    found = layers.recorded_bicubic(grid, (height, width), added=0.0, antialias=True)
    torch.testing.assert_close(found, F.interpolate(grid, (height, width), mode="bicubic", antialias=True))
    found = layers.recorded_bicubic(grid, (height, width), added=0.1, antialias=False)
    factor = ((height + 0.1) / side, (width + 0.1) / side)
    # DINOv2's release resizes by that factor, and leaves a grid of the size at hand as it is.
    wanted = grid if (height, width) == (side, side) else F.interpolate(grid, scale_factor=factor, mode="bicubic")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
