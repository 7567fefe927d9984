"""Files of polygons: which belong to scenes, and which column is the class."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.data.footprints import pixel_metres
from pixelwise.data.survey.classes import Ask, ClassTable
from pixelwise.data.survey.names import VOID
from pixelwise.errors import MissingExtraError, PixelwiseError
from pixelwise.geo.polygon_labels import count_touching
from pixelwise.geo.raster import RasterInfo
from pixelwise.geo.vector import read_polygons
from pixelwise.optional import optional_module

SUFFIXES = (".gpkg", ".geojson", ".shp", ".fgb", ".parquet", ".gml", ".kml", ".kmz")
JSON = ".json"
"""May be GeoJSON."""
MOST_CLASSES, LEAST_OF_EACH = 20, 2
"""A column with more distinct values, or with fewer polygons of each, does not tell classes apart."""
CLASS_WORDS = re.compile(r"class|type|categ|label|kind|cover|land_?use|lulc|crop|species|afgroede|usage|name", re.I)
ID_WORDS = re.compile(
    r"(^|[_\W])(id|fid|gid|uid|uuid|oid|objectid|num|nummer|number|nr|no|index)$|num(mer)?$|area|length|perim|^shape_",
    re.I,
)
SINGULAR: dict[str, str] = {
    **{
        f"{word}s": word
        for word in [
            "field",
            "parcel",
            "building",
            "road",
            "tree",
            "crop",
            "house",
            "lake",
            "roof",
            "pond",
            "plot",
            "pool",
            "farm",
        ]
    },
    "footprints": "building",
    "solar": "solar panel",
}
"""Words in the names of files -> the class of their polygons."""

NEIGHBOURS = 0.2
"""From this share of polygons on that lie side by side with another, outlines matter: parcels, not single houses."""


@dataclass(frozen=True)
class Column:
    """A column of a file of polygons."""

    name: str
    counts: dict[Any, int]
    """Value -> polygons; the empty value is None."""

    @property
    def text(self) -> bool:
        """Its values are words."""
        return all(isinstance(value, str) for value in self.counts if value is not None)


@dataclass
class Drawing:
    """A file of polygons that lie on scenes."""

    path: Path
    polygons: int
    columns: list[Column]
    touching: int
    """How many of the scenes have a polygon."""
    beside: float
    """Share of polygons with a neighbour closer than two pixels."""
    pixel: float | None
    """Side of a pixel in metres."""
    scene_column: str | None = None
    """The column that names scenes."""
    saw: list[str] = field(default_factory=list)


def look_at_polygons(path: Path, infos: Sequence[RasterInfo], images: Sequence[Path]) -> Drawing | str | None:
    """Look at a file of polygons.

    Args:
        infos: headers of some scenes.
        images: all of them.

    Returns:
        what it holds; a sentence that says why it is of no use for the scenes; None if it is no file of polygons.

    Raises:
        MissingExtraError: the extra `geo` is not installed.
    """
    pyogrio = optional_module("pyogrio")
    try:
        found = read_polygons(path)
        about = pyogrio.raw.read(path, read_geometry=False)
    except MissingExtraError:
        raise
    except PixelwiseError as problem:
        return None if path.suffix.lower() == JSON else str(problem)
    except Exception as error:  # pyogrio raises mistakes of its own on damaged files
        return f"{path} cannot be read: {error}."
    touched = sum(count_touching(found, info) > 0 for info in infos if info.crs is not None)
    if not touched:
        return f"None of the polygons of {path.name} lies on a scene" + (
            ", since the images have no coordinate system." if infos and infos[0].crs is None else "."
        )
    columns = [Column(str(n), _counts(v)) for n, v in zip(about[0]["fields"], about[3], strict=True)]
    metres = [size for info in infos if (size := pixel_metres(info)) is not None]
    pixel = float(np.median(metres)) if metres else None
    beside = _beside(found.geometries, found.crs.is_geographic, pixel)
    stems = {image.stem for image in images} | {image.name for image in images}
    drawing = Drawing(path, len(found.geometries), columns, touched, beside, pixel)
    for column in columns:
        hits = sum(value in stems for value in column.counts)
        if hits and hits >= 0.5 * len(column.counts):
            drawing.scene_column = column.name
    drawing.saw.append(
        f"{path.name}: {len(found.geometries)} polygons on {touched} of the {len(infos)} scenes looked at."
    )
    if found.fixed:
        drawing.saw.append(f"{found.fixed} of the polygons are invalid as drawn; they are fixed when they are read.")
    return drawing


def _counts(values: np.ndarray) -> dict[Any, int]:
    plain = [
        None if value is None or (isinstance(value, float) and np.isnan(value)) else value for value in values.tolist()
    ]
    plain = [int(v) if isinstance(v, float) and v.is_integer() else v for v in plain]
    return dict(Counter(plain).most_common())


def _beside(geometries: np.ndarray, geographic: bool, pixel: float | None) -> float:
    """Return the share of polygons that have a neighbour closer than two pixels."""
    shapely = optional_module("shapely")
    some = geometries[:3000]
    reach = 2 * (pixel or 1.0) / (111_320 if geographic else 1)
    tree = shapely.STRtree(some)
    left, right = tree.query(some, predicate="dwithin", distance=reach)
    return len(set(left[left != right].tolist())) / max(1, len(some))


def classes_of_polygons(drawing: Drawing, ask: Ask) -> tuple[ClassTable, dict[str, object]]:
    """Return the classes, and other keys of ``[data]``."""
    table, keys = ClassTable([], saw=list(drawing.saw)), dict[str, object]()
    if drawing.scene_column:
        table.saw.append(f"The column {drawing.scene_column!r} names the scenes.")
    likely = [c for c in drawing.columns if c.name != drawing.scene_column and _tells_classes(c, drawing.polygons)]
    likely.sort(key=lambda c: (not CLASS_WORDS.search(c.name), not c.text, len(c.counts)))
    single = next(
        (
            c
            for c in drawing.columns
            if len(c.counts) == 1 and c.text and None not in c.counts and CLASS_WORDS.search(c.name)
        ),
        None,
    )
    many = [c for c in drawing.columns if c.text and _many_classes(c, drawing)]
    many = min(many, key=lambda c: not CLASS_WORDS.search(c.name), default=None)
    parcels = drawing.beside >= NEIGHBOURS
    if likely and parcels and not CLASS_WORDS.search(likely[0].name):
        name = likely[0].name
        question = f"The polygons lie side by side. Are all of one class, or does {name!r} tell classes apart?"
        likely = likely if ask(question, ["one class, with its boundary", f"classes by {name!r}"]) else []
    if likely:
        _by_column(likely[0], table, keys)
    else:
        name = next(iter(single.counts)) if single else _name_of(drawing, parcels=parcels)
        table.names = ["background", str(name).strip().lower()]
        if not single:
            table.guessed.append(f"No column tells classes apart, so all polygons are one class, {table.names[1]!r}.")
        if many is not None:
            table.guessed.append(
                f"The column {many.name!r} has {len(many.counts)} values, too many to learn from {drawing.polygons} "
                f"polygons. To map them, group them below [data] (attribute = {many.name!r}, values = ...)."
            )
    if parcels:
        table.names.append("boundary")
        table.guessed.append(
            f"{drawing.beside:.0%} of the polygons lie side by side with others, so a class 'boundary' is learned "
            "along their outlines; it keeps neighbours apart."
        )
        width = max(5.0, round(2 * (drawing.pixel or 0.0), 1))
        if width > 5.0:
            keys["boundary_width"] = width
            table.guessed.append(f"Boundaries are {width:g} m wide, two pixels.")
    table.guessed.append("Ground outside of all polygons is 'background'. Is it unlabelled? Then drop that class.")
    return table, keys


def _tells_classes(column: Column, polygons: int) -> bool:
    counts = {value: count for value, count in column.counts.items() if value is not None}
    if not 2 <= len(counts) <= MOST_CLASSES or sum(counts.values()) < 0.5 * polygons:
        return False
    if any(isinstance(value, float) for value in counts) or (ID_WORDS.search(column.name) and not column.text):
        return False
    few = sum(count < LEAST_OF_EACH for count in counts.values())
    return few <= 0.25 * len(counts) and len(counts) <= max(2, polygons / 4)


def _many_classes(column: Column, drawing: Drawing) -> bool:
    known = not ID_WORDS.search(column.name) and column.name != drawing.scene_column
    return known and MOST_CLASSES < len(column.counts) <= drawing.polygons / 4


def _by_column(column: Column, table: ClassTable, keys: dict[str, object]) -> None:
    """Take the classes from a column."""
    keys["attribute"] = column.name
    listed = [value for value in column.counts if value is not None]
    listed.sort(key=lambda value: value if isinstance(value, int | float) else str(value).lower())
    void = [value for value in listed if VOID.search(str(value))]
    kept = [value for value in listed if value not in void]
    table.saw.append(f"The column {column.name!r} has {len(listed)} values: {', '.join(map(str, listed[:10]))}.")
    table.guessed.append(f"The column {column.name!r} is the class.")
    names = [str(v) if isinstance(v, str) else f"{column.name}_{v}" for v in kept]
    if not any(name.lower() == "background" for name in names):
        table.names = ["background", *names]
    else:
        table.names = names
    if names != [str(v) for v in kept]:
        table.values = {name: [value] for name, value in zip(names, kept, strict=True)}
    if void or None in column.counts:
        table.ignore = [*void, *(["None"] if None in column.counts else [])]
        if None in column.counts:
            table.guessed.append(f"{column.counts[None]} polygons have no value there: they are ignored.")


def _name_of(drawing: Drawing, *, parcels: bool) -> str:
    words: list[str] = re.findall(r"[a-z]+", drawing.path.stem.lower())
    for word in words:
        singular = SINGULAR.get(word, word)
        if singular in SINGULAR.values():
            return singular
    return "parcel" if parcels else "object"
