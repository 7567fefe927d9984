"""Random changes to a crop."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import AugmentConfig
from pixelwise.data.augment import Geometry, augment, resample
from pixelwise.data.scenes import Crop
from pixelwise.labels import IGNORE


@given(zoom=st.floats(0.5, 3), angle=st.floats(-0.5, 0.5), share=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_a_labelled_pixel_is_a_mean_of_valid_ones(zoom, angle, share, seed):
    geometry, rng = Geometry(zoom, angle), np.random.default_rng(seed)
    side = geometry.window_side(32)
    valid = rng.random((side, side)) >= share
    values = np.where(valid, rng.uniform(3000, 4000, (2, side, side)), np.nan).astype(np.float32)
    crop = resample(Crop(values, valid, np.where(valid, 1, IGNORE).astype(np.int16)), geometry, 32)
    labelled = crop.values[:, crop.mask != IGNORE]
    assert ((labelled > 2999.9) & (labelled < 4000.1)).all()
    assert np.array_equal(crop.mask != IGNORE, crop.valid)


def numbered_crop(side: int) -> Crop:
    """A crop whose only band numbers its pixels, whose mask is the same numbers, and that lacks data in one corner."""
    numbers = np.arange(side * side, dtype=np.int16).reshape(side, side)
    valid = np.ones((side, side), bool)
    valid[-1, -1] = False
    return Crop(numbers[None].astype(np.float32), valid, np.where(valid, numbers, IGNORE).astype(np.int16))


PLAIN = AugmentConfig(flip=True, brightness=0.0, contrast=0.0, band_jitter=0.0)


@given(seed=st.integers(0, 999), rotate90=st.booleans(), flip=st.booleans())
def test_the_mask_goes_where_its_pixels_go(seed, rotate90, flip):
    config = PLAIN.model_copy(update={"flip": flip})
    image, mask = augment(
        numbered_crop(5), config, np.random.default_rng(seed), rotate90=rotate90, mean=(0.0,), std=(1.0,)
    )
    assert np.array_equal(image[0][mask != IGNORE], mask[mask != IGNORE])
    assert (image[0][mask == IGNORE] == 0).all()
    assert (mask == IGNORE).sum() == 1


@pytest.mark.parametrize(("rotate90", "flip", "symmetries"), [(False, False, 1), (False, True, 2), (True, True, 8)])
def test_a_crop_takes_each_of_the_symmetries_that_are_asked_for_and_no_other(rotate90, flip, symmetries):
    config, crop = PLAIN.model_copy(update={"flip": flip}), numbered_crop(4)
    drawn = [
        augment(crop, config, np.random.default_rng(seed), rotate90=rotate90, mean=(0.0,), std=(1.0,))[1]
        for seed in range(99)
    ]
    wanted = [np.rot90(mirrored, quarters) for mirrored in (crop.mask, crop.mask[:, ::-1]) for quarters in range(4)]
    assert len({mask.tobytes() for mask in drawn}) == symmetries
    assert {mask.tobytes() for mask in drawn} <= {np.ascontiguousarray(mask).tobytes() for mask in wanted}


@given(seed=st.integers(0, 999))
def test_brightness_and_contrast_stay_within_what_is_set_and_move_all_bands_alike_without_jitter(seed):
    config = AugmentConfig(flip=False, brightness=0.3, contrast=0.2, band_jitter=0.0)
    values = np.random.default_rng(0).normal(50, 10, (3, 6, 6)).astype(np.float32)
    crop = Crop(values, np.ones((6, 6), bool), np.zeros((6, 6), np.int16))
    mean, std = (50.0,) * 3, (10.0,) * 3
    image, _ = augment(crop, config, np.random.default_rng(seed), rotate90=False, mean=mean, std=std)
    stretch, shift = np.polyfit(((values - 50) / 10).ravel(), image.ravel(), 1)
    assert np.exp(-0.2) - 1e-4 <= stretch <= np.exp(0.2) + 1e-4
    assert abs(shift) <= 0.3 + 1e-4
    assert np.allclose(image, (values - 50) / 10 * stretch + shift, atol=1e-4)


@given(zoom=st.floats(0.7, 2.5), angle=st.floats(-0.6, 0.6))
def test_resampling_is_what_scipy_gives_at_the_same_places(zoom, angle):
    geometry, side = Geometry(zoom, angle), 16
    width = geometry.window_side(side)
    values = np.random.default_rng(1).normal(size=(1, width, width)).astype(np.float32)
    found = resample(Crop(values, np.ones((width, width), bool), np.zeros((width, width), np.int16)), geometry, side)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    places = np.stack([columns * sin + rows * cos, columns * cos - rows * sin]) + (width - 1) / 2
    inside = ((places > 0) & (places < width - 1)).all(axis=0)
    expected = scipy.ndimage.map_coordinates(values[0], places, order=1)
    if geometry.window_side(side) != side:
        assert np.allclose(found.values[0][inside], expected[inside], atol=2e-3)
        assert found.valid[inside].all()
