"""Whether a mask fits its image: size, orientation, place and kind of values. Headers decide, but for turned photos."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Integer
from rasterio.warp import transform

from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.errors import DataError
from pixelwise.geo.opening import GDAL_ERRORS
from pixelwise.geo.orientation import UPRIGHT
from pixelwise.geo.raster import RasterInfo, RasterReader, Window
from pixelwise.labels import MaskTable

LOOKED_AT = 1024
"""Rows and columns from the corner of a photo by which its orientation is judged."""


def check_fit(sample: Sample, table: MaskTable) -> list[Finding]:
    """Compare the headers of an image and its mask; ``sample.sound`` is False afterwards if they do not fit."""
    image, mask = sample.info, sample.mask_info
    if mask is None or image is None or sample.mask is None:
        return []
    finding = _other_kind(sample.image, mask, table) or _other_size(image, mask) or _other_place(image, mask)
    if finding is None:
        finding = _turned(image, mask)
        return [finding] if finding else []
    sample.sound = False
    if finding.code in ("PW124", "PW125"):
        # Its values say nothing.
        sample.mask_info = None
    return [finding]


def _spot(image: RasterInfo, mask: RasterInfo) -> Spot:
    return Spot(image.path, mask.path)


def _other_kind(image: Path, mask: RasterInfo, table: MaskTable) -> Finding | None:
    bands = len(mask.colour_bands)
    spot = Spot(image, mask.path)
    if np.dtype(mask.dtype if "complex" not in mask.dtype else "complex64").kind not in "ui":
        said = f"{mask.path} holds {mask.dtype} values, but a mask holds whole numbers."
        return Finding("PW124", str(mask.path), said, value=mask.dtype, picture=spot, others=(str(image),))
    if bands not in (1, 3, 4):
        said = f"{mask.path} has {bands} bands besides alpha, but a mask has one with numbers, or three with colours."
        return Finding("PW125", str(mask.path), said, value=bands, picture=spot, others=(str(image),))
    if table.colours and mask.dtype != "uint8":
        said = f"{mask.path} holds {mask.dtype} values, but colours ([data].values) have 8 bits."
        return Finding("PW124", str(mask.path), said, "Save it as uint8.", mask.dtype, spot, (str(image),))
    return None


def _other_size(image: RasterInfo, mask: RasterInfo) -> Finding | None:
    if (mask.height, mask.width) == (image.height, image.width):
        return None
    sizes = (
        f"{mask.path} is {mask.width}x{mask.height} pixels, but its image {image.path} is {image.width}x{image.height}"
    )
    value = {"mask": [mask.width, mask.height], "image": [image.width, image.height]}
    if (mask.width, mask.height) == (image.height, image.width) and (image.turn != UPRIGHT or mask.turn != UPRIGHT):
        which, other = (image, mask) if image.turn != UPRIGHT else (mask, image)
        said = (
            f"{sizes} as people see it: the EXIF orientation of {which.path.name} turns it, and {other.path.name} fits "
            "the pixels before they are turned."
        )
        return Finding("PW121", str(mask.path), said, "", value, _spot(image, mask), (str(image.path),))
    across, down = mask.width / image.width, mask.height / image.height
    fix = ""
    if abs(across / down - 1) < 0.02:
        sizes += f", {across:.3g} times as wide and high"
        fix = "Export the mask again at the size of the image, by nearest neighbour; `pixelwise check --fix` does that."
    return Finding("PW120", str(mask.path), sizes + ".", fix, value, _spot(image, mask), (str(image.path),))


def _other_place(image: RasterInfo, mask: RasterInfo) -> Finding | None:
    if mask.crs is None or image.crs is None:
        return None
    corners = np.array([(0, 0), (image.width, 0), (0, image.height), (image.width, image.height)], float)
    xs, ys = zip(*(mask.transform @ tuple(corner) for corner in corners), strict=True)
    apart: float | None = None
    try:
        if mask.crs != image.crs:
            xs, ys = transform(mask.crs, image.crs, xs, ys)[:2]
        found = np.array([~image.transform @ place for place in zip(xs, ys, strict=True)])
        apart = float(np.abs(found - corners).max())
    except GDAL_ERRORS:
        # PROJ, too, where a corner has no place in the image's system.
        pass
    if apart is not None and apart <= 0.5:
        return None
    far = f"by up to {apart:,.1f} pixels" if apart is not None and np.isfinite(apart) else "beyond its map"
    spot, others = _spot(image, mask), (str(image.path),)
    if mask.crs != image.crs:
        said = (
            f"{mask.path} is in {_system(mask)} and its image {image.path} in {_system(image)}, and their corners "
            f"differ {far}."
        )
        value = {"mask": _system(mask), "image": _system(image), "pixels": apart}
        return Finding("PW122", str(mask.path), said, "", value, spot, others)
    said = f"{mask.path} is elsewhere on the ground than its image {image.path}: their corners differ {far}."
    return Finding("PW123", str(mask.path), said, "", {"pixels": apart}, spot, others)


def _system(info: RasterInfo) -> str:
    assert info.crs is not None
    return info.crs.to_string()[:60]


def _turned(image: RasterInfo, mask: RasterInfo) -> Finding | None:
    """Look whether a mask of the right size belongs to the photo before EXIF turns it."""
    if image.turn == mask.turn:
        return None
    turn = image.turn if image.turn != UPRIGHT else mask.turn
    which = image if image.turn != UPRIGHT else mask
    try:
        grey, raw = _square(image), _square(mask)
    except DataError:
        return None
    if grey is None or raw is None:
        return None
    as_read = _edge_fit(grey, raw)
    # What one of the two would be without its turn, as seen from the other: both are turned back together.
    other = turn.upright(raw) if image.turn != UPRIGHT else raw
    against = grey if image.turn != UPRIGHT else turn.upright(grey)
    if other.shape != against.shape:
        return None
    as_stored = _edge_fit(against, other)
    value = {"as people see it": round(as_read, 3), "as stored": round(as_stored, 3)}
    spot, others = _spot(image, mask), (str(image.path),)
    if as_stored > LIMITS.turned * as_read:
        said = (
            f"{which.path} is turned by its EXIF orientation, and the edges of {mask.path} fit the pixels of "
            f"{image.path} {as_stored / max(as_read, 1e-9):.1f} times better before that."
        )
        return Finding("PW121", str(mask.path), said, "", value, spot, others)
    if as_read > LIMITS.turned * as_stored:
        return None
    said = f"{which.path} is turned by its EXIF orientation, and {mask.path} fits it as well before as after that."
    return Finding("PW205", str(mask.path), said, "", value, spot, others)


def _square(info: RasterInfo) -> Float64[np.ndarray, "h w"] | None:
    if max(info.height, info.width) > 8192:
        return None
    values, _ = RasterReader(info, nodata=np.nan).read(Window(0, 0, info.height, info.width))
    return values[:3].astype(np.float64).mean(axis=0)


def _edge_fit(grey: Float64[np.ndarray, "h w"], mask: Integer[np.ndarray, "h w"] | Float64[np.ndarray, "h w"]) -> float:
    """Return how much steeper an image is along the edges of a mask than elsewhere."""
    down, across = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
    edge_down, edge_across = np.diff(mask, axis=0) != 0, np.diff(mask, axis=1) != 0
    along = np.concatenate([down[edge_down], across[edge_across]])
    everywhere = (down.mean() + across.mean()) / 2
    return float(along.mean() / max(everywhere, 1e-9)) if len(along) else 0.0
