import pytest

from pixelwise.training import data_wait
from pixelwise.training.data_wait import SHARE, Waiting


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `wait` moves."""

    class Clock:
        now = 0.0

        def wait(self, seconds):
            self.now += seconds

        def batches(self, *seconds):
            for i, each in enumerate(seconds):
                self.wait(each)
                yield i

    clock = Clock()
    monkeypatch.setattr(data_wait.time, "monotonic", lambda: clock.now)
    return clock


def test_batches_pass_through_in_their_order():
    assert list(Waiting(3).over(range(5))) == list(range(5))
    assert list(Waiting(3).over([])) == []


def test_the_share_is_known_after_as_many_steps_as_are_measured_and_one():
    waiting, shares = Waiting(2), []
    for _ in waiting.over(range(5)):
        shares.append(waiting.share is None)
    assert shares == [True, True, False, False, False]


def test_the_share_is_the_time_of_reading_over_that_of_reading_and_working(clock):
    waiting = Waiting(2)
    for _ in waiting.over(clock.batches(100, 3, 3)):
        clock.wait(1)
    assert waiting.seconds == 3
    assert waiting.share == pytest.approx(0.75)


def test_what_was_long_ago_does_not_count(clock):
    waiting = Waiting(2)
    for _ in waiting.over(clock.batches(9, 9, 9, 0, 0)):
        clock.wait(1)
    assert waiting.share == 0


@pytest.mark.parametrize(
    ("workers", "fix"), [(1, "Raise [train].workers (it is 1, and there are 2 cores)"), (2, "disk")]
)
def test_the_hint_is_given_once_and_names_what_helps(clock, monkeypatch, workers, fix):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    waiting, hints = Waiting(2), []
    for _ in waiting.over(clock.batches(0, 1, 1, 1, 1)):
        clock.wait(1)
        hints.append(waiting.hint(workers))
    assert [hint is None for hint in hints] == [True, True, False, True, True]
    assert "50% of the last 2 steps" in hints[2]
    assert fix in hints[2]


def test_there_is_no_hint_where_the_network_hardly_waits(clock):
    waiting = Waiting(1)
    for _ in waiting.over(clock.batches(0, SHARE - 0.01)):
        clock.wait(1 - SHARE + 0.01)
    assert waiting.share == pytest.approx(SHARE - 0.01)
    assert waiting.hint(1) is None
