"""Curves, pictures and outlines as text."""

import base64
import io
import math
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.report.charts import (
    POINTS,
    data_uri,
    loss_chart,
    mistakes,
    path_of,
    rate_chart,
    score_chart,
    smoothed,
    thinned,
    ticks,
)

VALUES = st.lists(st.floats(0, 100), min_size=1, max_size=60)


def heights(drawing, kind):
    path = re.search(rf'<path class="{kind}" d="M([^"]+)"', drawing)
    assert path
    return [float(point.split()[1]) for point in path[1].split("L")]


def test_wrong_pixels_are_red_and_ignored_ones_are_not():
    picture = np.full((1, 3, 3), 100, np.uint8)
    shown = mistakes(picture, np.array([[0, 1, -1]]), np.array([[0, 0, 0]]))
    right, wrong, ignored = (tuple(int(v) for v in pixel) for pixel in shown[0])
    assert right[0] == right[1] == right[2]
    assert wrong[0] > wrong[1] + 60
    assert ignored[0] == ignored[1] < right[0]


def test_lossless_pictures_come_back_as_they_were():
    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    stream = io.BytesIO(base64.b64decode(data_uri(picture, lossless=True).split(",")[1]))
    assert (np.asarray(Image.open(stream).convert("RGB")) == picture).all()


@given(VALUES, st.integers(1, 9).map(lambda half: 2 * half + 1))
def test_a_running_mean_is_that_of_its_window(values, window):
    half = window // 2
    expected = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    assert np.allclose(smoothed(values, window), expected)


@given(st.integers(1, 5000), st.integers(0, 2**31))
def test_a_thinned_curve_keeps_its_order_its_highest_and_its_lowest_point(count, seed):
    points = list(enumerate(np.random.default_rng(seed).normal(size=count).tolist()))
    kept = thinned(points)
    assert len(kept) <= POINTS
    assert list(kept) == sorted(set(kept))
    assert set(kept) <= set(points)
    for extreme in (min, max):
        assert extreme(kept, key=lambda point: point[1]) == extreme(points, key=lambda point: point[1])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_are_few_and_round_and_inside_the_axis(low, span, most):
    high = low + span
    found = ticks(low, high, most)
    assert len(found) <= most + 1
    assert all(low - span * 1e-6 <= tick <= high + span * 1e-6 for tick in found)
    if len(found) > 1:
        step = found[1] - found[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        # 10: the difference of two ticks may be rounded to just below a power of ten.
        assert min(abs(mantissa - round_one) for round_one in (1, 2, 5, 10)) < 1e-3


@given(VALUES)
def test_an_axis_of_scores_begins_at_nought_and_heights_are_in_proportion(values):
    scores = [value / 100 for value in values]
    drawn = heights(score_chart(list(enumerate(scores)), len(scores)), "line")
    floor = heights(score_chart([(0, 0.0)], 1), "line")[0]
    best = int(np.argmax(scores))
    expected = [floor - (floor - drawn[best]) * score / max(scores[best], 1e-9) for score in scores]
    assert np.allclose(drawn, expected, atol=0.11)


def test_a_spike_of_the_loss_stays_inside_the_drawing():
    loss = [(step, 1.0) for step in range(400)]
    loss[100] = (100, 1e9)
    drawn = heights(loss_chart([*loss, (400, 1.0)]), "raw")
    assert min(drawn) >= 0


def test_charts_say_in_words_what_they_show():
    assert "the best is 0.700 at step 1,500" in score_chart([(1000, 0.5), (1500, 0.7), (2000, 0.6)], 2000)
    assert "at most 0.002" in rate_chart([(0, 0.0), (5, 2e-3), (10, 1e-3)])


def test_a_ring_becomes_a_closed_path_and_one_that_is_too_small_to_see_becomes_none():
    square = np.array([[0.0, 0], [2, 0], [2, 2], [0, 0]])
    assert path_of([square]) == "M0.0 0.0L2.0 0.0L2.0 2.0Z"
    assert path_of([square, square / 1000]) == path_of([square])
