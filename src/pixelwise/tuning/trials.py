"""The trials of a search, as its page and its user see them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelwise.tuning.space import Value
from pixelwise.tuning.study import Study

State = Literal["complete", "pruned", "failed", "running"]
_STATES: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


@dataclass(frozen=True)
class Trial:
    """One set of values, and what came of it."""

    number: int
    """Counted from 0, as its folder is."""
    state: State
    score: float | None
    """The highest mIoU of its evaluations, 0 to 1; None where there was none."""
    steps: int
    """At which it was evaluated last."""
    values: dict[str, Value]
    """By key."""
    seconds: float | None
    """From its beginning to its end, with breaks; None while it is running."""
    reason: str
    """Why it failed."""
    folder: Path
    """Of its run."""


def trials_of(study: Study) -> tuple[Trial, ...]:
    """Return all trials that were begun, in their order."""
    return tuple(
        Trial(
            number=each.number,
            state=_STATES[each.state.name],
            score=max(each.intermediate_values.values(), default=None) if each.value is None else each.value,
            steps=max(each.intermediate_values, default=0),
            values={
                parameter.key: parameter.value_of(each.params[parameter.key])
                for parameter in study.space
                if parameter.key in each.params
            },
            seconds=each.duration.total_seconds() if each.duration is not None else None,
            reason=str(each.user_attrs.get("reason", "")),
            folder=study.run_folder(each.number),
        )
        for each in study.optuna_study.get_trials(deepcopy=False)
        if each.state.name in _STATES
    )
