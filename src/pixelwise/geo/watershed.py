"""Fields apart from their neighbours: a watershed on the confidences of interiors and boundaries.

Fields are told apart where their cores are: the parts of an interior that are further than `CORE_RADIUS` from anything
else. So two interiors that leak into each other through a gap in their boundary, narrower than a core, are two. Then
interiors are flooded from their cores, the surest pixels first; and boundaries from both sides, the surest pixels
last, so that the outline runs along the crest of the boundary's confidence (Meyer, 1994; Soille, 2003, chapter 9).
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Integer

from pixelwise.geo.label_source import NUMBERS, LabelSource
from pixelwise.geo.raster import Window, clip_window
from pixelwise.geo.regions import Regions, label_regions, strips
from pixelwise.geo.row_file import RowFile
from pixelwise.geo.vector import optional_module

CORE_RADIUS = 4.0
"""In pixels."""
TILE = 1024
"""Side in pixels of what is flooded at once. The tiles lie on a fixed grid, so the result is one."""
REACH = 256
"""How far in pixels a flood may come from beyond a tile."""


def watershed(source: LabelSource, interior: int, boundary: int, folder: Path) -> RowFile:
    """Return a number for each pixel of a map: its label, or `NUMBERS` and more for fields, one number for each field.

    Boundary pixels become part of the fields and of other classes on either side; only those that touch neither keep
    their label. -1 is nowhere.

    Args:
        interior: the label inside of fields.
        boundary: the label of the bands around them.
        folder: for files of 16 bytes per pixel.
    """
    info = source.info
    cores = label_regions(
        lambda window: np.where(_core(source, window, interior), 0, -1), info.height, info.width, folder / "cores"
    )
    interiors = label_regions(
        lambda window: np.where(source.labels(window) == interior, 0, -1), info.height, info.width, folder / "interiors"
    )
    cored = np.zeros(len(interiors.keys) + 1, bool)
    for strip in strips(info.height, info.width):
        cored[interiors.read(strip)[cores.read(strip) >= 0]] = True
    fields = RowFile(folder / "fields", info.height, info.width, np.int64)
    for top in range(0, info.height, TILE):
        for left in range(0, info.width, TILE):
            tile = Window(top, left, min(TILE, info.height - top), min(TILE, info.width - left))
            fields.write(tile, _flooded(source, tile, cores, interiors, cored, interior, boundary))
    return fields


def _core(source: LabelSource, window: Window, interior: int) -> Bool[np.ndarray, "h w"]:
    halo = int(np.ceil(CORE_RADIUS)) + 1
    around, rows, columns = _grown(window, halo, source)
    labels = source.labels(around)
    # A field that the map's edge or nodata cuts off goes on there, as far as anyone knows.
    inside = np.pad((labels == interior) | (labels < 0), (rows, columns), constant_values=True)
    distance = optional_module("scipy.ndimage").distance_transform_edt(np.pad(inside, 1, constant_values=True))
    # Where there is nothing else at all, the distance is to nowhere.
    far = np.ones(inside.shape, bool) if inside.all() else distance[1:-1, 1:-1] > CORE_RADIUS
    own = far[halo : halo + window.height, halo : halo + window.width]
    return own & (_cut(labels, around, window) == interior)


def _flooded(
    source: LabelSource,
    tile: Window,
    cores: Regions,
    interiors: Regions,
    cored: Bool[np.ndarray, " n"],
    interior: int,
    boundary: int,
) -> Int64[np.ndarray, "h w"]:
    around, _, _ = _grown(tile, REACH, source)
    labels = source.labels(around)
    sure = source.confidence(around).clip(min=0) if source.has_confidence else np.full(labels.shape, 254)
    inside, band = labels == interior, labels == boundary
    whole = interiors.read(around)
    core = cores.read(around)
    # A part without a core is a field of its own, if small. Fields with cores have the lower numbers.
    number = np.where(core >= 0, core, np.where(inside & ~cored[whole], len(cores.keys) + whole, -1))
    fields = _flood(254 - sure, number, inside & (number < 0))
    result = np.where(inside & (fields >= 0), NUMBERS + fields, labels)
    result = _flood(sure, np.where(band, -1, result), band)
    result = np.where(band & (result < 0), boundary, result)
    return _cut(result, around, tile)


def _flood(
    height: Integer[np.ndarray, "h w"], number: Integer[np.ndarray, "h w"], empty: Bool[np.ndarray, "h w"]
) -> Int64[np.ndarray, "h w"]:
    """Return the numbers with the empty pixels filled from their neighbours, the lowest first; -1 is left unreached."""
    ndimage, segmentation = optional_module("scipy.ndimage"), optional_module("skimage.segmentation")
    # Only the rims of what has a number can flood anything; the rest would only fill the queue.
    rim = ndimage.binary_dilation(empty) & (number >= 0) & ~empty
    if not rim.any():
        return np.where(empty, -1, number)
    known, marker = np.unique(number[rim], return_inverse=True)
    markers = np.zeros(number.shape, np.int32)
    markers[rim] = marker + 1
    # A rim is flooded before all else, so that it matters not how sure its own pixels are.
    filled = segmentation.watershed(np.where(rim, -1, height).astype(np.int16), markers, mask=rim | empty)
    return np.where(empty, np.append(-1, known)[filled], number)


def _grown(window: Window, reach: int, source: LabelSource) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    larger = Window(window.top - reach, window.left - reach, window.height + 2 * reach, window.width + 2 * reach)
    return clip_window(larger, source.info.height, source.info.width)


def _cut(values: Integer[np.ndarray, "h w"], around: Window, window: Window) -> Integer[np.ndarray, "h w"]:
    top, left = window.top - around.top, window.left - around.left
    return values[top : top + window.height, left : left + window.width]
