"""Images that are there twice, and parts of a split that share ground."""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from PIL import Image

from pixelwise.data.doctor.cache import FactCache
from pixelwise.data.doctor.facts import hash_of, thumb_of
from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.hashes import hashes_available, near_pairs
from pixelwise.data.doctor.sample import Facts, Sample
from pixelwise.data.doctor.thresholds import LIMITS
from pixelwise.data.footprints import exact_place, pixel_metres
from pixelwise.errors import DataError
from pixelwise.geo.coordinates import placed, transformed
from pixelwise.geo.proj import degrees
from pixelwise.geo.raster import RasterInfo, RasterReader, Window
from pixelwise.optional import optional_module

COMPARED = 48
"""Side in pixels of two images when they are compared."""
MOST_PIXELS = 1 << 26
"""Larger images are compared by their small pictures alone."""
PICTURES = 512
"""So many images stay in memory while they are compared."""
DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])(?:[-_.]?(?:0[1-9]|[12]\d|3[01]))?(?!\d)")
SIDE_POINTS = 5
"""Of a footprint's outline, on each side."""


def check_copies(samples: Sequence[Sample], cache: FactCache) -> list[Finding]:
    """Find images that are the same or nearly so; across parts of the split these are errors, unless most are copies.

    Args:
        cache: keeps how alike two images are.
    """
    read, codes, by_content = list[Sample](), array("Q"), defaultdict[str, list[int]](list)
    for sample in samples:
        facts = sample.facts
        if _has_contrast(facts):
            by_content[facts["content"]].append(len(read))
            read.append(sample)
            if hashes_available():
                codes.append(hash_of(facts))
    findings, seen = list[Finding](), set[tuple[int, int]]()
    for same in by_content.values():
        for i in same[1:]:
            first = next((j for j in same if j < i and _leak(read[j], read[i])), same[0])
            findings.append(_copy(read[first], read[i], None))
        seen |= {(i, j) for i in same for j in same if i < j}
    pictures: dict[int, Float64[np.ndarray, "h w"] | None] = {}
    for i, j in _alike(read, codes):
        if (i, j) in seen:
            continue
        one, other = read[i], read[j]
        likeness = _likeness(one, other, pictures, cache)
        enough = LIMITS.correlation if _leak(one, other) else LIMITS.copy
        if likeness >= enough and not _same_ground(one, other):
            findings.append(_copy(one, other, likeness))
    if 2 * len({finding.file for finding in findings}) > len(read):
        # Most of the set are copies: no split can part them, and to remove one is no fix.
        findings = [replace(finding, code="PW221") for finding in findings]
    return findings


def _likeness(
    one: Sample, other: Sample, pictures: dict[int, Float64[np.ndarray, "h w"] | None], cache: FactCache
) -> float:
    """Return how alike the pixels of two images are, from -1 to 1."""
    name, files = f"alike {one.image} {other.image}", [one.image, other.image]
    kept = cache.get(name, files)
    if kept is None:
        for sample in (one, other):
            if id(sample) not in pictures:
                if len(pictures) >= PICTURES:
                    del pictures[next(each for each in pictures if each not in (id(one), id(other)))]
                pictures[id(sample)] = _small(sample)
        kept = {"correlation": correlation(pictures[id(one)], pictures[id(other)])}
        cache.put(name, files, kept)
    return kept["correlation"]


def _has_contrast(facts: Facts) -> bool:
    return "content" in facts and min(facts["thumb"][:2]) >= 8 and max(facts["high"]) > min(facts["low"])


def _leak(one: Sample, other: Sample) -> bool:
    """Return whether two samples are in different parts of the split."""
    return bool(one.parts and other.parts and (set(one.parts) | set(other.parts)) - (set(one.parts) & set(other.parts)))


def _copy(one: Sample, other: Sample, likeness: float | None) -> Finding:
    leak = _leak(one, other)
    if likeness is None:
        code, what = ("PW170" if leak else "PW221"), "holds the same pixels as"
    elif leak:
        code, what = "PW171", f"is nearly the same image (correlation {likeness:.3f}) as"
    else:
        code, what = "PW221", f"is nearly the same image (correlation {likeness:.3f}) as"
    parts = f" One is in {', '.join(other.parts)}, the other in {', '.join(one.parts)}." if leak else ""
    said = f"{other.image} {what} {one.image}.{parts}"
    value = {"correlation": round(likeness, 4)} if likeness is not None else None
    spot = Spot(other.image, other=one.image)
    return Finding(code, str(other.image), said, value=value, picture=spot, others=(str(one.image),))


def _alike(samples: Sequence[Sample], codes: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Yield pairs of images whose perceptual hashes differ in few bits, and whose small pictures are alike."""
    for i, j in near_pairs(np.array(codes, np.uint64), LIMITS.hash_distance):
        if correlation(thumb_of(samples[i].facts), thumb_of(samples[j].facts)) >= LIMITS.alike:
            yield i, j


def correlation(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Return how alike the details of two grey pictures are, -1 to 1: of their steps, so shading counts little."""
    if one is None or other is None:
        return 0.0
    size = tuple(min(COMPARED, *sides) for sides in zip(one.shape[::-1], other.shape[::-1], strict=True))
    a, b = (_details(plane, size) for plane in (one, other))
    return float(a @ b / max(1e-12, np.sqrt((a @ a) * (b @ b))))


def _details(plane: np.ndarray, size: tuple[int, ...]) -> Float64[np.ndarray, " n"]:
    width, height = size
    picture = Image.fromarray(plane.astype(np.float32))
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float64)
    steps = [np.diff(small, axis=axis) for axis in (0, 1)]
    return np.concatenate([(step - step.mean()).ravel() for step in steps])


def _small(sample: Sample) -> Float64[np.ndarray, "h w"] | None:
    """Return an image in grey, of at most `COMPARED` pixels a side; None where it cannot be read."""
    info = sample.info
    assert info is not None
    if info.height * info.width > MOST_PIXELS:
        thumb = thumb_of(sample.facts)
        return None if thumb is None else thumb.astype(np.float64)
    try:
        reader = RasterReader(info)
        values, valid = reader.read(Window(0, 0, info.height, info.width))
        reader.close()
    except DataError:
        return None
    grey = np.where(valid, values[:3].mean(axis=0, dtype=np.float32), np.float32(0))
    size = (min(COMPARED, info.width), min(COMPARED, info.height))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), np.float64)


def _same_ground(one: Sample, other: Sample) -> bool:
    """Return whether both lie on the same place of the ground, which `check_ground` says better."""
    places = [exact_place(sample.info) for sample in (one, other) if sample.info is not None]
    if len(places) < 2 or places[0] is None or places[1] is None or one.info is None or other.info is None:
        return False
    return share_of_ground(one.info, other.info)[0] > LIMITS.same_place


@dataclass(frozen=True)
class Footprint:
    """A scene's outline in longitude and latitude."""

    sample: Sample
    ring: Float64[np.ndarray, "n 2"]


def footprints(samples: Sequence[Sample]) -> list[Footprint]:
    """Return the outlines of the scenes that have a place on the ground, in degrees."""
    found = []
    for sample in samples:
        ring = _ring(sample.info)
        if ring is None or sample.info is None:
            continue
        place = exact_place(sample.info)
        assert place is not None
        try:
            ground = transformed(place[0], degrees(), placed(place[1], ring))
        except DataError:
            continue
        if np.isfinite(ground).all():
            found.append(Footprint(sample, ground))
    return found


def _ring(info: RasterInfo | None) -> Float64[np.ndarray, "n 2"] | None:
    if info is None:
        return None
    place = exact_place(info)
    if place is None or not (place[0].is_geographic or place[0].is_projected):
        return None
    along = np.linspace(0, 1, SIDE_POINTS)[:-1]
    zero, one = np.zeros_like(along), np.ones_like(along)
    x, y = np.concatenate([along, one, 1 - along, zero]), np.concatenate([zero, along, one, 1 - along])
    return np.stack([x * info.width, y * info.height], axis=1)


def share_of_ground(one: RasterInfo, other: RasterInfo) -> tuple[float, float]:
    """Return the share of the smaller of two scenes that the other covers too, and that area in square metres."""
    shapely = optional_module("shapely")
    place, theirs, ring, their_ring = exact_place(one), exact_place(other), _ring(one), _ring(other)
    if place is None or theirs is None or ring is None or their_ring is None:
        return 0.0, 0.0
    mine = placed(place[1], ring)
    try:
        ground = transformed(theirs[0], place[0], placed(theirs[1], their_ring))
    except DataError:
        return 0.0, 0.0
    if not np.isfinite(ground).all():
        return 0.0, 0.0
    a, b = shapely.Polygon(mine), shapely.Polygon(ground)
    shared = float(a.intersection(b).area)
    smaller = min(a.area, b.area)
    metres = pixel_metres(one)
    unit = (metres * metres * one.height * one.width / a.area) if metres else 1.0
    return shared / smaller if smaller else 0.0, shared * unit


def check_ground(samples: Sequence[Sample], *, blocks: bool) -> list[Finding]:
    """Find scenes of two parts that share ground, and places that the set holds at several dates.

    Args:
        blocks: the split divides the ground itself, so no place is in two parts.
    """
    if find_spec("shapely") is None:
        return []
    shapely = optional_module("shapely")
    outlines = footprints(samples)
    if len(outlines) < 2:
        return []
    shapes = np.array([shapely.Polygon(each.ring) for each in outlines])
    tree = shapely.STRtree(shapes)
    findings = []
    for i, j in np.unique(np.sort(tree.query(shapes, predicate="intersects").T, axis=1), axis=0).tolist():
        if i == j:
            continue
        one, other = outlines[i].sample, outlines[j].sample
        assert one.info is not None
        assert other.info is not None
        share, area = share_of_ground(one.info, other.info)
        spot, others = Spot(other.image, other=one.image), (str(one.image),)
        if share > LIMITS.shared_ground and _leak(one, other) and not blocks:
            said = (
                f"{other.image} ({', '.join(other.parts)}) and {one.image} ({', '.join(one.parts)}) share {_area(area)}"
                f" of ground, {share:.0%} of the smaller one."
            )
            value = {"share": round(share, 4), "square_metres": round(area, 1)}
            findings.append(Finding("PW172", str(other.image), said, "", value, spot, others))
        elif share > LIMITS.same_place and (dates := _dates(one, other)):
            when = f"{dates[1]}, {dates[0]}"
            said = f"{other.image} shows {share:.0%} of the place of {one.image}, at another date ({when})."
            value = {"share": round(share, 4), "dates": list(dates)}
            findings.append(Finding("PW220", str(other.image), said, "", value, spot, others))
    return findings


def _area(square_metres: float) -> str:
    if square_metres >= 1e7:
        return f"{square_metres / 1e6:,.1f} km²"
    return f"{square_metres / 1e4:,.1f} ha" if square_metres >= 1e4 else f"{square_metres:,.0f} m²"


def _dates(one: Sample, other: Sample) -> tuple[str, str] | None:
    """Return the dates in two names, if they differ."""
    found = [_date(sample.image) for sample in (one, other)]
    return (found[0], found[1]) if found[0] and found[1] and found[0] != found[1] else None


def _date(path: Path) -> str:
    for name in (path.stem, path.parent.name):
        if match := DATE.search(name):
            return match[0]
    return ""
