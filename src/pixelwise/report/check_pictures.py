"""Pictures of findings: a piece of an image beside the same piece of its mask."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from pixelwise.data.doctor import Finding, Spot
from pixelwise.errors import PixelwiseError
from pixelwise.geo.label_map import to_picture
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe
from pixelwise.labels import Classes, MaskTable

SHOWN = 256
"""Longest side of a picture in pixels."""
WHOLE = 1 << 24
"""Of a larger image the middle is shown."""
UNKNOWN = (255, 0, 220)
"""The colour of mask values that no class has."""


def pictures_of(finding: Finding, classes: Classes | None, table: MaskTable | None) -> list[tuple[str, np.ndarray]]:
    """Return titles and pictures of a finding; none where nothing can be read."""
    spot = finding.picture
    if spot is None:
        return []
    found = []
    for title, path in (("image", spot.image), ("mask", spot.mask), ("the other image", spot.other)):
        if path is None:
            continue
        drawn = _drawn(path, spot, title, classes, table)
        if drawn is not None:
            found.append((title, drawn))
        elif path.exists():
            found.append((f"{title}, cannot be read", np.full((SHOWN, SHOWN, 3), 128, np.uint8)))
    return found


def _drawn(
    path: Path, spot: Spot, title: str, classes: Classes | None, table: MaskTable | None
) -> UInt8[np.ndarray, "H W 3"] | None:
    try:
        info = describe(path)
        window = _window(info, spot.window if title != "the other image" else None)
        if title == "mask":
            return shrunk(_mask_picture(info, window, classes, table), exact=True)
        values, valid = _read(info, window)
        return shrunk(to_picture(values, valid))
    except (PixelwiseError, ValueError):
        return None


def _window(info: RasterInfo, wanted: Window | None) -> Window:
    if wanted is not None and wanted.top + wanted.height <= info.height and wanted.left + wanted.width <= info.width:
        return wanted
    height, width = info.height, info.width
    if height * width > WHOLE:
        height, width = min(height, 1024), min(width, 1024)
    return Window((info.height - height) // 2, (info.width - width) // 2, height, width)


def _read(info: RasterInfo, window: Window) -> tuple[np.ndarray, np.ndarray]:
    bands = info.colour_bands[:3] if len(info.colour_bands) >= 3 else info.colour_bands[:1]
    reader = RasterReader(info, bands=bands or [1])
    values, valid = reader.read(window)
    if info.paletted:
        table = np.zeros((256, 3), np.uint8)
        for index, colour in reader.colour_table().items():
            table[index & 255] = colour[:3]
        values = np.moveaxis(table[values[0] & 255], -1, 0)
    reader.close()
    return values, valid


def _mask_picture(
    info: RasterInfo, window: Window, classes: Classes | None, table: MaskTable | None
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a mask in the colours of its classes; unknown values are magenta, ignored ones black."""
    if table is None or classes is None:
        return to_picture(*_read(info, window))
    if table.colours or info.paletted:
        values, _ = _read(info, window)
        if len(values) == 3 and (table.colours or len(info.colour_bands) == 3):
            return np.moveaxis(values.astype(np.uint8), 0, -1)
    reader = RasterReader(info, nodata=np.nan)
    values, _ = reader.read(window)
    reader.close()
    if len(values) >= 3 and (values[:3] != values[0]).any():
        return np.moveaxis(values[:3].astype(np.uint8), 0, -1)
    return _coloured(values[0], classes, table)


def _coloured(raw: Integer[np.ndarray, "H W"], classes: Classes, table: MaskTable) -> UInt8[np.ndarray, "H W 3"]:
    picture = np.empty((*raw.shape, 3), np.uint8)
    picture[:] = UNKNOWN
    for value, index in table.values:
        picture[raw == value] = classes.palette[index]
    for value in table.ignored:
        picture[raw == value] = (0, 0, 0)
    return picture


def shrunk(picture: UInt8[np.ndarray, "H W 3"], *, exact: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Return a picture whose longest side is `SHOWN`; ``exact`` keeps its very colours."""
    height, width = picture.shape[:2]
    factor = SHOWN / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    # A mask keeps its values, and small images are enlarged as they are.
    how = Image.Resampling.NEAREST if exact or factor > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, how))
