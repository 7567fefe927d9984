"""One self-contained HTML page for a search."""

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pixelwise.files import replacing
from pixelwise.optional import optional_module
from pixelwise.report.charts import ticks
from pixelwise.report.search_charts import Dot, Ticks, history_chart, parallel_chart, value_chart
from pixelwise.report.template import page_from
from pixelwise.tuning.space import Choices, Parameter, Value
from pixelwise.tuning.study import Study
from pixelwise.tuning.trials import Trial

PAGE = "tune.html"
ENOUGH_FOR_IMPORTANCE = 6
"""Complete trials, below which importance is chance."""
RIVALS = 4
"""The best trials, which are worth comparing."""
FEW_CHOICES = 6
"""Choices that have room for their labels below an axis."""


def write_page(study: Study, trials: Sequence[Trial], best: Trial | None, best_text: str | None) -> Path:
    """Write ``tune.html`` into a search's folder.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    scored = [trial for trial in trials if trial.score is not None and len(trial.values) == len(study.space)]
    dots = [_dot(trial, best) for trial in scored]
    complete = sorted((t for t in scored if t.state == "complete"), key=lambda t: -(t.score or 0))
    path = study.folder / PAGE
    values = {
        "title": study.folder.name,
        "network": study.config.model.name,
        "counts": {"complete": 0, "pruned": 0, "failed": 0, "running": 0, **Counter(t.state for t in trials)},
        "trials": trials,
        "wanted": max(study.config.tune.trials, len(trials)),
        "spent": _time(sum(trial.seconds or 0 for trial in trials)),
        "best": best,
        "best_text": best_text,
        "best_values": [(key, _text(value)) for key, value in best.values.items()] if best else [],
        "first": next((t for t in complete if t.number == 0 and _own(study)), None),
        "folder": study.folder,
        "rivals": [t.folder for t in complete[:RIVALS]],
        "history": _history(trials, dots, scored),
        "importance": _importance(study, complete),
        "charts": _value_charts(study.space, scored, dots),
        "parallel": _parallel(study.space, scored, dots) if len(study.space) > 1 and len(scored) > 2 else None,
        "keys": [parameter.key for parameter in study.space],
        "rows": [_row(study, trial, best) for trial in sorted(trials, key=_order)],
    }
    text = page_from("tune.html.j2", values)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _own(study: Study) -> bool:
    """Return whether the first trial had the configuration's own values."""
    first = study.optuna_study.get_trials(deepcopy=False)[0]
    return "fixed_params" in first.system_attrs


def _order(trial: Trial) -> tuple:
    """Return what sorts trials: complete ones from the best, then those ended early, failed and running ones."""
    return ("complete", "pruned", "running", "failed").index(trial.state), -(trial.score or 0), trial.number


def _row(study: Study, trial: Trial, best: Trial | None) -> dict:
    return {
        "number": trial.number,
        "score": trial.score,
        "state": {"complete": "at its end", "pruned": "early", "failed": "failed", "running": "not yet"}[trial.state],
        "steps": trial.steps,
        "values": [_text(trial.values[p.key]) if p.key in trial.values else "–" for p in study.space],
        "time": "" if trial.seconds is None else _time(trial.seconds),
        "reason": trial.reason,
        "best": best is not None and best.number == trial.number,
    }


def _dot(trial: Trial, best: Trial | None) -> Dot:
    assert trial.score is not None
    is_best = best is not None and best.number == trial.number
    kind = "best" if is_best else "done" if trial.state == "complete" else "pruned"
    told = ", ".join(f"{key} {_text(value)}" for key, value in trial.values.items())
    return Dot(0.0, trial.score, kind, f"Trial {trial.number + 1}: mIoU {trial.score:.3f}, {told}")


def _at(place: float, dot: Dot) -> Dot:
    return Dot(place, dot.score, dot.kind, dot.told)


def _history(trials: Sequence[Trial], dots: Sequence[Dot], scored: Sequence[Trial]) -> str | None:
    if not dots:
        return None
    last = max(1, max(trial.number for trial in trials))
    placed = [_at(trial.number / last, dot) for trial, dot in zip(scored, dots, strict=True)]
    marks = [((n - 1) / last, f"{n:g}") for n in ticks(1, last + 1, 10) if n == int(n)]
    return history_chart(placed, marks)


def _value_charts(space: Sequence[Parameter], scored: Sequence[Trial], dots: Sequence[Dot]) -> list[tuple[str, str]]:
    if not dots:
        return []
    charts = []
    for parameter in space:
        placed = [
            _at(_place(parameter, trial.values[parameter.key]), dot) for trial, dot in zip(scored, dots, strict=True)
        ]
        charts.append((parameter.key, value_chart(placed, _marks(parameter), parameter.key)))
    return charts


def _parallel(space: Sequence[Parameter], scored: Sequence[Trial], dots: Sequence[Dot]) -> str:
    lines = [
        ([_place(parameter, trial.values[parameter.key]) for parameter in space], dot)
        for trial, dot in zip(scored, dots, strict=True)
    ]
    return parallel_chart(lines, [(parameter.key, _marks(parameter)) for parameter in space])


def _place(parameter: Parameter, value: Value) -> float:
    """Return where a value is on its axis, 0 to 1."""
    if isinstance(parameter, Choices):
        return (parameter.values.index(value) + 0.5) / len(parameter.values)
    low, high = parameter.low, parameter.high
    if parameter.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _marks(parameter: Parameter) -> Ticks:
    """Return the ticks of a parameter's axis."""
    if isinstance(parameter, Choices):
        every = math.ceil(len(parameter.values) / FEW_CHOICES)
        return [(_place(parameter, value), _text(value)) for value in parameter.values[::every]]
    if not parameter.log:
        return [(_place(parameter, value), f"{value:.4g}") for value in ticks(parameter.low, parameter.high, 4)]
    low, high = math.log10(parameter.low), math.log10(parameter.high)
    factors = (1,) if high - low > 2 else (1, 3) if high - low > 1 else (1, 2, 5)
    numbers = [f * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for f in factors]
    return [(_place(parameter, n), f"{n:g}") for n in numbers if parameter.low <= n <= parameter.high]


def _importance(study: Study, complete: Sequence[Trial]) -> list[tuple[str, float]]:
    """Return the importance of each key, the largest first; nothing where trials are few or score alike."""
    if len(complete) < ENOUGH_FOR_IMPORTANCE or len({trial.score for trial in complete}) < 2 or len(study.space) < 2:
        return []
    optuna = optional_module("optuna")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(study.optuna_study, evaluator=evaluator)
        except (ValueError, RuntimeError):
            # It has rules of its own for what is enough.
            return []
    return [(key, float(share)) for key, share in found.items() if math.isfinite(share)]


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
