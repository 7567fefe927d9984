"""Whether a mask fits its image: size, orientation, place and kind of values. Headers decide, but for turned photos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped
from rasterio.warp import transform

from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.errors import DataError
from pixelwise.geo.opening import GDAL_ERRORS
from pixelwise.geo.orientation import UPRIGHT
from pixelwise.geo.raster import RasterInfo, RasterReader, Window
from pixelwise.labels import MaskTable

LARGEST = 8192
"""Side in pixels of photos whose orientation is looked at."""
POOLED = 4
"""So many turned photos decide together."""
TINY = 1e-9


def check_fit(sample: Sample, table: MaskTable) -> list[Finding]:
    """Compare the headers of an image and its mask; ``sample.sound`` is False afterwards if they do not fit."""
    image, mask = sample.info, sample.mask_info
    if mask is None or image is None or sample.mask is None:
        return []
    finding = _other_kind(sample.image, mask, table) or _other_size(image, mask) or _other_place(image, mask)
    if finding is None:
        return []
    sample.sound = False
    if finding.code in ("PW124", "PW125"):
        # Its values say nothing.
        sample.mask_header = None
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


def check_orientation(samples: Sequence[Sample]) -> list[Finding]:
    """Look whether masks of the right size belong to their photos before EXIF turns these.

    What most of them say holds for all, since they were drawn with one tool.
    """
    turned = [
        (sample, _fits(sample.info, sample.mask_info))
        for sample in samples
        if sample.sound and sample.info and sample.mask_info and sample.info.turn != sample.mask_info.turn
    ]
    told = [(sample, fits) for sample, fits in turned if fits is not None]
    ratios = [float(np.log(max(stored, TINY) / max(read, TINY))) for _, (read, stored) in told]
    findings = []
    for (sample, (read, stored)), ratio in zip(told, ratios, strict=True):
        ratio = float(np.median(ratios)) if len(ratios) >= POOLED else ratio
        if ratio < -np.log(LIMITS.turned):
            continue
        assert sample.info is not None
        assert sample.mask_info is not None
        which = sample.image if sample.info.turn != UPRIGHT else sample.mask
        said = f"{which} is turned by its EXIF orientation, and {sample.mask} "
        said += (
            f"fits the pixels of {sample.image} better before that."
            if ratio > np.log(LIMITS.turned)
            else "fits it as well before as after that."
        )
        code = "PW121" if ratio > np.log(LIMITS.turned) else "PW205"
        value = {"as people see it": round(read, 4), "as stored": round(stored, 4)}
        spot = _spot(sample.info, sample.mask_info)
        findings.append(Finding(code, str(sample.mask), said, "", value, spot, (str(sample.image),)))
    return findings


def _fits(image: RasterInfo, mask: RasterInfo) -> tuple[float, float] | None:
    """Return how well a mask fits its image as people see both, and as both are stored."""
    if max(image.height, image.width) > LARGEST:
        return None
    try:
        values, raw = (
            RasterReader(info, nodata=np.nan).read(Window(0, 0, info.height, info.width))[0] for info in (image, mask)
        )
    except DataError:
        return None
    as_read = _fit(values, raw[0])
    # Turning a photo upright and its mask with it undoes the difference between the two.
    raw = image.turn.upright(raw) if image.turn != UPRIGHT else raw
    values = mask.turn.upright(values) if mask.turn != UPRIGHT else values
    if values.shape[1:] != raw.shape[1:]:
        return None
    return as_read, _fit(values, raw[0])


def _fit(values: Shaped[np.ndarray, "C h w"], mask: Integer[np.ndarray, "h w"]) -> float:
    """Return how well the classes of a mask divide an image: by its values, and by the steepness along edges."""
    grey = values[:3].astype(np.float64).mean(axis=0)
    down, across = np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))
    along = np.concatenate([down[np.diff(mask, axis=0) != 0], across[np.diff(mask, axis=1) != 0]])
    steepness = float(along.mean() / max(TINY, float(down.mean() + across.mean()) / 2)) if len(along) else 0.0
    pixels = values[:3].reshape(min(3, len(values)), -1).astype(np.float64)
    middle, labels = pixels.mean(axis=1), mask.ravel()
    between = sum(
        np.count_nonzero(labels == k) * (pixels[:, labels == k].mean(axis=1) - middle) ** 2 for k in np.unique(labels)
    )
    explained = float((between / np.maximum(TINY, ((pixels - middle[:, None]) ** 2).sum(axis=1))).mean())
    return explained * steepness**2
