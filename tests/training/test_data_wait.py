import time

import pytest

from pixelwise.training.data_wait import Waiting


def slow(count, seconds):
    for i in range(count):
        time.sleep(seconds)
        yield i


def test_batches_pass_through_in_their_order():
    assert list(Waiting(3).over(range(5))) == list(range(5))
    assert list(Waiting(3).over([])) == []


def test_the_share_is_known_after_as_many_steps_as_asked_for_and_one():
    waiting, shares = Waiting(2), []
    for _ in waiting.over(range(5)):
        shares.append(waiting.share is None)
    assert shares == [True, True, False, False, False]


def test_slow_batches_are_waited_for_and_slow_steps_are_not():
    reading, working = Waiting(2), Waiting(2)
    for _ in reading.over(slow(4, 0.05)):
        pass
    for _ in working.over(range(4)):
        time.sleep(0.05)
    assert reading.seconds >= 0.05
    assert reading.share > 0.9 > 0.1 > working.share


def test_what_was_long_ago_does_not_count():
    waiting = Waiting(2)

    def mixed():
        yield from slow(3, 0.05)
        yield from range(4)

    for _ in waiting.over(mixed()):
        time.sleep(0.002)
    assert waiting.share == pytest.approx(0, abs=0.3)
