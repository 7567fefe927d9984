"""What is read of an image and its labels, once and strip by strip; all of it fits a cache."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, Shaped, UInt8

from pixelwise.data.doctor.hashes import hashes_available, perceptual_hash
from pixelwise.data.doctor.sample import Facts, Sample
from pixelwise.data.scenes import Labels, Part
from pixelwise.data.stats import BandStatistics, merge_statistics, no_statistics, statistics_of
from pixelwise.errors import DataError
from pixelwise.geo.colours import ImageReader
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, holds_data
from pixelwise.labels import IGNORE, UnknownMaskValuesError, pack_colours

STRIP_PIXELS = 1 << 21
THUMB = 32
"""Side of the small grey picture by which images are compared."""
MOST_VALUES = 512
"""So many values of a mask are kept, the most frequent ones."""
OBJECT_VALUES = 40
"""Objects are measured in masks of at most so many values."""
BINS = 24
"""Of object sizes: 1, 2 to 3, 4 to 7 ... pixels."""


@dataclass
class _Bands:
    """Extremes and statistics of an image's bands, over all strips."""

    low: Float64[np.ndarray, " C"]
    high: Float64[np.ndarray, " C"]
    at_high: Int64[np.ndarray, " C"]
    low_byte: int = 0
    """Bits of the lower byte that some value of a 16-bit file has."""
    doubled: bool = True
    """Both bytes of each 16-bit value are equal."""
    pixels: int = 0


@dataclass
class _Thumb:
    """Sums of grey values on a coarse grid."""

    height: int
    width: int
    sums: Float64[np.ndarray, "h w"] = field(init=False)
    counts: Float64[np.ndarray, "h w"] = field(init=False)

    def __post_init__(self) -> None:
        shape = (min(THUMB, self.height), min(THUMB, self.width))
        self.sums, self.counts = np.zeros(shape), np.zeros(shape)

    def add(self, values: Shaped[np.ndarray, "C h w"], valid: Bool[np.ndarray, "h w"], top: int) -> None:
        """Add a strip that begins at a row."""
        rows, columns = self.sums.shape
        with np.errstate(all="ignore"):
            # Pixels without data may be infinite.
            grey = values[:3].mean(axis=0, dtype=np.float32)
        grey = np.where(valid & np.isfinite(grey), grey, np.float32(0))
        of_row = (np.arange(top, top + values.shape[1]) * rows) // self.height
        starts = -(-np.arange(columns) * self.width // columns)
        first = np.flatnonzero(np.r_[True, np.diff(of_row) > 0])
        for plane, into in ((grey, self.sums), (valid.astype(np.float32), self.counts)):
            added = np.add.reduceat(np.add.reduceat(plane, first, axis=0), starts, axis=1)
            into[of_row[first]] += added

    def picture(self) -> UInt8[np.ndarray, "h w"]:
        """Return the grey picture, stretched from its lowest to its highest value."""
        grey = self.sums / np.maximum(1, self.counts)
        low, high = float(grey.min()), float(grey.max())
        return np.rint((grey - low) / (high - low or 1.0) * 255).astype(np.uint8)


def read_facts(sample: Sample, reader: ImageReader, parts: dict[str, Part | None], *, colours: bool) -> Facts:
    """Read an image and its labels from end to end.

    Args:
        reader: of the image.
        parts: part of the split -> which pixels belong to it (None: all).
        colours: masks are read as colours, since [data.values] names such.

    Returns:
        facts; a file that cannot be read to its end is named in ``facts["broken"]``.
    """
    height, width = reader.info.height, reader.info.width
    thumb, content = _Thumb(height, width), hashlib.blake2b(digest_size=16)
    content.update(f"{reader.info.dtype} {len(reader.bands)} {height} {width}".encode())
    bands: _Bands | None = None
    broken: list[list[str]] = []
    labels = _Labels(sample, reader.info, colours, broken)
    counted = {part: _Count(no_statistics(len(reader.bands))) for part in parts}
    readable = True
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        window = Window(top, 0, min(rows, height - top), width)
        values = valid = None
        if readable:
            try:
                values, valid = reader.read(window)
            except DataError as problem:
                broken.append(["image", str(problem)])
                readable = False
        drawn = labels.read(window)
        if values is None or valid is None:
            if drawn is None:
                break
            continue
        content.update(np.ascontiguousarray(values).data)
        bands = _extremes(bands, values, valid)
        thumb.add(values, valid, top)
        for part, where in parts.items():
            inside = valid if where is None else valid & where.read(window)
            counted[part].add(values, inside, drawn)
    reader.close()
    labels.close()
    facts: Facts = {"broken": broken, "parts": {part: count.to_dict() for part, count in counted.items()}}
    facts |= labels.facts()
    if readable and bands is not None:
        small = thumb.picture()
        facts |= {
            "content": content.hexdigest(),
            "thumb": [*small.shape, base64.b64encode(small.tobytes()).decode("ascii")],
            "hash": perceptual_hash(small) if hashes_available() and min(small.shape) >= 8 else None,
            "low": bands.low.tolist(),
            "high": bands.high.tolist(),
            "at_high": bands.at_high.tolist(),
            "low_byte": bands.low_byte,
            "doubled": bands.doubled,
            "valid": bands.pixels,
        }
    return facts


def _extremes(kept: _Bands | None, values: Shaped[np.ndarray, "C h w"], valid: Bool[np.ndarray, "h w"]) -> _Bands:
    count = len(values)
    kept = kept or _Bands(np.full(count, np.inf), np.full(count, -np.inf), np.zeros(count, np.int64))
    pixels = values.reshape(count, -1) if valid.all() else values[:, valid]
    if pixels.shape[1] == 0:
        return kept
    high = pixels.max(axis=1).astype(np.float64)
    at_high = np.array([np.count_nonzero(band == top) for band, top in zip(pixels, pixels.max(axis=1), strict=True)])
    kept.at_high = np.where(high > kept.high, at_high, kept.at_high + np.where(high == kept.high, at_high, 0))
    kept.low = np.minimum(kept.low, pixels.min(axis=1).astype(np.float64))
    kept.high = np.maximum(kept.high, high)
    kept.pixels += pixels.shape[1]
    if values.dtype == np.uint16:
        kept.low_byte |= int(np.bitwise_or.reduce(pixels, axis=None)) & 0xFF
        kept.doubled = kept.doubled and bool(((pixels >> 8) == (pixels & 0xFF)).all())
    return kept


@dataclass
class _Count:
    """What a part of the split has of a scene."""

    statistics: BandStatistics
    pixels: dict[int, int] = field(default_factory=dict)
    """Raw mask value, or class, -> pixels with data."""
    ignored: int = 0

    def add(
        self,
        values: Shaped[np.ndarray, "C h w"],
        inside: Bool[np.ndarray, "h w"],
        drawn: Integer[np.ndarray, "h w"] | None,
    ) -> None:
        self.statistics = merge_statistics(self.statistics, _statistics(values, inside))
        self.ignored += int(inside.size - np.count_nonzero(inside))
        if drawn is not None:
            _add(self.pixels, _counts(drawn if inside.all() else drawn[inside]))

    def to_dict(self) -> dict:
        return {
            "count": self.statistics.count,
            "mean": self.statistics.mean.tolist(),
            "deviations": self.statistics.deviations.tolist(),
            "pixels": _most(self.pixels),
            "ignored": self.ignored,
        }


def _statistics(values: Shaped[np.ndarray, "C h w"], valid: Bool[np.ndarray, "h w"]) -> BandStatistics:
    if values.dtype != np.uint8:
        return statistics_of(values, valid)
    # A histogram says all about a band of 8 bits, and takes a quarter of the time.
    pixels = values.reshape(len(values), -1) if valid.all() else values[:, valid]
    count = pixels.shape[1]
    if count == 0:
        return no_statistics(len(values))
    tone = np.arange(256, dtype=np.float64)
    tones = np.stack([np.bincount(band, minlength=256) for band in pixels])
    mean = tones @ tone / count
    return BandStatistics(count, mean, (tones * (tone - mean[:, None]) ** 2).sum(axis=1))


def _counts(values: Integer[np.ndarray, "..."]) -> dict[int, int]:
    flat = values.ravel()
    if flat.size == 0:
        return {}
    low = int(flat.min())
    if int(flat.max()) - low < 1 << 16:
        counts = np.bincount(flat.astype(np.int64) - low)
        found = np.flatnonzero(counts)
        return dict(zip((found + low).tolist(), counts[found].tolist(), strict=True))
    found, counts = np.unique(flat, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _add(into: dict[int, int], more: dict[int, int]) -> None:
    for value, count in more.items():
        into[value] = into.get(value, 0) + count


def _most(counts: dict[int, int]) -> dict[str, int]:
    kept = sorted(counts.items(), key=lambda item: -item[1])[:MOST_VALUES]
    return {str(value): count for value, count in kept}


class _Labels:
    """The labels of a sample: raw values of a mask, or classes that were drawn. A value that is empty is `IGNORE`."""

    def __init__(self, sample: Sample, info: RasterInfo, colours: bool, broken: list[list[str]]) -> None:
        self.broken, self.colours = broken, colours
        self.values: dict[int, int] = {}
        self.empty: dict[int, int] = {}
        self.places: dict[int, list[int]] = {}
        self.objects: dict[int, np.ndarray] = {}
        self.packed = False
        self.mask: RasterReader | None = None
        self.drawn: Labels | None = None
        self.palette: dict[int, tuple[int, int, int, int]] | None = None
        try:
            if sample.mask_info is not None:
                # NaN is no whole number, so that no value counts as nodata here.
                self.mask = RasterReader(sample.mask_info, nodata=np.nan)
                self.palette = self.mask.colour_table() if sample.mask_info.paletted else None
            elif sample.drawn is not None:
                self.drawn = sample.drawn(info)
        except DataError as problem:
            broken.append(["mask" if sample.mask else "polygons", str(problem)])
        # Of another size than its image, a mask is read by itself.
        self.height = sample.mask_info.height if sample.mask_info is not None else info.height
        self.apart = sample.mask_info is not None and not sample.sound
        self.done = False

    def read(self, window: Window) -> Integer[np.ndarray, "h w"] | None:
        """Return raw values of a mask, or classes; None where there are none that fit the image."""
        if self.apart:
            self._read_apart()
            return None
        try:
            if self.drawn is not None:
                raw = self.drawn.read(window).astype(np.int32)
                self._note(raw, np.zeros(raw.shape, bool), window.top)
                return raw
            if self.mask is not None:
                return self._raw(self.mask, window)
        except DataError as problem:
            kind = "values" if isinstance(problem, UnknownMaskValuesError) else "mask"
            self.broken.append([kind, str(problem)])
            self.mask = self.drawn = None
        return None

    def _read_apart(self) -> None:
        if self.done or self.mask is None:
            return
        self.done = True
        rows = max(1, STRIP_PIXELS // self.mask.info.width)
        try:
            for top in range(0, self.height, rows):
                self._raw(self.mask, Window(top, 0, min(rows, self.height - top), self.mask.info.width))
        except DataError as problem:
            self.broken.append(["mask", str(problem)])

    def _raw(self, mask: RasterReader, window: Window) -> Integer[np.ndarray, "h w"]:
        values, shown = mask.read(window)
        empty = ~shown | ~holds_data(values, mask.info.nodata_of(mask.bands))
        if self.palette is not None and self.colours:
            table = np.zeros((max(self.palette, default=0) + 1, 3), np.int32)
            for index, colour in self.palette.items():
                table[index] = colour[:3]
            values = np.moveaxis(table[np.minimum(values[0], len(table) - 1)], -1, 0)
        if len(values) >= 3 and values.dtype.itemsize <= 4:
            raw, self.packed = pack_colours(values[:3]), True
        elif self.colours and values.dtype == np.uint8:
            raw, self.packed = pack_colours(np.broadcast_to(values[:1], (3, *values.shape[1:]))), True
        else:
            raw = values[0].astype(np.int32 if values.dtype.itemsize < 4 else np.int64)
        self._note(raw, empty, window.top)
        # In masks of numbers, alpha 0 means ignored; a colour that is listed counts all the same.
        return raw if self.colours else np.where(shown, raw, IGNORE)

    def _note(self, raw: Integer[np.ndarray, "h w"], empty: Bool[np.ndarray, "h w"], top: int) -> None:
        here = _counts(raw if not empty.any() else raw[~empty])
        _add(self.values, here)
        if empty.any():
            _add(self.empty, _counts(raw[empty]))
        new = [value for value in here if value not in self.places][: max(0, 64 - len(self.places))]
        for value in new:
            row, column = divmod(int(np.argmax(raw == value)), raw.shape[1])
            self.places[value] = [top + row, column]
        if len(here) <= OBJECT_VALUES and find_spec("scipy") is not None:
            for value, sizes in _object_sizes(raw, list(here)).items():
                self.objects[value] = self.objects.get(value, np.zeros(BINS, np.int64)) + sizes

    def facts(self) -> Facts:
        palette = {str(i): list(c[:3]) for i, c in self.palette.items()} if self.palette is not None else None
        return {
            "values": _most(self.values),
            "distinct": len(self.values),
            "empty": _most(self.empty),
            "places": {str(value): place for value, place in self.places.items()},
            "objects": {str(value): sizes.tolist() for value, sizes in self.objects.items()},
            "packed": self.packed,
            "palette": palette if palette and max(map(int, self.values), default=0) < len(palette) + 256 else None,
        }

    def close(self) -> None:
        if self.mask is not None:
            self.mask.close()


def _object_sizes(raw: Integer[np.ndarray, "h w"], values: list[int]) -> dict[int, Int64[np.ndarray, " bins"]]:
    """Return value -> how many pixels lie in objects of each size, which are joined at sides and corners."""
    from scipy import ndimage

    values = sorted(values)
    low, high = int(raw.min()), int(raw.max())
    if high - low < 1 << 16:
        table = np.zeros(high - low + 1, np.int32)
        table[np.array(values) - low] = np.arange(len(values)) + 1
        number = table[raw - low]
    else:
        number = np.searchsorted(values, raw).clip(max=len(values) - 1).astype(np.int32)
        number = np.where(np.array(values)[number] == raw, number + 1, 0)
    found = {}
    # Only the box around a value is looked at, which is small for most.
    for i, box in enumerate(ndimage.find_objects(number, len(values))):
        if box is None:
            continue
        joined = np.empty(number[box].shape, np.int32)
        ndimage.label(number[box] == i + 1, np.ones((3, 3)), output=joined)
        areas = np.bincount(joined.ravel())[1:]
        bins = np.minimum(np.log2(areas).astype(int), BINS - 1)
        found[values[i]] = np.bincount(bins, weights=areas, minlength=BINS).astype(np.int64)
    return found


def thumb_of(facts: Facts) -> UInt8[np.ndarray, "h w"] | None:
    """Return the small grey picture of an image; None where it could not be read."""
    if "thumb" not in facts:
        return None
    height, width, text = facts["thumb"]
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width)


def hash_of(facts: Facts) -> int:
    """Return the perceptual hash of an image that could be read."""
    kept, thumb = facts.get("hash"), thumb_of(facts)
    assert thumb is not None
    return perceptual_hash(thumb) if kept is None else kept


def class_counts(pixels: dict[str, int], index: dict[int, int], classes: int) -> Sequence[int]:
    """Return the pixels of each class.

    Args:
        pixels: raw value -> pixels.
        index: raw value -> class.
    """
    counts = [0] * classes
    for value, count in pixels.items():
        found = index.get(int(value), IGNORE)
        if found >= 0:
            counts[found] += count
    return counts
