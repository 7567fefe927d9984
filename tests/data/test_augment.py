"""Random changes to a crop."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.augment import Geometry, resample
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
