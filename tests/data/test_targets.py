"""Where crops are aimed at."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sampler import Arrays, Mask

from pixelwise.config import SamplingConfig
from pixelwise.data.scenes import Scene
from pixelwise.data.targets import CELL, Place, Targets, class_chances
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE


def scene_of(mask):
    mask = np.asarray(mask, np.int16)
    return Scene("x", Arrays(np.zeros((1, *mask.shape), np.uint8), np.ones(mask.shape, bool)), Mask(mask))


def rare_scenes(seed=0):
    """Two scenes of class 0 with some cells of class 2 and few pixels of class 1; a strip is ignored."""
    rng = np.random.default_rng(seed)
    first, second = np.zeros((200, 150), np.int16), np.zeros((40, 333), np.int16)
    first[rng.integers(0, 200, 5), rng.integers(0, 150, 5)] = 1
    second[:, 100:160] = 2
    first[:, 70:110] = IGNORE
    return [scene_of(first), scene_of(second)]


def drawn(targets, side, count=400, seed=0):
    return [targets.draw(side, np.random.default_rng([seed, i])) for i in range(count)]


@given(seed=st.integers(0, 99), side=st.integers(CELL, 250))
def test_a_window_that_is_aimed_at_a_class_holds_it_and_lies_as_others_do(seed, side):
    scenes = rare_scenes(seed)
    targets = Targets(scenes, 3, SamplingConfig(balanced=1.0, rarity=1.0))
    for place in drawn(targets, side, 20, seed):
        window, info = place.window, scenes[place.scene].info
        mask = scenes[place.scene].read_padded(window).mask
        assert mask.shape == (side, side)
        assert (mask != IGNORE).any()
        for start, size in ((window.top, info.height), (window.left, info.width)):
            assert min(0, size - side) <= start <= max(0, size - side)


def test_classes_are_drawn_alike_or_by_their_rarity():
    scenes = rare_scenes()
    pixels = np.array([(np.concatenate([s.labels.mask.ravel() for s in scenes]) == k).sum() for k in range(3)])
    for rarity in (0.0, 0.5, 1.0):
        # Independent of the code: weights 1, 1/sqrt(f), 1/f.
        weights = pixels.astype(float) ** -rarity
        np.testing.assert_allclose(class_chances(pixels, rarity), weights / weights.sum())
    targets = Targets(scenes, 3, SamplingConfig(balanced=1.0))
    held = np.array(
        [
            [(scenes[place.scene].read_padded(place.window).mask == k).any() for k in range(3)]
            for place in drawn(targets, CELL)
        ]
    )
    # A third of the draws is of each class, and windows of one cell rarely hold another of the rare two.
    assert abs(held[:, 2].mean() - 1 / 3) < 0.1
    assert abs(held[:, 1].mean() - 1 / 3) < 0.1
    assert class_chances(np.array([5, 0, 5]), 1.0).tolist() == [0.5, 0.0, 0.5]


def test_as_many_crops_are_aimed_as_asked_for():
    targets = Targets(rare_scenes(), 3, SamplingConfig(balanced=0.2, hard=0.3))
    free = np.mean([place is None for place in drawn(targets, 64, 1000)])
    assert abs(free - 0.5) < 0.05


def test_places_with_errors_are_drawn_in_proportion_and_only_after_the_round():
    scene = scene_of(np.zeros((4 * CELL, 4 * CELL)))
    targets = Targets([scene], 1, SamplingConfig(hard=1.0))
    for row in range(4):
        for column in range(4):
            error = 0.6 if (row, column) == (1, 2) else 0.04
            targets.record(Place(0, Window(row * CELL, column * CELL, CELL, CELL)), error)

    def hits():
        wanted = Window(CELL, 2 * CELL, CELL, CELL)
        return np.mean([place.window == wanted for place in drawn(targets, CELL, 1000)])

    assert hits() < 0.12, "1 / 16: the round began without errors"
    targets.begin_round()
    assert abs(hits() - 0.6 / (0.6 + 15 * 0.04)) < 0.06


def test_an_error_counts_for_all_cells_of_the_window_and_fades():
    targets = Targets([scene_of(np.zeros((3 * CELL, 3 * CELL)))], 1, SamplingConfig(hard=1.0))
    targets.record(Place(0, Window(-5, -5, CELL + 10, CELL + 10)), 1.0)
    assert np.isnan(targets.errors).sum() == 5
    targets.record(Place(0, Window(0, 0, CELL, CELL)), 0.0)
    assert targets.errors[0] == 0.5
    assert targets.errors[1] == 1.0


def test_a_state_gives_the_same_draws_back():
    def fresh():
        return Targets(rare_scenes(), 3, SamplingConfig(hard=1.0))

    first = fresh()
    first.record(Place(0, Window(0, 0, 64, 64)), 0.9)
    first.begin_round()
    first.record(Place(1, Window(0, 0, 64, 64)), 0.8)
    second = fresh()
    second.restore(first.state())
    assert drawn(first, 64) == drawn(second, 64)
    first.begin_round()
    second.begin_round()
    assert drawn(first, 64) == drawn(second, 64)
    assert drawn(first, 64) != drawn(fresh(), 64)


@pytest.mark.parametrize("height", [1, 31, 33, 130])
def test_all_pixels_are_counted_also_at_the_edges(height, monkeypatch):
    monkeypatch.setattr("pixelwise.data.targets.STRIP_PIXELS", 50 * 2 * CELL)
    mask = np.random.default_rng(height).integers(IGNORE, 3, (height, 50))
    targets = Targets([scene_of(mask)], 3, SamplingConfig(balanced=1.0))
    assert targets._sums[:, -1].tolist() == [(mask == k).sum() for k in range(3)]
