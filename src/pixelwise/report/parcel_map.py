"""The parcels that the page draws over the scene they are of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped, UInt8
from rasterio.crs import CRS

from pixelwise.config import Config, as_places
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.geo.coordinates import placed, transformed
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.geo.map_file import read_tags
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe
from pixelwise.geo.vector import read_polygons
from pixelwise.labels import Classes
from pixelwise.optional import optional_module
from pixelwise.parcels.scores import ParcelScores, score_parcels

LONGEST = 1024
"""Longest side of the picture in pixels."""
ROWS = 512
"""Rows of a scene that are read at once for its picture."""

Rings = list[Float64[np.ndarray, "_ 2"]]
"""(column, row) of the outer ring and of the holes, in pixels of the picture."""


@dataclass(frozen=True)
class DrawnParcel:
    """A parcel and its outline."""

    class_name: str
    rings: Rings
    area: float
    """In square metres."""
    confidence: float | None
    """Mean over its pixels, 0 to 1; None if the map has none."""


@dataclass(frozen=True)
class ParcelMap:
    """A map's parcels over the scene they are of."""

    name: str
    picture: UInt8[np.ndarray, "H W 3"]
    parcels: list[DrawnParcel]
    truth: list[Rings] = field(default_factory=list)
    """Of each true parcel, if a file of them was given."""
    scores: ParcelScores | None = None
    """Of the parcels against the true ones."""


@dataclass(frozen=True)
class ParcelFiles:
    """Which map and parcels the page shows; None: those in the run's folder, as the demo leaves them."""

    label_map: Path | None = None
    parcels: Path | None = None
    truth: Path | None = None
    """True parcels, to compare with."""
    tolerance: float = 3.0
    """How far apart boundaries may be, in metres."""
    scene: Path | None = None
    """The image under the parcels; None: the one that the map names, beside it or among the run's images."""


def parcel_map(run: Path, files: ParcelFiles, config: Config, classes: Classes) -> ParcelMap | None:
    """Draw parcels; None where nobody named any and the run's folder has none.

    Raises:
        ConfigError: parcels without a map, or a map without parcels.
        DataError: a map or parcels that were named and do not work.
    """
    if files.label_map is None and files.parcels is None and files.truth is None:
        label_map, parcels = run / "map.tif", run / "parcels.gpkg"
        if not label_map.exists() or not parcels.exists():
            return None
        try:
            return _draw(label_map, parcels, files, config, classes)
        except PixelwiseError:
            # Nobody asked for these files. A map may have no parcels, or the polygons may be somebody else's.
            return None
    if files.label_map is None or files.parcels is None:
        raise ConfigError("Parcels are drawn over their map. Give both, --map and --parcels.")
    return _draw(files.label_map, files.parcels, files, config, classes)


def _draw(label_map: Path, parcels: Path, files: ParcelFiles, config: Config, classes: Classes) -> ParcelMap:
    info = describe(label_map)
    step = -(-max(info.height, info.width) // LONGEST)
    named = read_tags(label_map).get("PIXELWISE_SCENE", "")
    picture = _picture_of(info, named, files, config, step)
    if picture is None:
        picture = colourise(_thinned(RasterReader(label_map), step)[0][0], classes)
    found = _drawn_parcels(parcels, info, step)
    truth, scores = [], None
    if files.truth is not None:
        crs = info.crs
        assert crs is not None, "parcels have a place, and so has their map"
        truth = _true_rings(files.truth, crs, info, step)
        names = {parcel.class_name for parcel in found}
        if len(names) == 1:
            scores = score_parcels(
                parcels, files.truth, tolerance=files.tolerance, classes=sorted(names), within=label_map
            )
    return ParcelMap(Path(named).name or label_map.name, picture, found, truth, scores)


def _drawn_parcels(path: Path, info: RasterInfo, step: int) -> list[DrawnParcel]:
    columns = [read_polygons(path, attribute=column) for column in ("class", "area_m2", "confidence")]
    values = zip(*(column.values or () for column in columns), strict=True)
    return [
        DrawnParcel(
            str(name),
            _rings(geometry, info, step),
            float(str(area)),
            None if confidence is None else float(str(confidence)),
        )
        for geometry, (name, area, confidence) in zip(columns[0].geometries, values, strict=True)
    ]


def _true_rings(path: Path, crs: CRS, info: RasterInfo, step: int) -> list[Rings]:
    true = read_polygons(path, named=("--truth", ""))
    moved = optional_module("shapely").transform(true.geometries, lambda xy: transformed(true.crs, crs, xy))
    return [_rings(geometry, info, step) for geometry in moved]


def _rings(geometry: Any, info: RasterInfo, step: int) -> Rings:
    """Return the outer rings and the holes of a polygon in pixels of the picture."""
    parts = getattr(geometry, "geoms", [geometry])
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    return [placed(~info.transform, np.asarray(ring.coords)[:, :2]) / step for ring in rings]


def _picture_of(
    info: RasterInfo, named: str, files: ParcelFiles, config: Config, step: int
) -> UInt8[np.ndarray, "H W 3"] | None:
    """Return the mapped scene; None if it is not found, or has another size than the map."""
    # A map names its scene without a folder.
    folders = [info.path.parent, *as_places(config.data.images), *as_places(config.data.validation_images or [])]
    for scene in [files.scene] if files.scene is not None else [folder / named for folder in folders if named]:
        if scene.is_file():
            try:
                reader = RasterReader(scene)
                if (reader.info.height, reader.info.width) == (info.height, info.width):
                    return to_picture(*_thinned(reader, step))
            except PixelwiseError:
                continue
    return None


def _thinned(reader: RasterReader, step: int) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
    """Return every ``step``-th pixel, read strip by strip, so that a large scene fits in memory."""
    height, width = reader.info.height, reader.info.width
    parts = []
    for top in range(0, height, ROWS):
        values, valid = reader.read(Window(top, 0, min(ROWS, height - top), width))
        first = -top % step
        parts.append((values[:, first::step, ::step].copy(), valid[first::step, ::step].copy()))
    reader.close()
    values, valid = (np.concatenate(part, axis=-2) for part in zip(*parts, strict=True))
    return values, valid
