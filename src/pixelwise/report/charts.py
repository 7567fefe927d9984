"""Curves, pictures and outlines as text that a page can hold."""

import base64
import io
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Integer, UInt8
from PIL import Image

from pixelwise.labels import IGNORE

HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 236, 46, 24, 12, 34
"""Height of a chart, and the room around its axes, in units of its own."""
POINTS = 600
"""Points of a curve that are drawn at most."""

CURVES = tuple(
    (colour, dashes)
    for dashes in ("none", "7 4", "2 3")
    for colour in ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
)
"""Colours that the colour-blind tell apart too (Okabe and Ito, 2008), and dashes where colours come again."""

Points = Sequence[tuple[int, float]]
"""(step, value), in the order of the steps; all values are finite."""


def data_uri(picture: UInt8[np.ndarray, "H W 3"], *, lossless: bool = False) -> str:
    """Return a picture as a data URI: WebP, small for photographs and exact for labels."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=82, lossless=lossless, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def mistakes(
    picture: UInt8[np.ndarray, "H W 3"], truth: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture in pale grey with wrong pixels in red; pixels without truth are dark."""
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.45 + 130
    wrong = (truth != prediction) & (truth != IGNORE)
    grey[wrong] = grey[wrong] * 0.25 + np.array([209, 45, 75]) * 0.75
    grey[truth == IGNORE] *= 0.4
    return grey.clip(0, 255).astype(np.uint8)


def path_of(rings: Sequence[Float64[np.ndarray, "_ 2"]]) -> str:
    """Return polygon rings as the ``d`` of an SVG path; what is closer than a tenth of a pixel becomes one point."""
    drawn = []
    for ring in rings:
        points = [f"{x:.1f} {y:.1f}" for x, y in ring[:-1]]
        kept = [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]
        if len(kept) > 2:
            drawn.append("M" + "L".join(kept) + "Z")
    return " ".join(drawn)


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the running mean over a centred window, shorter at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - window // 2), np.minimum(len(values), index + window // 2 + 1)
    return ((sums[high] - sums[low]) / (high - low)).tolist()


def thinned(points: Points) -> Points:
    """Return at most `POINTS` points, among them the lowest and the highest of every stretch."""
    if len(points) <= POINTS:
        return points
    edges = np.linspace(0, len(points), POINTS // 2 + 1).astype(int)
    kept: set[int] = set()
    for low, high in pairwise(edges.tolist()):
        values = [value for _, value in points[low:high]]
        kept |= {low + int(np.argmin(values)), low + int(np.argmax(values))}
    return [points[i] for i in sorted(kept)]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def loss_chart(loss: Points) -> str:
    """Draw the loss of each step, faint, and its running mean. The axis begins at 0; rare spikes are cut off."""
    values = [value for _, value in loss]
    mean = smoothed(values, max(3, len(values) // 25))
    top = max(float(np.percentile(values, 99 if len(values) > 100 else 100)), *mean) * 1.08
    line = list(zip([step for step, _ in loss], mean, strict=True))
    place, axes = _axes(400, loss[-1][0], min(0.0, *values), top)
    drawn = _line(place, thinned(loss), "raw") + _line(place, thinned(line), "line")
    return svg(400, f"Loss over {loss[-1][0]:,} steps, from {mean[0]:.3g} to {mean[-1]:.3g}", axes + drawn)


def score_chart(score: Points, last_step: int) -> str:
    """Draw the mIoU of each evaluation, from 0, with the best marked."""
    best, value = max(score, key=lambda point: point[1])
    place, axes = _axes(400, last_step, 0.0, min(1.0, max(0.1, value * 1.2)))
    dots = "".join('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.6"/>'.format(*place(*point)) for point in score)
    x, y = place(best, value)
    anchor = "end" if x > 320 else "start" if x < 90 else "middle"
    mark = (
        f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        f'<text class="best" x="{x:.1f}" y="{y - 10:.1f}" text-anchor="{anchor}">best {value:.3f}</text>'
    )
    # Thinning keeps the best, which is the highest of its stretch.
    drawn = _line(place, thinned(score), "line") + (dots if len(score) <= 60 else "") + mark
    return svg(400, f"mIoU at {len(score)} evaluations; the best is {value:.3f} at step {best:,}", axes + drawn)


def rate_chart(rate: Points) -> str:
    """Draw the learning rate, from 0."""
    highest = max(value for _, value in rate)
    place, axes = _axes(270, rate[-1][0], 0.0, highest * 1.08)
    return svg(270, f"Learning rate, at most {highest:.3g}", axes + _line(place, thinned(rate), "line quiet"))


def curves_chart(curves: Sequence[Points], label: str, *, low: float | None = None, width: int = 540) -> str:
    """Draw several curves over each other, each in its colour and dashes of `CURVES`.

    Args:
        curves: none of them empty.
        label: what the drawing shows, for those who do not see it.
        low: where the axis begins; None: at the lowest value.
    """
    values = [value for curve in curves for _, value in curve]
    place, axes = _axes(width, max(curve[-1][0] for curve in curves), min(values) if low is None else low, max(values))
    drawn = ""
    for i, curve in enumerate(curves):
        colour, dashes = CURVES[i % len(CURVES)]
        drawn += _line(place, thinned(curve), f'line" style="stroke:{colour};stroke-dasharray:{dashes}')
        drawn += "".join(
            '<circle cx="{:.1f}" cy="{:.1f}" r="2.6" fill="{}"/>'.format(*place(*point), colour)
            for point in (curve if len(curve) <= 60 else ())
        )
    return svg(width, label, axes + drawn)


def reliability_chart(
    confidence: Sequence[float | None], accuracy: Sequence[float | None], pixels: Sequence[int], label: str
) -> str:
    """Draw accuracy against confidence, both from 0 to 1: bars and dots for bins, a line where both are equal.

    Args:
        confidence, accuracy: means of each bin of equal width, None where it is empty.
        pixels: in each bin; a dot's area grows with them.
        label: what the drawing shows, for those who do not see it.
    """
    place, axes = _axes(400, 1, 0.0, 1.0)
    drawn, most = "", max(1, *pixels)
    for i, (sure, right, count) in enumerate(zip(confidence, accuracy, pixels, strict=True)):
        if sure is None or right is None:
            continue
        (left, top), (end, floor) = place(i / len(pixels), right), place((i + 1) / len(pixels), 0)
        told = f"confidence {sure:.3f}, accuracy {right:.3f}, {count:,} pixels"
        drawn += (
            f'<rect class="bin" x="{left + 1:.1f}" y="{top:.1f}" width="{end - left - 2:.1f}" '
            f'height="{floor - top:.1f}"><title>{told}</title></rect>'
        )
        x, y = place(sure, right)
        drawn += f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{2 + 5 * math.sqrt(count / most):.1f}"/>'
    return svg(400, label, axes + _line(place, [(0, 0.0), (1, 1.0)], "ideal") + drawn)


def _axes(width: int, last_step: int, low: float, high: float) -> tuple[Callable[[float, float], tuple], str]:
    """Return a function from (step, value) to a place in the drawing, and the axes as SVG."""
    if high - low < max(1e-12, abs(low) * 1e-9):
        high = low + max(1.0, abs(low))
    last_step = max(1, last_step)
    inner_width, inner_height = width - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(step: float, value: float) -> tuple[float, float]:
        value = min(max(value, low), high)
        return LEFT + step / last_step * inner_width, TOP + (high - value) / (high - low) * inner_height

    parts = []
    for value in ticks(low, high):
        y = place(0, value)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{width - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short_number(value)}</text>')
    for step in ticks(0, last_step, 3 if width < 300 else 5):
        x = place(step, low)[0]
        anchor = "end" if x > width - 24 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="{anchor}">{short_number(step)}</text>')
    return place, "".join(parts)


def short_number(value: float) -> str:
    """Return a number as an axis shows it."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 0.01 else f"{value:.4g}"


def _line(place: Callable[[float, float], tuple], points: Points, kind: str) -> str:
    places = [place(step, value) for step, value in points]
    return f'<path class="{kind}" d="M' + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) + '"/>'


def svg(width: int, label: str, inside: str) -> str:
    """Return a drawing of the height of charts, with a label for those who do not see it."""
    return f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{label}">{inside}</svg>'
