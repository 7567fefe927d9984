"""Pictures and curves as text that a page can hold."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Integer, UInt8
from PIL import Image

from pixelwise.errors import MissingExtraError
from pixelwise.labels import IGNORE

GREY, BLUE, RED = "#7d8590", "#2f6fdb", "#d1495b"


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


def path_of(rings: Sequence[Float64[np.ndarray, "n 2"]]) -> str:
    """Return polygon rings as the ``d`` of an SVG path."""
    return " ".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ring[:-1]) + "Z" for ring in rings)


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return the running mean over a centred window, shorter at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - window // 2), np.minimum(len(values), index + window // 2 + 1)
    return ((sums[high] - sums[low]) / (high - low)).tolist()


def curves(
    loss: Sequence[tuple[int, float]], score: Sequence[tuple[int, float]], rate: Sequence[tuple[int, float]]
) -> str:
    """Draw loss, mIoU and learning rate over the steps, as SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError(
            "The report needs matplotlib. Install it with: pip install 'pixelwise[report]'"
        ) from None
    look: Any = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "text.color": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
    }
    with rc_context(look):
        figure = Figure(figsize=(10.4, 2.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=[5, 5, 3])
        for axes, title in ((left, "Loss"), (middle, "mIoU on validation"), (right, "Learning rate")):
            axes.set_title(title, loc="left", fontsize=11, color=GREY)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.6)
            axes.locator_params(nbins=5)
            axes.patch.set_alpha(0)
        if loss:
            steps, values = zip(*loss, strict=True)
            left.plot(steps, values, color=BLUE, alpha=0.25, linewidth=0.6)
            left.plot(steps, smoothed(values, max(3, len(values) // 25)), color=BLUE, linewidth=1.8)
            left.set_ylim(0, float(np.percentile(values, 99.5)) * 1.08)
        if score:
            steps, values = zip(*score, strict=True)
            middle.plot(steps, values, color=BLUE, marker="o", markersize=3.5, linewidth=1.6)
            best = int(np.argmax(values))
            middle.plot(steps[best], values[best], marker="o", markersize=8, color=RED, linestyle="none")
            where = (steps[best], values[best])
            middle.annotate(
                f"best {values[best]:.3f}", where, (0, -16), textcoords="offset points", ha="center", color=RED
            )
            middle.set_ylim(0, max(0.05, max(values)) * 1.15)
        if rate:
            right.plot(*zip(*rate, strict=True), color=GREY, linewidth=1.4)
            right.set_ylim(bottom=0)
            right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
