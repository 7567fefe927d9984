import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_network import card_of, small_network

from pixelwise.errors import ConfigError
from pixelwise.inference.options import TileOptions

CARD = card_of(small_network(), tile=256, overlap=64)


def test_what_was_not_asked_for_is_as_in_training():
    assert TileOptions().grid(CARD) == (256, 64)
    assert TileOptions(overlap=128).grid(CARD) == (256, 128)
    assert TileOptions(tile=512).grid(CARD) == (512, 64)
    assert TileOptions(tile=96).grid(CARD) == (96, 32), "half of a smaller tile, in steps of 32"


@given(st.integers(-64, 600), st.integers(-64, 600))
def test_a_grid_is_given_or_refused_with_both_of_its_values(tile, overlap):
    works = tile >= 64 and tile % 32 == 0 and overlap % 32 == 0 and 0 <= overlap <= tile / 2
    if works:
        assert TileOptions(tile, overlap).grid(CARD) == (tile, overlap)
        return
    with pytest.raises(ConfigError, match=rf"tile of {tile} pixels with an overlap of {overlap} "):
        TileOptions(tile, overlap).grid(CARD)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (9.0,), (float("nan"),)])
def test_scales_that_do_not_work_are_named(scales):
    with pytest.raises(ConfigError, match="scales"):
        TileOptions(scales=scales)


def test_a_batch_is_1_or_more():
    with pytest.raises(ConfigError, match="batch of 0"):
        TileOptions(batch=0)
