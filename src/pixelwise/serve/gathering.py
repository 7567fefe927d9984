"""Images that wait for one network go through it together, where that is faster.

Requests are computed by threads of their own: each reads, normalises, decides. Only the network itself is shared. While
it is at work, others wait; what waits with one size then goes together. So nobody waits for a batch to fill.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pixelwise.inference.networks import ArrayNetwork, Network, arithmetic_of, device_of

LARGEST = 16
"""Most images that are tried together."""
FASTER = 0.9
"""A larger batch is taken where an image takes at most so much of the time that it takes in the next smaller one."""
TRIALS = 3


@dataclass(frozen=True)
class _Waiting:
    images: Any
    answer: Future[Any]


class Gathering:
    """A network that is at work for one thread at a time, and then on all that waits with one size.

    The thread whose turn it is runs the network for the others too, so there is none that must be stopped.
    """

    def __init__(self, run: Callable[[Sequence[Any]], Sequence[Any]], most: int) -> None:
        """Prepare.

        Args:
            run: gives an answer for each of several arrays or tensors [B,C,H,W] of one size.
            most: images that go together.
        """
        self.run, self.most = run, most
        self.seen: dict[int, int] = {}
        """Images that went together -> how often."""
        self._waiting: deque[_Waiting] = deque()
        self._list, self._turn = threading.Lock(), threading.Lock()

    def answer(self, image: Any) -> Any:
        """Return what the network gives for images; other threads' may go with them."""
        waiting = _Waiting(image, Future())
        with self._list:
            self._waiting.append(waiting)
        while not waiting.answer.done():
            with self._turn:
                if not waiting.answer.done():
                    self._run_next()
        return waiting.answer.result()

    def _run_next(self) -> None:
        group = self._next()
        try:
            answers = self.run([each.images for each in group])
        except BaseException as problem:
            self._alone(group, problem)
            return
        for each, answer in zip(group, answers, strict=True):
            each.answer.set_result(answer)

    def _next(self) -> list[_Waiting]:
        group, rest, count = list[_Waiting](), deque[_Waiting](), 0
        with self._list:
            shape = self._waiting[0].images.shape[1:]
            for each in self._waiting:
                fits = not group or (each.images.shape[1:] == shape and count + len(each.images) <= self.most)
                (group if fits else rest).append(each)
                count += len(each.images) if fits else 0
            self._waiting = rest
        self.seen[count] = self.seen.get(count, 0) + 1
        return group

    def _alone(self, group: list[_Waiting], problem: BaseException) -> None:
        """Give each of a group that failed its own answer: one image's mistake, or too little memory for all."""
        for each in group:
            try:
                if len(group) == 1:
                    raise problem
                (answer,) = self.run([each.images])
                each.answer.set_result(answer)
            except BaseException as own:
                each.answer.set_exception(own)


def gather(network: Any, batch: int | None, side: int) -> Gathering | None:
    """Let the images that several threads give to a network go together, if that is asked for or faster.

    Its `decode`, or of an exported file `logits`, is then that of a `Gathering`.

    Args:
        batch: most images that go together; None: as many as a trial shows to be faster, on a GPU. Cores do best with
            an image each, without waiting for each other (`docs/performance.md`), so there nothing is tried.
        side: of the images that are tried.

    Returns:
        None where images go alone.
    """
    if batch is None:
        batch = 1 if device_of(network) == "cpu" else fastest_batch(network, side)
    if batch == 1:
        return None
    if isinstance(network, ArrayNetwork):
        shared = Gathering(partial(_logits, network.logits), batch)
        network.logits = shared.answer
    else:
        shared = Gathering(partial(_decoded, network.decode), batch)
        network.decode = shared.answer
    return shared


def _logits(alone: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    found = alone(np.concatenate(images))
    return np.split(found, np.cumsum([len(each) for each in images])[:-1])


def _decoded(alone: Callable[[Any], Any], images: Sequence[Any]) -> Sequence[Any]:
    import torch

    from pixelwise.models import Decoded

    with torch.no_grad():
        logits = alone(images[0] if len(images) == 1 else torch.cat(list(images))).logits
        return [Decoded(each) for each in logits.split([len(each) for each in images])]


def fastest_batch(network: Network, side: int) -> int:
    """Return how many images of a size are fastest together, by trial; 1, 2, 4 ... up to `LARGEST`."""
    ops, shape = arithmetic_of(network), (network.architecture.bands, side, side)

    def seconds(count: int) -> float:
        images = np.zeros((count, *shape), np.float32)
        times = []
        for _ in range(TRIALS + 1):
            started = time.perf_counter()
            ops.decode(network, ops.given(network, images))
            ops.finished(network)
            times.append(time.perf_counter() - started)
        # The first one also chooses algorithms.
        return min(times[1:]) / count

    best, fastest = 1, seconds(1)
    while best < LARGEST:
        try:
            found = seconds(2 * best)
        except RuntimeError:
            # Memory is out.
            ops.forget()
            break
        if found > FASTER * fastest:
            break
        best, fastest = 2 * best, found
    return best
