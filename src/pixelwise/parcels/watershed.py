"""Fields apart from their neighbours: a watershed on the confidences of interiors and boundaries.

Fields are told apart by their cores: the parts of an interior that are further than a radius from anything else, and
larger than a disc of that radius. So two interiors that leak into each other through a gap in their boundary, narrower
than twice the radius, are two. Interiors are flooded from their cores, the most confident pixels first. Boundaries are
flooded from both sides, the most confident pixels last, so that the outline runs along the crest of the boundary's
confidence (Meyer, Topographic distance and watershed lines, 1994; markers from erosions: Soille, Morphological Image
Analysis, 2003).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Int64, Integer, Shaped

from pixelwise.geo.raster import Window, clip_window
from pixelwise.optional import optional_module
from pixelwise.parcels.disk_array import RowFile
from pixelwise.parcels.label_source import NUMBERS, LabelSource
from pixelwise.parcels.regions import Reader, keep_silent, label_regions, strips

TILE = 1024
"""Side in pixels of what is flooded at once. The tiles lie on a fixed grid, so the result is one."""
SHARE = 0.2
"""Of a field's radius: what leaks through a gap twice as wide is taken for two fields (`docs/parcels.md`)."""
SPECK = 64
"""Interiors of fewer pixels are no fields."""
REACH = 256
"""How far in pixels a flood may come from beyond a tile."""


def watershed(
    source: LabelSource,
    interior: int,
    boundary: int,
    radius: float | None,
    folder: Path,
    *,
    advance: Callable[[str, float], None] = keep_silent,
) -> RowFile:
    """Return a number for each pixel of a map: its label, or `NUMBERS` and more for fields, one number for each field.

    Boundary pixels become part of the fields and of other classes on either side; only those that touch neither keep
    their label. -1 is nowhere.

    Args:
        interior: the label inside of fields.
        boundary: the label of the zones around them.
        radius: of a core, in pixels; 0: each connected interior is a field; None: `fitting_radius`.
        folder: for files of 16 bytes per pixel.
        advance: called with what is being done, and the share of it.
    """
    info = source.info
    interiors = label_regions(
        lambda window: np.where(source.labels(window) == interior, 0, -1),
        info.height,
        info.width,
        folder / "interiors",
        advance=partial(advance, "Finding interiors of fields"),
    )
    radius = fitting_radius(interiors.pixels) if radius is None else radius
    cores = label_regions(
        lambda window: np.where(_core(source, window, interior, radius), 0, -1),
        info.height,
        info.width,
        folder / "cores",
        advance=partial(advance, "Finding cores of fields"),
    )
    large = cores.pixels >= np.pi * radius**2
    field_of = np.append(np.where(large, np.cumsum(large) - 1, -1), -1)
    cored = np.zeros(len(interiors.keys) + 1, bool)
    for strip in strips(info.height, info.width):
        cored[interiors.read(strip)[field_of[cores.read(strip)] >= 0]] = True

    def numbers(window: Window) -> Int64[np.ndarray, "h w"]:
        # A part without a core is a field of its own, if small. Fields with cores have the lower numbers.
        whole, core = interiors.read(window), field_of[cores.read(window)]
        return np.where(core >= 0, core, np.where((whole >= 0) & ~cored[whole], len(field_of) + whole, -1))

    fields = RowFile(folder / "fields", info.height, info.width, np.int64)
    for top in range(0, info.height, TILE):
        for left in range(0, info.width, TILE):
            tile = Window(top, left, min(TILE, info.height - top), min(TILE, info.width - left))
            fields.write(tile, _flooded(source, tile, numbers, interior, boundary))
            done = top * info.width + tile.height * (left + tile.width)
            advance("Flooding fields", done / (info.height * info.width))
    return fields


def fitting_radius(pixels: Int[np.ndarray, " n"]) -> float:
    """Return the radius of cores that fits a map's fields: `SHARE` of their mean radius, each taken for a disc.

    So it follows the fields and the size of pixels. Specks are no fields, and are left out. Larger fragments, of which
    a map with low confidence has many, would pull a median down to their own size.

    Args:
        pixels: of each connected interior.
    """
    fields = pixels[pixels >= SPECK]
    return SHARE * float(np.sqrt(fields / np.pi).mean()) if len(fields) else 0.0


def _core(source: LabelSource, window: Window, interior: int, radius: float) -> Bool[np.ndarray, "h w"]:
    halo = int(np.ceil(radius)) + 1
    around = _grown(window, halo, source)
    labels = source.labels(around)
    # A field that the map's edge or nodata cuts off goes on there, as far as anyone knows.
    inside = (labels == interior) | (labels < 0)
    if inside.all():  # the distance to nothing is not defined
        return _cut(labels, around, window) == interior
    distance = optional_module("scipy.ndimage").distance_transform_edt(inside)
    return _cut((distance > radius) & (labels == interior), around, window)


def _flooded(
    source: LabelSource, tile: Window, numbers: Reader, interior: int, boundary: int
) -> Int64[np.ndarray, "h w"]:
    around = _grown(tile, REACH, source)
    labels, number = source.labels(around), numbers(around)
    confidence = source.confidence(around).clip(min=0) if source.has_confidence else np.full(labels.shape, 254)
    inside, between = labels == interior, labels == boundary
    fields = _flood(254 - confidence, number, inside & (number < 0))
    result = np.where(inside & (fields >= 0), NUMBERS + fields, labels)
    result = _flood(confidence, np.where(between, -1, result), between)
    return _cut(np.where(between & (result < 0), boundary, result), around, tile)


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
    # A rim is flooded before all else, row by row: among equals it would be the queue's state that decides, and with
    # it the tile.
    levels = height.astype(np.float64)
    levels[rim] = np.arange(len(marker)) - len(marker)
    filled = segmentation.watershed(levels, markers, mask=rim | empty)
    return np.where(empty, np.append(-1, known)[filled], number)


def _grown(window: Window, reach: int, source: LabelSource) -> Window:
    larger = Window(window.top - reach, window.left - reach, window.height + 2 * reach, window.width + 2 * reach)
    return clip_window(larger, source.info.height, source.info.width)[0]


def _cut(values: Shaped[np.ndarray, "H W"], around: Window, window: Window) -> Shaped[np.ndarray, "h w"]:
    top, left = window.top - around.top, window.left - around.left
    return values[top : top + window.height, left : left + window.width]
