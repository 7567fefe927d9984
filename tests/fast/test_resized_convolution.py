"""Convolutions of resized maps, without resizing, against doing so."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pixelwise.fast.convolution import FusedConvolution, folded_brick
from pixelwise.fast.resized_convolution import convolve_resized, pays
from pixelwise.models.layers import ConvNorm, over_joined

sides = st.integers(1, 70)


@torch.no_grad()
@given(
    size=st.tuples(sides, sides),
    coarse=st.lists(st.tuples(st.sampled_from([1, 3, 130, 200]), sides, sides), min_size=1, max_size=3),
    kernel=st.sampled_from([1, 3]),
    align_corners=st.booleans(),
    bias=st.booleans(),
    images=st.integers(1, 2),
)
def test_it_is_the_convolution_of_the_joined_maps(size, coarse, kernel, align_corners, bias, images):
    torch.manual_seed(0)
    maps = [torch.randn(images, *shape) for shape in coarse]
    convolution = torch.nn.Conv2d(sum(m.shape[1] for m in maps), 4, kernel, padding=kernel // 2, bias=bias)
    resized = [F.interpolate(m, size=size, mode="bilinear", align_corners=align_corners) for m in maps]
    expected = convolution(torch.cat(resized, dim=1))
    found = convolve_resized(FusedConvolution(convolution), maps, size, align_corners=align_corners)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-6 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"kernel": 5}, {"groups": 2}])
def test_other_convolutions_are_left_as_they_are(options):
    layer = ConvNorm(200, 4, **options)
    assert not pays(layer.convolution, [torch.zeros(1, 200, 4, 4)], (64, 64))


@torch.no_grad()
def test_a_folded_convolution_saves_the_products_of_a_coarse_map():
    torch.manual_seed(0)
    layer = ConvNorm(260, 4).eval()
    maps = [torch.randn(1, 60, 32, 32), torch.randn(1, 200, 8, 8)]
    folded = folded_brick(layer)
    expected = over_joined(layer, maps, (32, 32))
    with FlopCounterMode(display=False) as counter:
        found = over_joined(folded, maps, (32, 32))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert counter.get_total_flops() < 0.5 * 2 * 9 * 260 * 4 * 32 * 32
