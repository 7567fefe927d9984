"""What is unusual about the pixels of images: kinds, ranges, units, and scenes unlike the others."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.sample import Facts, Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.data.footprints import RESOLUTIONS, pixel_metres
from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo


def bands_of(info: RasterInfo, listed: Sequence[int] | None, *, colours: bool) -> tuple[int, ...]:
    """Return the bands of an image that are read, as `open_image` chooses them."""
    if listed:
        return tuple(listed)
    grey = info.crs is None and info.dtype == "uint8" and len(info.colour_bands) == 1
    return (1, 2, 3) if info.paletted or (colours and grey) else info.colour_bands


def check_kinds(samples: Sequence[Sample], listed: Sequence[int] | None, *, colours: bool) -> list[Finding]:
    """Compare bands and types with those that most images have."""
    opened = [(sample, sample.info) for sample in samples if sample.info is not None]
    if not opened:
        return []
    bands = {id(sample): bands_of(info, listed, colours=colours) for sample, info in opened}
    types = {id(sample): "uint8" if info.paletted else info.dtype for sample, info in opened}
    findings = []
    for code, kinds in (("PW150", bands), ("PW151", types)):
        usual = Counter(kinds.values()).most_common(1)[0][0]
        example = next(sample for sample, _ in opened if kinds[id(sample)] == usual)
        for sample, _ in opened:
            kind = kinds[id(sample)]
            if kind == usual:
                continue
            if code == "PW150":
                assert isinstance(kind, tuple)
                assert isinstance(usual, tuple)
                said = f"{sample.image} has the bands {list(kind)}, but {example.image} has {list(usual)}."
            else:
                said = f"{sample.image} is {kind}, but {example.image} is {usual}. Their units differ."
            value = list(kind) if isinstance(kind, tuple) else kind
            found = Finding(code, str(sample.image), said, "", value, Spot(sample.image), (str(example.image),))
            findings.append(found)
    return findings


def check_ranges(samples: Sequence[Sample]) -> list[Finding]:
    """Find blank images, constant and saturated bands, and 16-bit files that hold 8 bits."""
    findings = []
    for sample in samples:
        facts, info = sample.facts, sample.info
        if "content" not in facts or info is None:
            continue
        low, high = np.array(facts["low"]), np.array(facts["high"])
        spot, file = Spot(sample.image, sample.mask), str(sample.image)
        if not facts["valid"] or bool((low == high).all()):
            what = f"all its pixels are {high.tolist()}" if facts["valid"] else "no pixel has data"
            findings.append(Finding("PW218", file, f"{file} is blank: {what}.", picture=spot))
            continue
        for band in np.flatnonzero(low == high).tolist():
            said = f"Band {band + 1} of {file} is {high[band]:g} everywhere."
            findings.append(Finding("PW210", file, said, value={"band": band + 1, "value": high[band]}, picture=spot))
        findings += _saturated(sample, facts)
        eight = "" if info.dtype != "uint16" else _eight_bits(facts)
        if eight:
            said = f"{file} has 16 bits, but {eight}."
            findings.append(Finding("PW212", file, said, value=float(high.max()), picture=spot))
    return findings


def _saturated(sample: Sample, facts: Facts) -> list[Finding]:
    info, high = sample.info, np.array(facts["high"])
    assert info is not None
    dtype = np.dtype(info.dtypes[0] if info.dtypes and not info.paletted else "uint8")
    shares = np.array(facts["at_high"]) / max(1, facts["valid"])
    full = np.iinfo(dtype).max if dtype.kind in "ui" else None
    findings = []
    for band in np.flatnonzero(shares >= LIMITS.saturated).tolist():
        # A float or 16-bit band is cut off at some round value, which only its share tells.
        if full is not None and dtype.itemsize == 1 and high[band] != full:
            continue
        if facts["low"][band] == high[band]:
            continue
        where = f"band {band + 1} of {sample.image}"
        said = f"{shares[band]:.0%} of the pixels of {where} have its largest value, {high[band]:g}."
        value = {"band": band + 1, "share": round(float(shares[band]), 4), "value": high[band]}
        findings.append(Finding("PW211", str(sample.image), said, value=value, picture=Spot(sample.image, sample.mask)))
    return findings


def _eight_bits(facts: Facts) -> str:
    high = max(facts["high"])
    if high <= 255:
        return f"its largest value is {high:g}"
    if facts["low_byte"] == 0:
        return "all its values are multiples of 256"
    return "both bytes of each value are equal" if facts["doubled"] else ""


UNITS = ((1.5, "0 to 1"), (255.0, "0 to 255"), (20_000.0, "0 to 10,000"), (65_535.0, "0 to 65,535"))


def check_units(samples: Sequence[Sample]) -> list[Finding]:
    """Find scenes whose values are of another magnitude than those of most."""
    read = [sample for sample in samples if sample.info and sample.info.dtype != "uint8" and sample.readable]
    read = [(sample, high) for sample in read if (high := max(sample.facts["high"])) > 0]
    if len(read) < 2:
        return []
    units = {id(sample): next((name for top, name in UNITS if high <= top), "more") for sample, high in read}
    usual, _ = Counter(units.values()).most_common(1)[0]
    typical = float(np.median([high for sample, high in read if units[id(sample)] == usual]))
    findings = []
    for sample, high in read:
        factor = max(high / typical, typical / high)
        if units[id(sample)] != usual and factor >= LIMITS.units:
            said = (
                f"{sample.image} has values up to {high:g}, as if they went from {units[id(sample)]}; most scenes have "
                f"values up to about {typical:g}, from {usual}."
            )
            value = {"largest": high, "usual": typical}
            findings.append(Finding("PW213", str(sample.image), said, value=value, picture=Spot(sample.image)))
    return findings


def _metres(sample: Sample) -> float | None:
    try:
        return pixel_metres(sample.info) if sample.info is not None else None
    except DataError:
        return None


def check_resolutions(samples: Sequence[Sample]) -> list[Finding]:
    """Find scenes whose pixels have another size on the ground than those of most."""
    sizes = [(size, sample) for sample in samples if (size := _metres(sample)) is not None]
    if len(sizes) < 2:
        return []
    usual = float(np.median([size for size, _ in sizes]))
    findings = []
    for size, sample in sizes:
        if max(size / usual, usual / size) >= RESOLUTIONS:
            said = f"Pixels are {size:.3g} m wide on the ground in {sample.image}, and {usual:.3g} m in most scenes."
            value = {"metres": round(size, 4), "usual": round(usual, 4)}
            findings.append(Finding("PW214", str(sample.image), said, value=value, picture=Spot(sample.image)))
    if not findings and max(sizes, key=_size)[0] >= RESOLUTIONS * min(sizes, key=_size)[0]:
        (small, fine), (large, coarse) = min(sizes, key=_size), max(sizes, key=_size)
        said = f"Pixels are {small:.3g} m wide on the ground in {fine.image} and {large:.3g} m in {coarse.image}."
        value = {"metres": round(large, 4), "usual": round(small, 4)}
        spot = Spot(coarse.image, other=fine.image)
        findings.append(Finding("PW214", str(coarse.image), said, "", value, spot, (str(fine.image),)))
    return findings


def _size(pair: tuple[float, Sample]) -> float:
    return pair[0]


def check_statistics(samples: Sequence[Sample], known: set[str]) -> list[Finding]:
    """Find scenes whose means or deviations are far from those of all.

    Args:
        known: files that another finding explains.
    """
    read = [sample for sample in samples if str(sample.image) not in known and sample.readable]
    moments = [_moments(sample.facts) for sample in read]
    bands = Counter(len(each) for each in moments).most_common(1)
    usable = [(sample, each) for sample, each in zip(read, moments, strict=True) if each and len(each) == bands[0][0]]
    if len(usable) < LIMITS.outlier_scenes:
        return []
    table = np.array([each for _, each in usable])
    middle = np.median(table, axis=0)
    # Where all scenes are nearly alike, a small step is no outlier.
    spread = np.maximum(np.median(np.abs(table - middle), axis=0), 0.02 * np.abs(middle) + 1e-12)
    away = np.abs(table - middle) / spread
    odd = np.flatnonzero(away.max(axis=1) > LIMITS.outlier)
    if len(odd) > max(1, LIMITS.outlier_share * len(usable)):
        return []
    findings = []
    for i in odd.tolist():
        sample, k = usable[i][0], int(away[i].argmax())
        what = "mean" if k < len(middle) // 2 else "standard deviation"
        band = k % (len(middle) // 2) + 1
        said = (
            f"{sample.image} is unlike the others: the {what} of its band {band} is {table[i, k]:.4g}, and "
            f"{middle[k]:.4g} in the middle of all scenes."
        )
        value = {"band": band, what: float(table[i, k]), "usual": float(middle[k])}
        findings.append(Finding("PW215", str(sample.image), said, value=value, picture=Spot(sample.image, sample.mask)))
    return findings


def _moments(facts: Facts) -> list[float]:
    """Return the means, then the standard deviations, of all bands over all parts."""
    parts = [part for part in facts["parts"].values() if part["count"]]
    if not parts:
        return []
    counts = np.array([part["count"] for part in parts], float)
    means = np.array([part["mean"] for part in parts])
    mean = counts @ means / counts.sum()
    squares = np.array([part["deviations"] for part in parts]) + counts[:, None] * (means - mean) ** 2
    return [*mean.tolist(), *np.sqrt(squares.sum(axis=0) / counts.sum()).tolist()]


def check_tags(samples: Sequence[Sample], known: set[str]) -> list[Finding]:
    """Find scale tags that differ, and masks that are compressed with losses though their values fit.

    Args:
        known: files that another finding explains.
    """
    scaled = {}
    for sample in samples:
        if sample.info is not None and sample.info.scales:
            pairs = tuple(dict.fromkeys(zip(sample.info.scales, sample.info.offsets, strict=True)))
            scaled.setdefault(pairs, []).append(sample)
    findings = []
    if len(scaled) > 1:
        usual = max(scaled, key=lambda tag: len(scaled[tag]))
        for tag, those in scaled.items():
            for sample in those if tag != usual else []:
                said = (
                    f"{sample.image} says that its values are to be multiplied by {tag[0][0]:g} and added to "
                    f"{tag[0][1]:g}, most scenes by {usual[0][0]:g} and {usual[0][1]:g}. Values are read as they are "
                    "stored."
                )
                fix = "Convert the files to common units (gdal_translate -unscale -ot Float32)."
                findings.append(Finding("PW216", str(sample.image), said, fix, list(tag[0])))
    for sample in samples:
        lossy = sample.sound and sample.mask_info is not None and sample.mask_info.lossy
        if lossy and str(sample.mask) not in known:
            said = f"{sample.mask} is compressed with losses (JPEG); its values fit the classes all the same."
            findings.append(Finding("PW206", str(sample.mask), said, picture=Spot(sample.image, sample.mask)))
    return findings
