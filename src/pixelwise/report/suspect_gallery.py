"""The gallery of suspicious labels on the page of a check."""

from collections.abc import Sequence
from pathlib import Path

from pixelwise.evaluation.suspects import EDGE, SURE, Suspect
from pixelwise.geo.label_map import overlay, to_picture
from pixelwise.labels import Classes
from pixelwise.report.check_page import Figure, Section
from pixelwise.report.check_pictures import shrunk

SHOWN = 48
"""So many of the first suspects have pictures."""


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
        figures.append(Figure(caption, (("image", shrunk(image)), *masks)))
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
