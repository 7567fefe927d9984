"""What steps leave behind on a device, read many steps at once, so that the device never waits for a question."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Made:
    """A step that was begun; its numbers are known when the device has made it."""

    loss: Tensor
    """On labelled crops, 0-dimensional."""
    norm: Tensor
    """Of the gradient, before it was clipped."""
    bad: Tensor
    """1 where the loss or the gradient is not a finite number, else 0. A bad step has changed no weight."""
    rate: float
    """The encoder's learning rate."""


class Readings:
    """Rows of the log whose numbers are still on the device."""

    def __init__(self, every: int) -> None:
        self.every = every
        """Rows after which they should be read."""
        self._rows: list[dict] = []
        self._made: list[Made] = []

    def add(self, row: dict, made: Made) -> None:
        """Keep a step's row until its numbers are read."""
        self._rows.append(row)
        self._made.append(made)

    @property
    def due(self) -> bool:
        """Whether it is time to read."""
        return len(self._rows) >= self.every

    def read(self) -> tuple[list[dict], dict | None]:
        """Return the rows that were added since the last time, complete; all their numbers come in one copy.

        Returns:
            the rows before the first bad step, and the row of that step; None: there is no bad step.
        """
        rows, made, self._rows, self._made = self._rows, self._made, [], []
        if not made:
            return [], None
        numbers = torch.stack([each.float() for step in made for each in (step.loss, step.norm, step.bad)])
        found = numbers.view(-1, 3).tolist()
        for i, (row, (loss, norm, bad)) in enumerate(zip(rows, found, strict=True)):
            row["loss"] = loss
            # A float16 gradient overflows now and then, and JSON has no infinity.
            row["gradient_norm"] = norm if math.isfinite(norm) else None
            if bad:
                return rows[:i], row
        return rows, None
