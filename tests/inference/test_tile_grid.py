from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.inference.tile_grid import Rect, blend_weight, plan_strips, tile_starts, tile_windows

lengths = st.integers(1, 3000)


@st.composite
def tilings(draw):
    """A tile and an overlap of at most half of it, both multiples of 32."""
    tile = 32 * draw(st.integers(2, 20))
    return tile, 32 * draw(st.integers(0, tile // 64))


@given(lengths, tilings())
def test_every_pixel_lies_in_a_tile_and_no_tile_reaches_32_pixels_beyond(length, tiling):
    tile, overlap = tiling
    starts = tile_starts(length, tile, overlap)
    covered = {pixel for start in starts for pixel in range(start, start + tile)}
    assert covered >= set(range(length))
    assert length <= tile or starts[-1] + tile < length + 32


@given(lengths, tilings())
def test_tiles_start_at_0_and_at_rising_multiples_of_32(length, tiling):
    starts = tile_starts(length, *tiling)
    assert starts[0] == 0
    assert all(start % 32 == 0 for start in starts)
    assert starts == sorted(set(starts))


@given(lengths, tilings())
def test_neighbours_share_at_least_the_overlap(length, tiling):
    tile, overlap = tiling
    starts = tile_starts(length, tile, overlap)
    assert all(first + tile - second >= overlap for first, second in pairwise(starts))


@given(lengths, tilings())
def test_no_tile_could_be_left_out(length, tiling):
    tile, overlap = tiling
    starts = tile_starts(length, tile, overlap)
    for before, after in zip(starts, starts[2:], strict=False):
        assert before + tile - after < overlap or before + tile <= after


@given(st.integers(1, 400), st.integers(1, 400), tilings())
def test_windows_cover_a_scene_row_by_row_and_are_all_of_one_size(height, width, tiling):
    tile, overlap = tiling
    rows = tile_windows(height, width, tile, overlap)
    covered = np.zeros((height, width), int)
    for row in rows:
        assert len({window.top for window in row}) == 1
        assert [window.left for window in row] == [window.left for window in rows[0]]
        for window in row:
            covered[window.top : window.top + window.height, window.left : window.left + window.width] += 1
    assert covered.min() >= 1
    assert len({(window.height, window.width) for row in rows for window in row}) == 1
    assert rows[0][0].height == min(tile, -(-height // 32) * 32)
    assert rows[0][0].width == min(tile, -(-width // 32) * 32)
    assert [row[0].top for row in rows] == sorted({row[0].top for row in rows})


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 100))
def test_weights_are_positive_symmetric_and_highest_inside(height, width, overlap):
    weight = blend_weight(height, width, overlap)
    assert weight.dtype == np.float32
    assert weight.shape == (height, width)
    assert weight.min() > 0
    assert weight.max() <= 1
    np.testing.assert_array_equal(weight, weight[::-1, ::-1])
    inside = weight[overlap : height - overlap, overlap : width - overlap]
    assert not overlap or (inside == 1).all()
    assert (np.diff(weight[: (height + 1) // 2], axis=0) >= 0).all()


@given(st.integers(1, 64), st.integers(0, 64))
def test_two_tiles_that_share_just_the_overlap_weigh_1_together(overlap, more):
    side = 2 * overlap + 1 + more
    middle = blend_weight(side, side, overlap)[side // 2]
    np.testing.assert_allclose(middle[-overlap:] + middle[:overlap], 1, atol=1e-6)


def test_weights_fall_linearly_over_the_overlap():
    weight = blend_weight(11, 12, 4)
    np.testing.assert_allclose(weight[5] * 8, [1, 3, 5, 7, 8, 8, 8, 8, 7, 5, 3, 1])
    np.testing.assert_allclose(weight[:, 5] * 8, [1, 3, 5, 7, 8, 8, 8, 7, 5, 3, 1])


rects = st.builds(
    lambda top, left, height, width: Rect(top, left, top + height, left + width),
    *[st.integers(-5, 12)] * 2,
    *[st.integers(0, 12)] * 2,
)


@given(rects, rects)
def test_two_rectangles_share_the_cells_that_lie_in_both(one, other):
    def cells(rect):
        return {(row, column) for row in range(rect.top, rect.bottom) for column in range(rect.left, rect.right)}

    shared = one & other
    assert cells(shared) == cells(one) & cells(other)
    assert shared.empty == (not cells(shared))
    assert min(shared.shape) >= 0


@given(rects, rects)
def test_a_shared_rectangle_is_found_in_an_array_of_either(one, other):
    plane = np.arange(900).reshape(30, 30)
    first, second = (plane[rect.inside(Rect(-5, -5, 25, 25))] for rect in (one, other))
    shared = one & other
    np.testing.assert_array_equal(first[shared.inside(one)].ravel(), second[shared.inside(other)].ravel())
    assert first[shared.inside(one)].size == shared.shape[0] * shared.shape[1]


@given(st.integers(1, 300), st.integers(1, 400), st.sampled_from([4, 32]), st.sampled_from([32, 64]), st.data())
def test_a_rectangle_lies_in_the_pieces_that_are_named_and_in_no_other(height, width, stride, piece, data):
    plan = plan_strips(height, width, 64, 32, stride, piece=piece)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    wanted = Rect(top, left, data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width)))
    cells = plan.covering(wanted)
    every = [(row, column) for row in range(len(plan.down)) for column in range(len(plan.across))]
    expected = [place for place in every if not (plan.piece(place) & cells).empty]
    assert [place for place in plan.places(cells) if not plan.piece(place).empty] == expected
    covered = np.zeros((height, width), int)
    for place in every:
        covered[plan.pixels(plan.piece(place)).inside(plan.raster)] += 1
    assert (covered == 1).all()
