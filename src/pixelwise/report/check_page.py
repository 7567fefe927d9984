"""The page of an examination: what was found, with pictures, and what the data holds."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelwise import __version__ as version
from pixelwise.config import Config
from pixelwise.data.doctor import CODES, Examination, Finding
from pixelwise.data.doctor.leaks import footprints
from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.labels import Classes, make_mask_table
from pixelwise.report.charts import data_uri
from pixelwise.report.check_pictures import pictures_of
from pixelwise.report.template import page_from

PICTURES = 6
"""Of each code so many findings are shown with pictures."""
LISTED = 200
"""Of each code so many are listed."""
ON_MAP = 3000
"""Footprints that are drawn at most."""
MAP_WIDTH, MAP_HEIGHT = 720, 440
SMALLEST = 5.0
"""Footprints smaller than this on the map are drawn as dots."""
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Figure:
    """Pictures in a row."""

    caption: str
    pictures: tuple[tuple[str, np.ndarray], ...]
    """Title and picture [H,W,3], uint8."""


@dataclass(frozen=True)
class Section:
    """A part of the page that others add, such as a gallery of suspicious labels."""

    title: str
    text: str
    figures: tuple[Figure, ...] = ()


def write_check_page(
    path: Path, title: str, found: Examination, config: Config, sections: Sequence[Section] = ()
) -> None:
    """Write the page of an examination: one file that needs nothing from outside.

    Args:
        sections: further parts, after the findings.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    text = render_check(title, found, config, sections)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_check_json(path: Path, title: str, found: Examination) -> None:
    """Write an examination for scripts; codes and keys are stable."""
    names = found.classes.names if found.classes is not None else ()
    about = {
        "format": 1,
        "pixelwise": version,
        "configuration": title,
        "errors": len(found.errors),
        "warnings": len(found.warnings),
        "images": len(found.samples),
        "findings": [finding.to_dict() for finding in found.findings],
        "parts": {
            name: {
                "images": part.scenes,
                "pixels": dict(zip(names, part.class_pixels, strict=True)),
                "ignored": part.ignored,
                "mean": part.statistics.mean.tolist(),
                "std": part.statistics.std.tolist(),
            }
            for name, part in found.parts.items()
        },
        "objects": found.objects,
        "notes": list(found.notes),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def render_check(title: str, found: Examination, config: Config, sections: Sequence[Section] = ()) -> str:
    """Return the page as HTML.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    classes = found.classes
    values = dict(
        title=title,
        found=found,
        groups=_groups(found, config),
        colours=_colours(classes),
        classes=_class_rows(found),
        part_names=list(found.parts),
        objects=_object_rows(found),
        sizes=_sizes(found),
        ground=_ground(found),
        sections=[(section, [_drawn(figure) for figure in section.figures]) for section in sections],
        version=version,
    )
    return page_from("check.html.j2", values)


def _colours(classes: Classes | None) -> dict[str, str]:
    if classes is None:
        return {}
    return {
        name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in zip(classes.names, classes.palette, strict=True)
    }


def _groups(found: Examination, config: Config) -> list[dict]:
    """Return the findings of each code, errors first, with the pictures of the first ones."""
    data, table = config.data, None
    if found.classes is not None:
        try:
            table = make_mask_table(found.classes, data.values, data.ignore)
        except ConfigError:
            # Values of a column of polygons are no mask values.
            table = None
    by_code: dict[str, list[Finding]] = {}
    for finding in found.findings:
        by_code.setdefault(finding.code, []).append(finding)
    groups = []
    for code, those in by_code.items():
        figures = []
        for finding in those[:PICTURES]:
            pictures = tuple(pictures_of(finding, found.classes, table))
            if pictures:
                figures.append(_drawn(Figure(f"{Path(finding.file).name}", pictures)))
        groups.append({"code": code, "about": CODES[code], "findings": those, "figures": figures})
    return groups


def _drawn(figure: Figure) -> dict:
    exact = ("mask", "labels", "prediction")
    pictures = [
        {"title": title, "uri": data_uri(picture, lossless=title in exact), "shape": picture.shape}
        for title, picture in figure.pictures
    ]
    return {"caption": figure.caption, "pictures": pictures}


def _class_rows(found: Examination) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return class -> (pixels, share of the labelled ones) of each part."""
    if found.classes is None or not found.parts:
        return []
    totals = [max(1, sum(part.class_pixels)) for part in found.parts.values()]
    return [
        (
            name,
            [
                (part.class_pixels[i], part.class_pixels[i] / total)
                for part, total in zip(found.parts.values(), totals, strict=True)
            ],
        )
        for i, name in enumerate(found.classes.names)
    ]


def _object_rows(found: Examination) -> tuple[list[str], list[tuple[str, list[float]]]]:
    """Return the bins of object sizes, and class -> share of its pixels in objects of each."""
    used = [i for sizes in found.objects.values() for i, size in enumerate(sizes) if size]
    if not used:
        return [], []
    last = max(used) // 2 + 1
    heads = [f"{_short(4**i)}" for i in range(last)]
    rows = []
    for name, sizes in found.objects.items():
        total = max(1, sum(sizes))
        rows.append((name, [sum(sizes[2 * i : 2 * i + 2]) / total for i in range(last)]))
    return heads, rows


def _short(value: int) -> str:
    for size, name in ((1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{value / size:.0f}{name}"
    return str(value)


def _sizes(found: Examination) -> list[tuple[str, int, float]]:
    """Return the commonest sizes of images, how many have it, and their share."""
    counts = Counter(f"{s.info.width} × {s.info.height}" for s in found.samples if s.info is not None)
    total = max(1, sum(counts.values()))
    rows = [(size, count, count / total) for size, count in counts.most_common(8)]
    rest = total - sum(count for _, count, _ in rows)
    return rows + ([(f"{len(counts) - 8} other sizes", rest, rest / total)] if len(counts) > 8 else [])


def _ground(found: Examination) -> dict | None:
    """Return the footprints of the scenes on a map of longitude and latitude."""
    outlines = footprints(found.samples)[:ON_MAP]
    if not outlines:
        return None
    points = np.concatenate([each.ring for each in outlines])
    low, high = points.min(axis=0), points.max(axis=0)
    stretch = np.array([np.cos(np.radians((low[1] + high[1]) / 2)), 1.0])
    span = np.maximum((high - low) * stretch, 1e-9)
    scale = min((MAP_WIDTH - 40) / span[0], (MAP_HEIGHT - 40) / span[1])
    width, height = span * scale + 40
    shapes = []
    for each in outlines:
        places = (each.ring - [low[0], high[1]]) * stretch * [scale, -scale] + 20
        part = "shared" if len(each.sample.parts) > 1 else (each.sample.parts or ["none"])[0]
        about = f"{each.sample.name}: {' and '.join(each.sample.parts) or 'in no part'}"
        if np.ptp(places, axis=0).max() < SMALLEST:
            x, y = places.mean(axis=0)
            shapes.append((part, None, (f"{x:.1f}", f"{y:.1f}"), about))
        else:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) + "Z"
            shapes.append((part, path, None, about))
    extent = f"{low[1]:.4f} to {high[1]:.4f} latitude, {low[0]:.4f} to {high[0]:.4f} longitude"
    parts = [name for name in (*PARTS, "shared", "none") if any(part == name for part, *_ in shapes)]
    return {"width": round(width), "height": round(height), "shapes": shapes, "extent": extent, "parts": parts}
