"""Which bands of images to read, and what pixels without data hold."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo, RasterReader, Window

SAMPLED = 24
"""Images whose values are looked at."""
SIDE = 256
BETWEEN = 0.1
"""An alpha band holds data if more than this share of it is neither transparent nor opaque."""
EMPTY = 0.02
"""From this share of black or -9999 pixels on, they are taken for pixels without data."""
MISSING = (-9999.0, -32768.0, -3.4028234663852886e38)


@dataclass
class Bands:
    """Keys of ``[data]``, and why."""

    data: dict[str, object] = field(default_factory=dict)
    saw: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    count: int = 0
    """How many are read of an image."""


def choose_bands(infos: Sequence[RasterInfo]) -> Bands:
    """Look at headers, and at windows of some images."""
    found = Bands()
    kinds = Counter((len(info.colour_bands), info.dtype) for info in infos)
    sizes = sorted({(info.height, info.width) for info in infos})
    (height, width), (high, wide) = sizes[0], sizes[-1]
    size = f"{width}x{height}" if len(sizes) == 1 else f"{width}x{height} to {wide}x{high}"
    (bands, dtype), _ = kinds.most_common(1)[0]
    found.saw.append(f"Images of {size} pixels with {bands} band{'s' * (bands > 1)} of {dtype}{_ground(infos)}.")
    counts = {len(info.colour_bands) for info in infos}
    sample = [
        (info, values) for info in infos[:: max(1, len(infos) // SAMPLED)] if (values := _windows(info)) is not None
    ]
    if counts == {3, 4}:
        found.data["bands"] = [1, 2, 3]
        found.guessed.append("Some images have three bands and some four: the first three are read.")
    elif counts == {4} and dtype == "uint8" and sample and all((v[3] == v[3].flat[0]).all() for _, v in sample):
        found.data["bands"] = [1, 2, 3]
        found.guessed.append("The fourth band is the same everywhere, so it is left out.")
    elif sample and all(info.alpha is not None for info, _ in sample) and _alpha_is_data([info for info, _ in sample]):
        found.data["bands"] = list(range(1, infos[0].count + 1))
        found.guessed.append("The band that the files call alpha holds data, such as near infrared: it is read too.")
    elif len(counts) > 1 and counts != {1, 3}:
        found.saw.append(f"The images differ in their number of bands: {', '.join(map(str, sorted(counts)))}.")
    if sample and not any(info.nodata is not None or info.alpha or info.masked for info in infos):
        _empty(sample, found)
    if sample:
        low, high = (np.percentile(np.concatenate([v.ravel() for _, v in sample]), q) for q in (1, 99))
        found.saw.append(f"Most values are from {low:.6g} to {high:.6g}.")
    chosen = found.data.get("bands")
    found.count = len(chosen) if isinstance(chosen, list) else bands
    return found


def _ground(infos: Sequence[RasterInfo]) -> str:
    from pixelwise.data.footprints import pixel_metres

    metres = [size for info in infos[:200] if (size := pixel_metres(info)) is not None]
    if not metres:
        return ""
    low, high = min(metres), max(metres)
    said = f"{low:.3g} m" if high < 1.02 * low else f"{low:.3g} to {high:.3g} m"
    return f", placed on the ground, {said} a pixel"


def _windows(info: RasterInfo) -> np.ndarray | None:
    """Return values [C,n] of the corners and the middle; None where they cannot be read."""
    try:
        reader = RasterReader(info, bands=info.colour_bands, nodata=np.nan)
        height, width = min(SIDE, info.height), min(SIDE, info.width)
        tops, lefts = (
            (0, (info.height - height) // 2, info.height - height),
            (0, (info.width - width) // 2, info.width - width),
        )
        places = {
            (tops[0], lefts[0]),
            (tops[0], lefts[2]),
            (tops[1], lefts[1]),
            (tops[2], lefts[0]),
            (tops[2], lefts[2]),
        }
        read = [reader.read(Window(top, left, height, width))[0] for top, left in sorted(places)]
        reader.close()
    except (DataError, ValueError):
        return None
    values = np.concatenate([each.reshape(len(each), -1) for each in read], axis=1)
    return values if values.dtype.kind != "f" else np.where(np.isfinite(values), values, 0)


def _alpha_is_data(infos: Sequence[RasterInfo]) -> bool:
    between = []
    for info in infos:
        if info.alpha is None or np.dtype(info.dtypes[info.alpha - 1]).kind != "u":
            return False
        reader = RasterReader(info, bands=[info.alpha], nodata=np.nan)
        height, width = min(2 * SIDE, info.height), min(2 * SIDE, info.width)
        values, _ = reader.read(Window((info.height - height) // 2, (info.width - width) // 2, height, width))
        reader.close()
        between.append(float(((values > 0) & (values < np.iinfo(values.dtype).max)).mean()))
    return sorted(between)[len(between) // 2] > BETWEEN


def _empty(sample: Sequence[tuple[RasterInfo, np.ndarray]], found: Bands) -> None:
    """See whether pixels are black or -9999 in all bands, though no file says that they hold no data."""
    placed = [values for info, values in sample if info.crs is not None]
    if not placed:
        return
    for value in (*MISSING, 0.0):
        shares = [
            float((values == values.dtype.type(value)).all(axis=0).mean()) if _fits(value, values.dtype) else 0.0
            for values in placed
        ]
        if max(shares) > EMPTY:
            found.data["nodata"] = int(value) if value.is_integer() and abs(value) < 1e9 else value
            count = sum(share > EMPTY for share in shares)
            found.guessed.append(
                f"{count} of {len(placed)} images that were looked at have ground where all bands are {value:g}: taken "
                "for pixels without data (nodata)."
            )
            return


def _fits(value: float, dtype: np.dtype) -> bool:
    if dtype.kind == "f":
        return True
    return dtype.kind in "iu" and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
