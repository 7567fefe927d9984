from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.stats import balanced_weights, merge_statistics, no_statistics, statistics_of
from pixelwise.geo.raster import normalize


@st.composite
def windows(draw):
    """Draw windows of one scene, some of them without data."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    bands, offset = draw(st.integers(1, 4)), draw(st.sampled_from([0.0, 1e4, -1e6]))
    found = []
    for _ in range(draw(st.integers(1, 6))):
        shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        values = (rng.normal(size=(bands, *shape)) + offset).astype(np.float32)
        found.append((values, rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))))
    return found


@given(windows())
def test_streamed_statistics_are_those_of_all_valid_pixels_at_once(found):
    streamed = reduce(merge_statistics, [statistics_of(*w) for w in found], no_statistics(len(found[0][0])))
    pixels = np.concatenate([values[:, valid] for values, valid in found], axis=1).astype(np.float64)
    assert streamed.count == pixels.shape[1]
    if pixels.shape[1]:
        np.testing.assert_allclose(streamed.mean, pixels.mean(axis=1), rtol=1e-12, atol=1e-12)
        spread = pixels.std(axis=1)
        np.testing.assert_allclose(streamed.std, np.where(spread > 0, spread, 1), rtol=1e-7)


def test_a_constant_band_has_standard_deviation_1():
    found = statistics_of(np.full((2, 3, 3), 7, np.uint8), np.ones((3, 3), bool))
    assert found.mean.tolist() == [7, 7]
    assert found.std.tolist() == [1, 1]


@given(st.integers(0, 10**6))
def test_normalised_valid_pixels_have_mean_0_and_deviation_1_and_the_others_are_0(seed):
    rng = np.random.default_rng(seed)
    values, valid = rng.integers(0, 60000, (3, 20, 20)).astype(np.uint16), rng.random((20, 20)) < 0.7
    found = statistics_of(values, valid)
    image = normalize(values, valid, tuple(found.mean), tuple(found.std))
    np.testing.assert_allclose(image[:, valid].mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(image[:, valid].std(axis=1), 1, atol=1e-4)
    assert not image[:, ~valid].any()


def test_nan_without_data_does_not_reach_the_normalised_image():
    values = np.array([[[1.0, np.nan]]], np.float32)
    assert normalize(values, np.array([[True, False]]), [0.0], [1.0]).tolist() == [[[1.0, 0.0]]]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any))
def test_balanced_weights_go_with_the_inverse_root_of_the_frequency_and_have_mean_1_over_pixels(counts):
    pixels = np.array(counts)
    weights = balanced_weights(pixels)
    assert (weights * pixels).sum() / pixels.sum() == pytest.approx(1)
    present = pixels > 0
    product = weights[present] * np.sqrt(pixels[present])
    np.testing.assert_allclose(product, product[0])
    assert (weights[~present] == 1).all()
