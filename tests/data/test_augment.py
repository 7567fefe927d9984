"""Random changes to a crop."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import AugmentConfig
from pixelwise.data.augment import Geometry, augment, blurred, draw_geometry, resample
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


@given(seed=st.integers(0, 99), elastic=st.floats(0.5, 6), zoom=st.floats(0.8, 1.5), angle=st.floats(-3, 3))
def test_a_bent_crop_keeps_image_and_mask_together(seed, elastic, zoom, angle):
    config = AugmentConfig(scale=(zoom, zoom), elastic=elastic, elastic_scale=16)
    drawn = draw_geometry(config, 48, np.random.default_rng(seed))
    geometry = Geometry(zoom, angle, drawn.bend)
    side = geometry.window_side(48)
    mask = np.kron(np.random.default_rng(seed).integers(0, 3, (10, 10)), np.ones((20, 20)))[:side, :side]
    crop = resample(Crop(50 * mask[None], np.ones(mask.shape, bool), mask.astype(np.int16)), geometry, 48)
    labelled = crop.mask != IGNORE
    assert set(np.unique(crop.mask)) <= {IGNORE, 0, 1, 2}
    # The nearest of four pixels weighs a quarter at least.
    assert (np.abs(crop.values[0] - 50 * crop.mask)[labelled] <= 75 + 1e-2).all()
    inner = scipy.ndimage.minimum_filter(crop.mask, 5) == scipy.ndimage.maximum_filter(crop.mask, 5)
    # At the rim, one of the four pixels lies outside of what the filter sees.
    inner[[0, 1, -2, -1]] = inner[:, [0, 1, -2, -1]] = False
    assert (np.abs(crop.values[0] - 50 * crop.mask)[labelled & inner] < 1e-2).all()


def test_pixels_move_about_as_far_as_is_set():
    moved = []
    for seed in range(20):
        config = AugmentConfig(scale=(1.0, 1.0), elastic=4.0, elastic_scale=16)
        geometry = draw_geometry(config, 64, np.random.default_rng(seed))
        # A ramp shows how far each pixel came across.
        ramp = np.arange(64, dtype=np.float32)[None].repeat(64, axis=0)
        crop = resample(Crop(ramp[None], np.ones((64, 64), bool), np.zeros((64, 64), np.int16)), geometry, 64)
        moved.append((crop.values[0] - ramp)[20:44, 20:44].ravel())
    assert 2.0 < np.concatenate(moved).std() < 5.0


def changed(seed, values, valid=None, **settings):
    quiet = {"flip": False, "brightness": 0.0, "contrast": 0.0, "band_jitter": 0.0}
    valid = np.ones(values.shape[1:], bool) if valid is None else valid
    crop = Crop(values, valid, np.where(valid, 0, IGNORE).astype(np.int16))
    options = {"rotate90": False, "mean": (0.0,) * len(values), "std": (1.0,) * len(values)}
    return augment(crop, AugmentConfig(**quiet, **settings), np.random.default_rng(seed), **options)


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_noise_is_of_the_band_and_blur_what_scipy_gives_for_any_number_of_bands(bands):
    values = np.random.default_rng(0).normal(size=(bands, 40, 40)).astype(np.float32)
    noisy = np.stack([changed(seed, values, noise=0.5)[0] - values for seed in range(20)])
    # A level that is uniform up to 0.5 has the root mean square 0.5 / sqrt(3).
    assert abs(np.sqrt((noisy**2).mean()) - 0.5 / np.sqrt(3)) < 0.1
    for sigma in (0.7, 2.0):
        expected = np.stack([scipy.ndimage.gaussian_filter(band, sigma, truncate=6) for band in values])
        found = blurred(values, np.ones((40, 40), bool), sigma)
        np.testing.assert_allclose(found[:, 10:-10, 10:-10], expected[:, 10:-10, 10:-10], atol=0.02)


def test_blur_takes_nothing_from_pixels_without_data_and_leaves_them_empty():
    valid = np.random.default_rng(1).random((20, 20)) < 0.7
    values = np.where(valid, 5.0, 999.0)[None].astype(np.float32)
    image, mask = changed(3, values, valid, blur=2.0, noise=0.0)
    np.testing.assert_allclose(image[0][valid], 5.0, rtol=1e-5)
    assert not image[0][~valid].any()
    assert np.array_equal(mask != IGNORE, valid)


@given(seed=st.integers(0, 999), bands=st.integers(1, 5), share=st.floats(0.1, 1.0))
def test_cutout_empties_rectangles_of_all_bands_and_keeps_the_labels(seed, bands, share):
    image, mask = changed(seed, np.ones((bands, 30, 30), np.float32), cutout=1, cutout_size=share)
    assert (mask == 0).all()
    empty = image[0] == 0
    assert all(np.array_equal(band == 0, empty) for band in image)
    rows, columns = np.flatnonzero(empty.any(axis=1)), np.flatnonzero(empty.any(axis=0))
    if len(rows):
        assert empty.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert max(len(rows), len(columns)) <= share * 30 + 1
