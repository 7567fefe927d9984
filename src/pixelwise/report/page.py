"""One self-contained HTML page for a run."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from pixelwise.errors import MissingExtraError
from pixelwise.files import replacing
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.jobs.evaluate import Picture
from pixelwise.labels import IGNORE, Classes
from pixelwise.report.charts import curves, data_uri, mistakes, path_of
from pixelwise.report.content import Content, config_text, gather, load_log_rows, summary

SCENES_SHOWN = 12
WIDEST_MATRIX = 30
"""With more classes than these the confusion matrix becomes a list of the most frequent mistakes."""


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run's folder, from what the run has kept there.

    Returns:
        the page's path.

    Raises:
        ConfigError: no run there, or one that was never evaluated.
        MissingExtraError: the extra ``report`` is not installed.
    """
    content = gather(folder)
    path = Path(folder) / "report.html"
    text = render(content)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(content: Content) -> str:
    """Return the page as HTML that needs nothing from outside."""
    try:
        from jinja2 import Environment
    except ModuleNotFoundError:
        raise MissingExtraError("The report needs jinja2. Install it with: pip install 'pixelwise[report]'") from None
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("pixelwise.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    )
    classes = content.classes
    colours = {
        name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in zip(classes.names, classes.palette, strict=True)
    }
    return template.render(
        title=content.folder.name,
        content=content,
        summary=summary(content),
        colours=colours,
        curves=curves(*(load_log_rows(content, key) for key in ("loss", "mIoU", "learning_rate")))
        if content.log
        else "",
        matrix=_matrix(content) if len(classes) <= WIDEST_MATRIX else None,
        confusions=_confusions(content),
        scenes=[_pictures(picture, classes) for picture in content.scenes[:SCENES_SHOWN]],
        worst=[_pictures(picture, classes) for picture in content.worst],
        parcels=_parcels(content),
        config=config_text(content),
    )


def _matrix(content: Content) -> list[list[tuple[int, float]]]:
    """Return rows of (pixels, share of the true class)."""
    totals = np.maximum(1, content.matrix.sum(axis=1, keepdims=True))
    shares = content.matrix / totals
    return [list(zip(r.tolist(), s.tolist(), strict=True)) for r, s in zip(content.matrix, shares, strict=True)]


def _confusions(content: Content, most: int = 8) -> list[tuple[str, str, int, float]]:
    """Return the most frequent mistakes: truth, prediction, pixels, share of the true class."""
    wrong = content.matrix - np.diag(np.diagonal(content.matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    found = [np.unravel_index(i, wrong.shape) for i in order]
    names = content.classes.names
    totals = content.matrix.sum(axis=1)
    return [(names[t], names[p], int(wrong[t, p]), float(wrong[t, p] / totals[t])) for t, p in found if wrong[t, p] > 0]


def _pictures(picture: Picture, classes: Classes) -> dict:
    image = to_picture(picture.image)
    shown = np.where(picture.truth == IGNORE, IGNORE, picture.prediction.astype(np.int32))
    return {
        "name": picture.name,
        "miou": picture.miou,
        "image": data_uri(image),
        "truth": data_uri(colourise(picture.truth, classes), lossless=True),
        "prediction": data_uri(colourise(shown, classes), lossless=True),
        "mistakes": data_uri(mistakes(image, picture.truth, picture.prediction)),
    }


def _parcels(content: Content) -> dict | None:
    parcels = content.parcels
    if parcels is None:
        return None
    height, width = parcels.picture.shape[:2]
    return {
        "name": parcels.name,
        "width": width,
        "height": height,
        "image": data_uri(parcels.picture),
        "paths": [(name, path_of(rings)) for name, rings in parcels.outlines],
        "rows": [
            (name, len(areas), sum(areas) / 1e4, float(np.median(areas)) / 1e4) for name, areas in parcels.areas.items()
        ],
    }
