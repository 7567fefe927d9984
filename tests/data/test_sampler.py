from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from pixelwise.config import AugmentConfig
from pixelwise.data.sampler import Sampler, batches
from pixelwise.data.scenes import Scene
from pixelwise.geo.raster import RasterInfo, RasterReader
from pixelwise.labels import IGNORE


class Arrays(RasterReader):
    """A raster in memory."""

    def __init__(self, values, valid, crs=None):
        self.values, self.valid, self.bands = values, valid, tuple(range(1, len(values) + 1))
        self.info = RasterInfo(
            Path("x"), *values.shape[1:], len(values), None, "uint8", None, crs, Affine.identity(), False
        )

    def read(self, window):
        part = np.s_[..., window.top : window.top + window.height, window.left : window.left + window.width]
        return self.values[part], self.valid[part]


class Mask:
    def __init__(self, mask):
        self.mask = mask

    def read(self, window):
        return self.mask[window.top : window.top + window.height, window.left : window.left + window.width]


def make_scene(height, width, seed=0, crs=None, cell=1, classes=5):
    """Return a scene whose first band is 50 times the class, in cells of one class."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, classes, (-(-height // cell), -(-width // cell)))
    mask = np.kron(cells, np.ones((cell, cell), int))[:height, :width].astype(np.int16)
    values = np.stack([mask * 50, 255 - mask * 10, rng.integers(0, 256, mask.shape)]).astype(np.uint8)
    return Scene(f"scene {seed}", Arrays(values, np.ones(mask.shape, bool), crs), Mask(mask))


def sampler(scenes, crop=24, seed=0, **augment):
    plain = {"scale": (1.0, 1.0), "brightness": 0.0, "contrast": 0.0, "band_jitter": 0.0} | augment
    return Sampler(scenes, AugmentConfig(**plain), crop=crop, seed=seed, mean=(0.0,) * 3, std=(1.0,) * 3)


def varied(seed=0):
    scenes = [make_scene(40, 50, 1), make_scene(17, 90, 2, CRS.from_epsg(32633)), make_scene(9, 9, 3)]
    return sampler(scenes, seed=seed, scale=(0.7, 1.6), rotate=30, brightness=0.2, contrast=0.2, band_jitter=0.1)


@given(st.permutations(range(12)), st.integers(0, 999))
def test_a_sample_is_a_function_of_its_number_alone(order, seed):
    forward, shuffled = varied(seed), varied(seed)
    expected = [forward.sample(number) for number in range(12)]
    for number in order:
        image, mask = shuffled.sample(number)
        np.testing.assert_array_equal(image, expected[number][0])
        np.testing.assert_array_equal(mask, expected[number][1])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_batches_also_from_the_middle(workers):
    expected = [[varied().sample(step * 2 + i) for i in range(2)] for step in range(7)]
    for first in (0, 3):
        found = list(batches(varied(), batch=2, first=first, last=7, workers=workers))
        assert len(found) == 7 - first
        for (images, masks, places), samples in zip(found, expected[first:], strict=True):
            assert len(places) == 2
            assert torch.equal(images, torch.from_numpy(np.stack([image for image, _ in samples])))
            assert torch.equal(masks, torch.from_numpy(np.stack([mask for _, mask in samples])).long())


def test_other_numbers_epochs_and_seeds_give_other_samples():
    found = [varied().sample(number)[0].tobytes() for number in range(30)] + [varied(1).sample(0)[0].tobytes()]
    assert len(set(found)) == len(found)


def test_each_scene_has_its_turns_in_each_epoch():
    drawn = sampler([make_scene(48, 48, 1), make_scene(24, 24, 2)], crop=24)
    assert drawn.samples_per_epoch == 4 + 1
    small = make_scene(24, 24, 2).read(drawn.scenes[1].whole).values[2]
    for epoch in range(4):
        thirds = [np.sort(drawn.sample(epoch * 5 + i)[0][2].ravel()) for i in range(5)]
        assert sum(np.array_equal(third, np.sort(small.ravel())) for third in thirds) == 1


@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_image_and_mask_stay_aligned_when_mirrored_and_turned_whatever_the_size(number, height, width, turn):
    image, mask = sampler([make_scene(height, width)], rotate90=turn).sample(number)
    labelled = mask != IGNORE
    assert image.shape == (3, 24, 24)
    assert labelled.sum() == min(24, height) * min(24, width)
    np.testing.assert_array_equal(image[0][labelled], mask[labelled] * 50)
    np.testing.assert_array_equal(image[1][labelled], 255 - mask[labelled] * 10)
    assert not image[:, ~labelled].any()


@given(st.integers(0, 999), st.floats(0.4, 2.5), st.floats(0, 180))
def test_image_and_mask_stay_aligned_when_zoomed_and_turned_by_any_angle(number, zoom, angle):
    scene = make_scene(60, 70, cell=10, classes=2)
    image, mask = sampler([scene], scale=(zoom, zoom), rotate=angle).sample(number)
    labelled = mask != IGNORE
    # The nearest pixel weighs at least a quarter in bilinear sampling; away from edges the two agree exactly.
    same = np.abs(image[0] - mask * 50) < 1
    assert set(np.unique(mask)) <= {IGNORE, 0, 1}
    inner = [(r, c) for r in range(3, 21) for c in range(3, 21) if np.ptp(mask[r - 3 : r + 4, c - 3 : c + 4]) == 0]
    assert all(same[r, c] or not labelled[r, c] for r, c in inner)
    assert (np.abs(image[0] - mask * 50)[labelled] <= 37.5 + 1e-2).all()


@given(st.integers(0, 999))
def test_masks_hold_known_values_only_and_pixels_without_data_are_ignored_and_0(number):
    rng = np.random.default_rng(number)
    scene = make_scene(30, 30)
    scene.reader.valid = rng.random((30, 30)) < 0.8
    drawn = sampler([scene], scale=(0.5, 2.0), rotate=45, brightness=0.5, contrast=0.5, band_jitter=0.5)
    image, mask = drawn.sample(number)
    assert set(np.unique(mask)) <= {IGNORE, 0, 1, 2, 3, 4}
    assert np.isfinite(image).all()
    labelled = mask != IGNORE
    assert not image[:, ~labelled].any()


def test_the_change_of_brightness_and_contrast_is_one_line_per_band():
    image, mask = sampler([make_scene(24, 24)], flip=False, brightness=0.5, contrast=0.5, band_jitter=0.5).sample(4)
    plain, _ = sampler([make_scene(24, 24)], flip=False).sample(4)
    assert (mask != IGNORE).all()
    for changed, band in zip(image, plain, strict=True):
        slope, shift = np.polyfit(band.ravel(), changed.ravel(), 1)
        np.testing.assert_allclose(changed, slope * band + shift, atol=1e-3)
        assert np.exp(-1) < slope < np.exp(1)
        assert abs(shift) < 1


def test_photos_keep_their_upper_side_and_scenes_need_not():
    rows = np.arange(24, dtype=np.uint8)[:, None].repeat(24, axis=1)
    mask = np.zeros((24, 24), np.int16)
    for crs, upright in ((None, True), (CRS.from_epsg(32633), False)):
        scene = Scene("x", Arrays(np.stack([rows] * 3), mask == 0, crs), Mask(mask))
        drawn = sampler([scene])
        assert all(np.array_equal(drawn.sample(n)[0][0], rows) for n in range(20)) == upright


def test_a_window_with_labels_is_looked_for():
    scene = make_scene(240, 24)
    scene.labels.mask[30:] = IGNORE
    drawn = sampler([scene], crop=24)
    found = [(drawn.sample(number)[1] != IGNORE).any() for number in range(60)]
    # A single draw has labels with the chance 30/217; eight have with 1 - (187/217)**8 = 0.70.
    assert np.mean(found) > 0.5


@given(step=st.integers(0, 5), shares=st.sampled_from([1, 2, 4]), mixed=st.booleans())
def test_shares_of_a_batch_are_the_batch_also_where_crops_are_mixed(step, shares, mixed):
    sampler = varied()
    sampler.config = sampler.config.model_copy(update={"classmix": 0.5 * mixed, "cutmix": 0.3 * mixed})
    whole = sampler.batch(step, 4)
    size = 4 // shares
    parts = [sampler.batch(step, 4, range(i * size, (i + 1) * size)) for i in range(shares)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.masks for part in parts]), whole.masks)
    assert [place for part in parts for place in part.places] == whole.places
