"""How much of the time goes into waiting for data."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Waiting:
    """Measures, over the last steps, the share of the time in which the next batch was not there yet."""

    def __init__(self, steps: int) -> None:
        self.seconds = 0.0
        """What the newest step waited."""
        self._waited: deque[float] = deque(maxlen=steps)
        self._taken: deque[float] = deque(maxlen=steps)

    def over(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield the batches. The first, for which one always waits, does not count."""
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
        """Of the last steps' time, 0 to 1; None before there were so many."""
        if len(self._waited) < (self._waited.maxlen or 0):
            return None
        return sum(self._waited) / max(sum(self._taken), 1e-9)
