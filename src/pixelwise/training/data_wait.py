"""How much of the time goes into waiting for data."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

STEPS = 50
"""Over how many steps the share is measured."""
SHARE = 0.25
"""The user is told when the network waits for this share of the time or more."""


class Waiting:
    """Measures, over the last steps, the share of the time in which the next batch was not there yet."""

    def __init__(self, steps: int = STEPS) -> None:
        self.seconds = 0.0
        """How long the newest step waited."""
        self._waited: deque[float] = deque(maxlen=steps)
        self._taken: deque[float] = deque(maxlen=steps)
        self._told = False

    def over(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield the batches. The first does not count, because one always waits for it."""
        iterator = iter(batches)
        try:
            batch = next(iterator)
        except StopIteration:
            return
        while True:
            yielded = time.monotonic()
            yield batch
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.seconds = time.monotonic() - asked
            self._waited.append(self.seconds)
            self._taken.append(asked - yielded + self.seconds)

    @property
    def share(self) -> float | None:
        """Share of the last steps' time, 0 to 1; None before there were as many as are measured."""
        if len(self._waited) < (self._waited.maxlen or 0):
            return None
        return sum(self._waited) / max(sum(self._taken), 1e-9)

    def hint(self, workers: int) -> str | None:
        """Return, once, what to do if the network waits for `SHARE` of the time or more.

        Args:
            workers: threads that read crops.
        """
        share = self.share
        if self._told or share is None or share < SHARE:
            return None
        self._told = True
        cores = os.cpu_count() or 1
        fix = (
            f"Raise [train].workers (it is {workers}, and there are {cores} cores)"
            if workers < cores
            else "Keep the images on a faster disk, or as uncompressed or tiled GeoTIFF"
        )
        return f"The network spent {share:.0%} of the last {len(self._waited)} steps waiting for crops. {fix}."
