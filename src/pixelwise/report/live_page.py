"""The page that follows a run: curves, samples, warnings, and when it will end."""

import time
from collections.abc import Callable
from pathlib import Path

from pixelwise.labels import Classes
from pixelwise.report.charts import CURVES, curves_chart, loss_chart, rate_chart, score_chart
from pixelwise.report.live_run import LiveRun, State
from pixelwise.report.page import shown_picture
from pixelwise.report.template import page_from
from pixelwise.training.forecast import per_step, spoken

MOST_CURVES = 18
"""Classes whose curves can be told apart; with more, the table alone shows them."""
LOSSES = 25
"""Steps that the present loss is the mean of."""

WORDS: dict[State, str] = {
    "running": "running",
    "complete": "complete",
    "patience": "stopped early",
    "callback": "stopped by its callback",
    "interrupted": "interrupted",
    "error": "failed",
    "stopped": "stopped",
}


def live_body(run: LiveRun) -> str:
    """Return what changes on the page, as HTML: sections with an id each.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    state, pace, score = run.state, run.pace, run.scores("mIoU")
    best = max(score, key=lambda point: point[1]) if score else None
    losses = [value for _, value in run.points(1)[-LOSSES:]]
    since = max((i for i, note in enumerate(run.notes) if note.kind == "began"), default=0)
    last = run.notes[-1] if run.notes else None
    values = dict(
        title=title_of(run.folder),
        run=run,
        state=state,
        word=WORDS[state],
        ended=last.text if last is not None and last.kind == "ended" else "",
        share=min(1.0, run.step / max(1, run.steps)),
        pace=pace,
        left=spoken(pace.left) if pace else "",
        end=_clock(pace.left) if pace else "",
        spent=spoken(run.rows[-1][3]) if run.rows else "",
        seconds=per_step(pace.step) if pace else "",
        resumed=sum(note.kind == "began" for note in run.notes) - 1 if since else 0,
        best=best,
        loss=sum(losses) / len(losses) if losses else None,
        warnings=[note for note in run.notes if note.kind == "warned"],
        charts=_charts(run, score),
        classes=_classes(run),
        class_chart=_class_chart(run),
        samples=_samples(run),
        sampled=run.evaluations[-1]["step"] if run.evaluations else 0,
    )
    return page_from("live_body.html.j2", values)


def title_of(folder: Path) -> str:
    """Return what a run is called."""
    return folder.resolve().name


def _clock(left: float) -> str:
    when, now = time.localtime(time.time() + left), time.localtime()
    return time.strftime("%H:%M" if when[:3] == now[:3] else "%A %H:%M" if left < 5 * 86400 else "%d %B %H:%M", when)


def _charts(run: LiveRun, score: list[tuple[int, float]]) -> list[tuple[str, str]]:
    charts = []
    drawn: list[tuple[str, list[tuple[int, float]], Callable[[list], str]]] = [
        ("Loss", run.points(1), loss_chart),
        ("mIoU on the validation part", score, lambda points: score_chart(points, run.step)),
        ("Learning rate", run.points(2), rate_chart),
    ]
    for name, points, draw in drawn:
        # A curve of one point is none.
        if len(points) > 1 or (points and draw is not loss_chart and draw is not rate_chart):
            charts.append((name, draw(points)))
    return charts


def _names(run: LiveRun) -> list[str]:
    return list(run.config.data.classes)


def _classes(run: LiveRun) -> list[dict]:
    """Return of each class: its name, its colours in the curves and in the pictures, its newest and its best IoU."""
    if not run.evaluations:
        return []
    rows = []
    palette = run.classes.palette if run.classes is not None else ()
    for i, name in enumerate(_names(run)):
        points = run.scores(f"IoU/{name}")
        colour, dashes = CURVES[i % len(CURVES)]
        rows.append(
            {
                "name": name,
                "colour": "#{:02x}{:02x}{:02x}".format(*palette[i]) if i < len(palette) else "",
                "curve": colour if len(_names(run)) <= MOST_CURVES else "",
                "dashes": dashes,
                "now": run.evaluations[-1].get(f"IoU/{name}"),
                "best": max(points, key=lambda point: point[1]) if points else None,
            }
        )
    return rows


def _class_chart(run: LiveRun) -> str:
    curves = [run.scores(f"IoU/{name}") for name in _names(run)]
    if len(curves) > MOST_CURVES or not any(len(curve) > 1 for curve in curves):
        return ""
    # A class that never had a score keeps its colour, and has no curve.
    return curves_chart([curve or [(0, 0.0)] for curve in curves], "IoU of each class at each evaluation", low=0.0)


def _samples(run: LiveRun) -> list[dict]:
    classes: Classes | None = run.classes
    return [] if classes is None else [shown_picture(picture, classes) for picture in run.samples]
