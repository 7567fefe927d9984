import numpy as np
import pytest

from pixelwise.data.stats import statistics_of
from pixelwise.training.alarms import EVALUATIONS, FIRST, LATER, never_predicted, rate_too_high, unlike_training

NAMES = ("water", "field", "road")


FULL = np.eye(3, dtype=np.int64) * 10
NO_ROAD = np.array([[10, 0, 0], [0, 10, 0], [4, 6, 0]])


def test_a_class_that_no_evaluation_predicts_is_named_with_its_share_and_the_fix():
    said = never_predicted(NAMES, [NO_ROAD] * EVALUATIONS, (50, 49, 1), 0.5)
    assert said is not None
    assert "no pixel of 'road' (1.00%);" in said
    assert "[sampling].balanced = true" in said
    assert "field" not in said


@pytest.mark.parametrize(
    ("matrices", "pixels", "trained"),
    [
        ([NO_ROAD] * (EVALUATIONS - 1), (50, 49, 1), 0.5),
        ([FULL, NO_ROAD, NO_ROAD], (50, 49, 1), 0.5),
        ([NO_ROAD] * EVALUATIONS, (50, 49, 0), 0.5),
        ([NO_ROAD] * EVALUATIONS, (50, 49, 1), 0.1),
        ([NO_ROAD * [[1], [1], [0]]] * EVALUATIONS, (50, 49, 1), 0.5),
    ],
    ids=["too few evaluations", "predicted lately", "no training pixel", "too early", "not in the validation part"],
)
def test_nothing_is_said_of_a_class_where_it_may_well_be(matrices, pixels, trained):
    assert never_predicted(NAMES, matrices, pixels, trained) is None


def part(values, pixels):
    return statistics_of(np.asarray(values, float)[None, None], np.ones((1, len(values)), bool)), pixels


def test_a_part_of_other_units_is_named_with_both_means():
    said = unlike_training(NAMES, part([90, 100, 110], (5, 5, 5)), part([0.3, 0.4, 0.5], (5, 5, 5)), [4])
    assert said is not None
    assert "band 4 is 0.4 ± 0.08165 there and 100 ± 8.165 in training" in said


def test_a_part_of_other_classes_is_named_with_both_shares():
    said = unlike_training(NAMES, part([90, 110], (90, 10, 0)), part([90, 110], (10, 90, 0)), [1])
    assert said is not None
    assert "'water' is 10.0% of the labelled pixels there and 90.0% in training" in said


@pytest.mark.parametrize("seed", range(5))
def test_parts_that_were_drawn_from_the_same_are_not_unlike(seed):
    rng = np.random.default_rng(seed)
    own, other = (part(rng.normal(100, 10, 50), rng.multinomial(1000, [0.6, 0.3, 0.1]).tolist()) for _ in range(2))
    assert unlike_training(NAMES, own, other, [1]) is None


def test_a_loss_that_rises_far_above_its_start_is_told_with_a_lower_rate():
    said = rate_too_high([1.0] * FIRST, [2.6] * LATER, 1e-2)
    assert said is not None
    assert "from 1 at the start to 2.6" in said
    assert "[train].learning_rate = 0.002 (it is 0.01)" in said


@pytest.mark.parametrize(
    ("first", "newest"),
    [
        ([1.0] * FIRST, [1.8] * LATER),
        ([0.02] * FIRST, [0.2] * LATER),
        ([1.0] * FIRST, [0.5] * (LATER // 2 + 1) + [50.0] * (LATER // 2)),
        ([1.0] * FIRST, [9.0] * (LATER - 1)),
    ],
    ids=["a little", "both small", "spikes", "too few steps"],
)
def test_other_losses_are_no_alarm(first, newest):
    assert rate_too_high(first, newest, 1e-2) is None
