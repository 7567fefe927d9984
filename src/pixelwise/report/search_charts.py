"""Drawings of a search: its scores over time, against each value, and all values of a trial as one line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from pixelwise.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, short_number, svg, ticks

LONGEST_LABEL = 14
"""Characters of a label below an axis."""


@dataclass(frozen=True)
class Dot:
    """A trial in a drawing."""

    place: float
    """Along the horizontal axis, 0 to 1."""
    score: float
    kind: str
    """A class of the style: 'done', 'pruned' or 'best'."""
    told: str
    """What is shown when it is pointed at."""


Ticks = Sequence[tuple[float, str]]
"""Places from 0 to 1 along an axis, and their labels."""


def history_chart(dots: Sequence[Dot], marks: Ticks) -> str:
    """Draw the score of each trial in their order, and the best so far as a line."""
    place, axes = _frame(820, marks, [dot.score for dot in dots])
    best, drawn = float("-inf"), ""
    for dot in dots:
        if dot.kind == "pruned" or dot.score <= best:
            continue
        x, y = place(dot.place, dot.score)
        drawn += f"H{x:.1f}V{y:.1f}" if drawn else f"M{x:.1f} {y:.1f}"
        best = dot.score
    line = f'<path class="line quiet" d="{drawn}H{820 - RIGHT}"/>' if drawn else ""
    return svg(820, f"mIoU of {len(dots)} trials in their order", axes + line + _dots(place, dots))


def value_chart(dots: Sequence[Dot], marks: Ticks, name: str) -> str:
    """Draw the scores of trials against their values of one key."""
    place, axes = _frame(400, marks, [dot.score for dot in dots])
    return svg(400, f"mIoU against {escape(name)}", axes + _dots(place, dots))


def parallel_chart(lines: Sequence[tuple[Sequence[float], Dot]], axes: Sequence[tuple[str, Ticks]]) -> str:
    """Draw each trial as a line through its values on upright axes, the last of which is the score.

    Args:
        lines: places from 0 to 1 on each axis but the last, and the trial.
        axes: name and ticks of each.
    """
    scores = [dot.score for _, dot in lines]
    low, high = min(scores), max(scores)
    span = high - low or 1.0
    width, inner = 820, HEIGHT - TOP - BOTTOM
    across = [LEFT + i * (width - LEFT - 70) / len(axes) for i in range(len(axes) + 1)]
    score_ticks = [((value - low) / span, short_number(value)) for value in ticks(low, high, 4)]
    drawn = ""
    for places, dot in sorted(lines, key=lambda line: line[1].score):
        share = (dot.score - low) / span
        ups = [*places, share]
        points = "L".join(f"{x:.1f} {TOP + (1 - up) * inner:.1f}" for x, up in zip(across, ups, strict=True))
        style = "" if dot.kind == "best" else f' style="opacity:{0.12 + 0.6 * share**2:.2f}"'
        drawn += f'<path class="trial {dot.kind}"{style} d="M{points}"><title>{escape(dot.told)}</title></path>'
    for i, (x, (name, marks)) in enumerate(zip(across, [*axes, ("mIoU", score_ticks)], strict=True)):
        drawn += f'<path class="axis" d="M{x:.1f} {TOP}V{TOP + inner}"/>'
        short = name if len(name) <= 22 else f"…{name[-21:]}"
        left, anchor = (x, "middle") if i else (0, "start")
        drawn += f'<text x="{left:.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{escape(short)}</text>'
        for at, text in marks:
            y = TOP + (1 - at) * inner
            drawn += f'<text class="tick" x="{x + 5:.1f}" y="{y + 4:.1f}">{escape(_cut(text))}</text>'
    return svg(width, f"Values and scores of {len(lines)} trials", drawn)


def _frame(width: int, marks: Ticks, scores: Sequence[float]) -> tuple[Callable[[float, float], tuple], str]:
    """Return a function from (place, score) to a place in the drawing, and the axes as SVG."""
    low, high = min(scores), max(scores)
    room = (high - low) * 0.08 or 0.05
    low, high = max(0.0, low - room), high + room
    inner_width, inner_height = width - LEFT - RIGHT - 16, HEIGHT - TOP - BOTTOM

    def place(across: float, score: float) -> tuple[float, float]:
        return LEFT + 8 + across * inner_width, TOP + (high - score) / (high - low) * inner_height

    parts = []
    for value in ticks(low, high):
        y = place(0, value)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{width - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short_number(value)}</text>')
    for across, text in marks:
        x = place(across, low)[0]
        anchor = "end" if x > width - 40 else "start" if x < LEFT + 10 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="{anchor}">{escape(_cut(text))}</text>')
    return place, "".join(parts)


def _dots(place: Callable[[float, float], tuple], dots: Sequence[Dot]) -> str:
    drawn = ""
    for dot in sorted(dots, key=lambda each: each.kind == "best"):
        x, y = place(dot.place, dot.score)
        size = 5.5 if dot.kind == "best" else 4
        circle = f'<circle class="trial {dot.kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size}">'
        drawn += f"{circle}<title>{escape(dot.told)}</title></circle>"
    return drawn


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
