"""One self-contained HTML page for a run."""

from pathlib import Path

import numpy as np

from pixelwise.evaluation.pictures import Picture
from pixelwise.files import replacing
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.hub.licences import needs_consent
from pixelwise.labels import IGNORE, Classes
from pixelwise.report.charts import (
    CURVES,
    curves_chart,
    data_uri,
    loss_chart,
    mistakes,
    path_of,
    rate_chart,
    reliability_chart,
    score_chart,
)
from pixelwise.report.content import Content, config_text, gather, load_log_rows, summary
from pixelwise.report.parcel_map import ParcelFiles, ParcelMap
from pixelwise.report.template import page_from

SCENES_SHOWN = 12
WIDEST_MATRIX = 40
"""With more classes than these the confusion matrix becomes a list of the most frequent mistakes."""
WIDEST_COUNTS = 8
"""With more classes than these the matrix shows shares alone, and the mistakes are listed too."""
MISTAKES_SHOWN = 15
NEIGHBOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Colours that the colour-blind tell apart too (Okabe and Ito, 2008)."""


def write_report(folder: str | Path, files: ParcelFiles | None = None) -> Path:
    """Write ``report.html`` into a run's folder, from what the run has kept there.

    Args:
        files: the map and the parcels to draw, if other ones than ``map.tif`` and ``parcels.gpkg`` in the folder.

    Returns:
        the page's path.

    Raises:
        ConfigError: no run there, or one that was never evaluated; or only one of map and parcels.
        DataError: a map or parcels that were named and do not work.
        MissingExtraError: the extra ``report`` is not installed.
    """
    content = gather(folder, files)
    path = Path(folder) / "report.html"
    text = render(content)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(content: Content) -> str:
    """Return the page as HTML that needs nothing from outside.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    classes, count = content.classes, len(content.classes)
    colours = {
        name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in zip(classes.names, classes.palette, strict=True)
    }
    values = dict(
        title=content.folder.resolve().name,
        content=content,
        names=classes.names,
        scenes_scored=len(content.scores.get("scenes", {})) or len(content.scenes),
        summary=summary(content),
        bound=[origin for origin in content.card.origins or () if needs_consent(origin)],
        colours=colours,
        charts=_charts(content),
        confidence=_confidence_charts(content),
        curve_colours=[colour for colour, _ in CURVES],
        strange_losses=len(content.log) - len(load_log_rows(content, "loss")),
        matrix=_matrix(content) if count <= WIDEST_MATRIX else None,
        with_counts=count <= WIDEST_COUNTS,
        confusions=_confusions(content) if count > WIDEST_COUNTS else None,
        scenes=[shown_picture(picture, classes) for picture in content.scenes[:SCENES_SHOWN]],
        worst=[shown_picture(picture, classes) for picture in content.worst],
        parcels=None if content.parcels is None else _parcels(content.parcels, colours),
        config=config_text(content),
    )
    return page_from("template.html.j2", values)


def _charts(content: Content) -> list[tuple[str, str]]:
    """Return the titles and drawings of the curves that the log has values for."""
    loss, score, rate = (load_log_rows(content, key) for key in ("loss", "mIoU", "learning_rate"))
    last_step = max((step for step, _ in load_log_rows(content, "step")), default=0)
    charts = []
    if loss:
        charts.append(("Loss", loss_chart(loss)))
    if score:
        charts.append(("mIoU on the validation part", score_chart(score, last_step)))
    if rate:
        charts.append(("Learning rate", rate_chart(rate)))
    return charts


def _confidence_charts(content: Content) -> list[tuple[str, str]]:
    """Return titles and drawings of how far the confidence can be trusted, in the evaluation that is shown."""
    found = content.calibrations.get(content.evaluation)
    if found is None:
        return []
    stages = {"before": found["before"], **({"after": found["after"]} if found["fitted_on"] else {})}
    charts = []
    for stage, each in stages.items():
        title = f"Accuracy against confidence, {stage}" if len(stages) > 1 else "Accuracy against confidence"
        bins = each["bins"]
        label = f"{title}: expected calibration error {each['ece']:.3f}"
        charts.append((title, reliability_chart(bins["confidence"], bins["accuracy"], bins["pixels"], label)))
    curves = [[(percent, risk) for percent, risk in enumerate(each["risk"], start=1)] for each in stages.values()]
    title = "Share of wrong pixels against % of pixels kept"
    charts.append((title, curves_chart(curves, "Risk against coverage", low=0.0, width=400)))
    return charts


def _matrix(content: Content) -> list[list[tuple[int, float | None]]]:
    """Return rows of (pixels, share of the true class); None where the truth has no such class."""
    rows = [(row, sum(row)) for row in content.matrix.tolist()]
    return [[(count, count / total if total else None) for count in row] for row, total in rows]


def _confusions(content: Content) -> list[tuple[str, str, int, float]]:
    """Return the most frequent mistakes: truth, prediction, pixels, share of the true class."""
    wrong = content.matrix - np.diag(np.diagonal(content.matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MISTAKES_SHOWN]
    found = [np.unravel_index(i, wrong.shape) for i in order]
    names = content.classes.names
    totals = content.matrix.sum(axis=1)
    return [(names[t], names[p], int(wrong[t, p]), float(wrong[t, p] / totals[t])) for t, p in found if wrong[t, p] > 0]


def shown_picture(picture: Picture, classes: Classes) -> dict:
    """Return what a template shows of a picture: image, truth, prediction and mistakes as data URIs, and numbers."""
    image = to_picture(picture.image)
    counted = picture.truth != IGNORE
    shown = np.where(counted, picture.prediction.astype(np.int32), IGNORE)
    wrong = int(((picture.truth != picture.prediction) & counted).sum())
    return {
        "name": picture.name,
        "miou": picture.miou,
        "wrong": wrong / max(1, int(counted.sum())),
        "image": data_uri(image),
        "truth": data_uri(colourise(picture.truth, classes), lossless=True),
        "prediction": data_uri(colourise(shown, classes), lossless=True),
        "mistakes": data_uri(mistakes(image, picture.truth, picture.prediction)),
        "width": image.shape[1],
        "height": image.shape[0],
        "unlabelled": not counted.all(),
    }


def _parcels(content: ParcelMap, colours: dict[str, str]) -> dict:
    height, width = content.picture.shape[:2]
    names = [name for name in colours if any(parcel.class_name == name for parcel in content.parcels)]
    names += sorted({parcel.class_name for parcel in content.parcels} - set(names))
    # With a single class, colours can tell neighbours apart.
    one_class = len(names) == 1
    paths = []
    for i, parcel in enumerate(content.parcels):
        colour = NEIGHBOURS[i % len(NEIGHBOURS)] if one_class else colours.get(parcel.class_name, "#888888")
        paths.append((parcel, path_of(parcel.rings), colour))
    return {
        "name": content.name,
        "width": width,
        "height": height,
        "image": data_uri(content.picture),
        "paths": paths,
        "one_class": one_class,
        "truth": [path_of(rings) for rings in content.truth],
        "scores": content.scores,
        "rows": [_parcel_row(name, content) for name in names],
    }


def _parcel_row(name: str, content: ParcelMap) -> tuple[str, int, float, float, float | None]:
    """Return class, number, hectares, median hectares, and the mean confidence over the area."""
    parcels = [parcel for parcel in content.parcels if parcel.class_name == name]
    areas = [parcel.area for parcel in parcels]
    known = [(each.confidence, each.area) for each in parcels if each.confidence is not None and each.area > 0]
    weight = sum(area for _, area in known)
    confidence = sum(value * area for value, area in known) / weight if weight else None
    return name, len(parcels), sum(areas) / 1e4, float(np.median(areas)) / 1e4, confidence
