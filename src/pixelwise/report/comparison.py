"""One self-contained HTML page that sets runs side by side."""

from pathlib import Path

from pixelwise.evaluation.compare import ComparedRun, Comparison
from pixelwise.files import replacing
from pixelwise.report.charts import CURVES, curves_chart, smoothed
from pixelwise.report.template import page_from


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the page of a comparison.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    text = page_from(
        "comparison.html.j2",
        {
            "comparison": comparison,
            "names": list(comparison.runs[0].classes),
            "marks": [_mark(*CURVES[i % len(CURVES)]) for i in range(len(comparison.runs))],
            "charts": _charts(comparison.runs),
        },
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def _mark(colour: str, dashes: str) -> str:
    """Draw a piece of a run's curve, for tables and legends."""
    line = f'<path d="M0 6H26" stroke="{colour}" stroke-width="3" stroke-dasharray="{dashes}"/>'
    return f'<svg class="mark" width="26" height="12" aria-hidden="true">{line}</svg>'


def _charts(runs: tuple[ComparedRun, ...]) -> list[tuple[str, str]]:
    """Return titles and drawings. A run without a curve has an empty place in the order of colours."""
    charts = []
    if all(run.validation for run in runs):
        curves = [run.validation for run in runs]
        charts.append(("mIoU on the validation part", curves_chart(curves, "mIoU in training, of each run", low=0.0)))
    if all(run.loss for run in runs):
        means = [list(zip([step for step, _ in run.loss], _running_mean(run.loss), strict=True)) for run in runs]
        charts.append(("Loss, running mean", curves_chart(means, "Loss in training, of each run")))
    return charts


def _running_mean(loss: tuple[tuple[int, float], ...]) -> list[float]:
    return smoothed([value for _, value in loss], max(3, len(loss) // 25))
