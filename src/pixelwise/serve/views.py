"""Windows of a job's files, as the page shows them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.geo.coordinates import placement
from pixelwise.geo.label_map import SHARE_NODATA, label_nodata
from pixelwise.labels import Classes
from pixelwise.optional import optional_module
from pixelwise.serve.answer import labels_png, png
from pixelwise.serve.job import listed_classes
from pixelwise.serve.preview import header, levels, read_picture, read_window, scene_tile
from pixelwise.serve.refusals import Refusal


def scene_tile_png(
    scene: Path, folder: Path, bands: Sequence[int], stretch: list[list[float]] | None, z: int, x: int, y: int
) -> bytes | None:
    """Return a tile of a scene; None where it lies beyond."""
    tile = scene_tile(scene, folder, bands, stretch, z, x, y)
    return None if tile is None else png(Image.fromarray(tile))


def map_tile_png(path: Path, classes: Classes, z: int, x: int, y: int) -> bytes | None:
    """Return a tile of a map: its values are the numbers of classes, its colours theirs, and no data is transparent."""
    found = read_picture(path, (1,), z, x, y, average=False)
    if found is None:
        return None
    labels, seen = found[0], _within(path, z, x, y)
    nodata = label_nodata(len(classes))
    labels = np.where(seen, labels, labels.dtype.type(nodata))
    if labels.dtype == np.uint8:
        return labels_png(labels, classes)
    # A palette has 256 colours.
    table = np.zeros((65536, 4), np.uint8)
    table[: len(classes), :3], table[: len(classes), 3] = classes.palette, 255
    return png(Image.fromarray(table[labels]))


def confidence_tile_png(path: Path, z: int, x: int, y: int) -> bytes | None:
    """Return a tile of a map's confidence: 0 to 254 for 0 to 1, and no data is transparent."""
    if not path.is_file():
        raise Refusal(404, "no_file", "This job has no confidence.", "Start one with confidence = true.")
    found = read_picture(path, (1,), z, x, y, average=False)
    if found is None:
        return None
    shares = np.where(_within(path, z, x, y), found[0], np.uint8(SHARE_NODATA))
    return png(Image.fromarray(shares), transparency=SHARE_NODATA)


def _within(path: Path, z: int, x: int, y: int) -> np.ndarray:
    """Return which pixels of a tile lie within the raster."""
    info = header(path)
    step = 2 ** (levels(info.width, info.height) - z)
    rows, columns = (np.arange(256) + 256 * y) * step < info.height, (np.arange(256) + 256 * x) * step < info.width
    return rows[:, None] & columns[None]


def pixel_at(files: Mapping[str, Path], classes: Classes, x: int, y: int) -> dict[str, Any]:
    """Return class and confidence of a pixel; both None where there is no data.

    Raises:
        Refusal: 422 for one beyond the scene.
    """
    info = header(files["map"])
    if not (0 <= x < info.width and 0 <= y < info.height):
        size = f"{info.width}x{info.height}"
        raise Refusal(422, "wrong_value", f"The pixel {x}, {y} is beyond the scene.", f"It has {size} pixels.")
    label = int(read_window(files["map"], (1,), (y, x, 1, 1), (1, 1))[0, 0, 0])
    known = label < len(classes)
    share = None
    if known and files["confidence"].is_file():
        share = int(read_window(files["confidence"], (1,), (y, x, 1, 1), (1, 1))[0, 0, 0]) / 254
    return {
        "x": x,
        "y": y,
        "class": classes.names[label] if known else None,
        "class_id": label if known else None,
        "color": listed_classes(classes)[label]["color"] if known else None,
        "confidence": share,
    }


def parcels_in(path: Path, map_path: Path, box: tuple[float, float, float, float], limit: int) -> dict[str, Any]:
    """Return parcels that touch a rectangle (x0, y0, x1, y1), in pixels of the map.

    Args:
        limit: most that are returned.
    """
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    _, transform = placement(header(map_path), "its parcels have no place")
    corners = [transform @ (x, y) for x in (box[0], box[2]) for y in (box[1], box[3])]
    across, down = zip(*corners, strict=True)
    bounds = (min(across), min(down), max(across), max(down))
    meta, _, shapes, columns = pyogrio.raw.read(path, bbox=bounds, max_features=limit + 1)
    a, b, c, d, e, f = (~transform)[:6]

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        return np.round(np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f]), 3)

    placed = shapely.transform(shapely.from_wkb(shapes[:limit]), to_pixels)
    names = meta["fields"]
    features = [
        {
            "type": "Feature",
            "properties": {name: _plain(column[i]) for name, column in zip(names, columns, strict=True)},
            "geometry": shapely.geometry.mapping(shape),
        }
        for i, shape in enumerate(placed)
    ]
    return {"type": "FeatureCollection", "truncated": len(shapes) > limit, "features": features}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
