"""The gallery of suspicious labels on the page of a check."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from pixelwise.evaluation.suspects import EDGE, SURE, Suspect
from pixelwise.geo.label_map import overlay, to_picture
from pixelwise.labels import Classes
from pixelwise.report.check_page import Figure, Section
from pixelwise.report.check_pictures import shrunk

SHOWN = 48
"""So many of the first suspects have pictures."""
LINE, LINES = (255, 0, 220), 200
"""The colour of a region's outline, and how many times its width fits a picture."""


def suspect_section(suspects: Sequence[Suspect], classes: Classes, run: Path) -> Section:
    """Return the part of the page: each region as image, labels and prediction, the likeliest mistake first."""
    figures = []
    for rank, suspect in enumerate(suspects[:SHOWN], start=1):
        drawn = suspect.picture
        image = to_picture(drawn.image)
        seen = ", learned in training" if suspect.learned else ""
        caption = (
            f"{rank}. {suspect.scene}, row {suspect.window.top}, column {suspect.window.left}: labelled "
            f"{suspect.label}, predicted {suspect.predicted} ({suspect.pixels:,} pixels, {suspect.part}{seen})"
        )
        masks = [
            (title, shrunk(overlay(image, mask, classes, opacity=0.6)))
            for title, mask in (("labels", drawn.truth), ("prediction", drawn.prediction))
        ]
        figures.append(Figure(caption, (("image", shrunk(_outlined(image, suspect.inside))), *masks)))
    learned = sum(suspect.learned for suspect in suspects)
    text = (
        f"{len(suspects)} regions where {run} contradicts the labels with a probability of {SURE:.0%} or more, the "
        f"likeliest mistakes first. Strips narrower than {2 * EDGE + 1} pixels are left out. "
        + (
            f"{learned} of them are in images that the run has learned from, where it agrees with wrong labels more "
            "than it should. "
            if learned
            else ""
        )
        + "A contradiction may also be the network's mistake: look, then decide."
    )
    return Section("Suspicious labels", text, tuple(figures))


def _outlined(picture: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture with a line around a region, which stays visible when the picture is made smaller."""
    drawn = picture.copy()
    step = max(1, round(max(inside.shape) / LINES))
    around = np.pad(inside, step)
    height, width = inside.shape
    places = [(a, b) for a in (0, step, 2 * step) for b in (0, step, 2 * step)]
    beside = np.any([around[a : a + height, b : b + width] for a, b in places], axis=0)
    drawn[beside & ~inside] = LINE
    return drawn
