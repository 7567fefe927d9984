"""Small random maps, and what the strip-wise code finds in them."""

import numpy as np
import pytest
from hypothesis import strategies as st

from pixelwise.geo.raster import Window
from pixelwise.parcels import regions as module
from pixelwise.parcels.outlines import outline
from pixelwise.parcels.regions import label_regions


@st.composite
def numbers(draw):
    """Small rasters with nowhere in them; every other one has two values only, so that corners touch often."""
    shape = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return rng.integers(-1, draw(st.sampled_from([1, 3])), shape)


def reader(values):
    return lambda w: values[w.top : w.top + w.height, w.left : w.left + w.width]


def everywhere(values):
    return Window(0, 0, *values.shape)


def found(values, folder, strip_pixels=10**6):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP_PIXELS", strip_pixels)
        made = label_regions(reader(values), *values.shape, folder / "pieces")
        return made, made.read(everywhere(values)), outline(made.read, *values.shape, len(made.keys))
