"""What happens in a run, as values: `pixelwise.train` hands each to the function that was given as ``callback``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelwise.evaluation.metrics import Scores

Kept = Literal["model", "state", "checkpoint"]
"""``model``: the best so far; ``state``: what a run goes on from; ``checkpoint``: see ``[train].keep_every``."""
Reason = Literal["complete", "patience", "callback", "interrupted", "error"]
"""Why a run ended."""


@dataclass(frozen=True)
class Began:
    """The first event: the network and the data are there."""

    step: int
    """Steps that were made before; 0 for a new run."""
    steps: int
    """Steps that the run is to make in all."""
    folder: Path
    """Of the run."""


@dataclass(frozen=True)
class Step:
    """One step was made. It comes before the evaluation that may follow."""

    step: int
    """Counted from 1."""
    steps: int
    loss: float
    learning_rate: float
    """Of the encoder."""
    seconds: float
    """Since the run began, without the time between a kill and the resumption."""
    waited: float
    """Seconds of this step in which the network waited for crops."""


@dataclass(frozen=True)
class Evaluated:
    """The validation part was scored, and the state is saved."""

    step: int
    scores: Scores
    best: bool
    """No evaluation before it had a better or an equal mIoU."""


@dataclass(frozen=True)
class Saved:
    """Something is on the disk, whole."""

    step: int
    what: Kept
    path: Path


@dataclass(frozen=True)
class Warned:
    """Something looks wrong. Each code comes once in a run, however often it is resumed."""

    step: int
    code: str
    """Such as ``never-predicted``; docs/watching.md lists them."""
    text: str
    """What was seen, and what to do."""


@dataclass(frozen=True)
class Ended:
    """The last event, also where an error ends the run."""

    step: int
    reason: Reason
    text: str
    """A sentence for people."""


Event = Began | Step | Evaluated | Saved | Warned | Ended


class StopTraining(Exception):  # noqa: N818 - no error: it ends a run in good order
    """Raised by a callback to end the run after this step: it is evaluated and saved, and `train` returns."""

    def __init__(self, reason: str = "it gave no reason") -> None:
        super().__init__(reason)
