"""Images that go through a network together."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_network import predictor_of, small_network
from small_server import photo

from pixelwise.serve import gathering
from pixelwise.serve.gathering import Gathering, fastest_batch, gather


def test_what_waits_with_one_size_goes_together_and_each_gets_its_own():
    entered, leave = threading.Event(), threading.Event()

    def run(images):
        entered.set()
        assert leave.wait(30)
        return [each.sum() for each in images]

    shared = Gathering(run, 4)
    sizes = [8, 8, 8, 4, 8, 8, 8]
    images = [np.full((1, 3, size, size), i, np.float32) for i, size in enumerate(sizes)]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.answer, images[0])
        assert entered.wait(30)
        others = [pool.submit(shared.answer, image) for image in images[1:]]
        while len(shared._waiting) < 6:
            pass
        leave.set()
        answers = [each.result() for each in (first, *others)]
    assert answers == [image.sum() for image in images]
    # One alone; four of one size; one of another size; and the fifth that no longer fits.
    assert sorted(shared.seen) == [1, 4]
    assert sum(images * count for images, count in shared.seen.items()) == 7


def test_one_that_fails_does_not_fail_the_others():
    def run(images):
        if any(each.min() < 0 for each in images):
            raise ValueError("below zero")
        return [each.sum() for each in images]

    shared = Gathering(run, 8)
    waiting = [gathering._Waiting(np.full((1, 1, 2, 2), value), gathering.Future()) for value in (1, -1, 2)]
    shared._waiting.extend(waiting)
    shared._run_next()
    assert waiting[0].answer.result() == 4
    assert waiting[2].answer.result() == 8
    with pytest.raises(ValueError, match="below zero"):
        waiting[1].answer.result()


def test_a_gathered_network_gives_the_networks_own_answers():
    predictor, alone = predictor_of(), predictor_of()
    shared = gather(predictor.model, 4, 64)
    images = [photo(seed, 40 + seed % 2 * 60, 70) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(predictor.segment, images))
    for image, answer in zip(images, found, strict=True):
        assert np.array_equal(answer.labels, alone.segment(image).labels)
    assert sum(count * times for count, times in shared.seen.items()) > len(images)


def test_on_a_processor_images_go_alone():
    network = small_network()
    decode = network.decode
    assert gather(network, None, 64) is None
    assert network.decode == decode


@pytest.mark.parametrize(("costs", "best"), [((1, 1, 1, 1, 1), 16), ((1, 2, 4, 8, 16), 1), ((4, 4, 4, 9, 20), 4)])
def test_the_size_is_taken_from_which_on_nothing_is_won(monkeypatch, costs, best):
    """Seconds for 1, 2, 4, 8 and 16 images together."""
    now = [0.0]
    monkeypatch.setattr(gathering.time, "perf_counter", lambda: now[0])
    network = small_network()
    decode = network.decode

    def slow(images):
        now[0] += costs[int(np.log2(len(images)))]
        return decode(images)

    network.decode = slow
    assert fastest_batch(network, 32) == best
