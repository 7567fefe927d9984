"""The examination of a configuration's data: list, open, divide, read, judge."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError, NotGeoreferencedWarning

from pixelwise.config import Config, DataConfig
from pixelwise.data.doctor.balance import check_classes, check_cover, check_objects
from pixelwise.data.doctor.cache import FactCache
from pixelwise.data.doctor.facts import class_counts, read_facts
from pixelwise.data.doctor.finding import Examination, Finding, PartSummary, Spot
from pixelwise.data.doctor.fit import check_fit, check_orientation
from pixelwise.data.doctor.hashes import hashes_available
from pixelwise.data.doctor.headers import header_from_dict, header_to_dict, with_shared_values
from pixelwise.data.doctor.leaks import check_copies, check_ground
from pixelwise.data.doctor.outlines import check_polygons
from pixelwise.data.doctor.pairs import gather
from pixelwise.data.doctor.parts import divide
from pixelwise.data.doctor.pixels import (
    check_kinds,
    check_ranges,
    check_resolutions,
    check_statistics,
    check_tags,
    check_units,
)
from pixelwise.data.doctor.sample import WHOLE, Facts, Sample
from pixelwise.data.doctor.values import check_values, class_index
from pixelwise.data.drawing import Drawing
from pixelwise.data.notes import doubtful_alpha
from pixelwise.data.scenes import Part
from pixelwise.data.stats import BandStatistics, merge_statistics, no_statistics
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.colours import open_image
from pixelwise.geo.raster import RasterInfo, describe
from pixelwise.labels import IGNORE, Classes, MaskTable, make_classes, make_mask_table

Advance = Callable[[str, float], None]
"""Called with a stage's name and the share of it that is done."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class _Work:
    """What the steps of an examination hand on."""

    config: Config
    classes: Classes
    table: MaskTable
    cache: FactCache
    advance: Advance
    workers: int
    findings: list[Finding] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    colours: bool = False
    """Among photos in colours, a grey one is read with three equal bands."""
    inside: dict[int, dict[str, Part | None]] = field(default_factory=dict)
    """Sample (by `id`) -> part of the split -> which of its pixels belong to it."""
    read: int = 0


def examine(
    config: Config,
    *,
    stride: int | None = None,
    cache: Path | None = None,
    again: bool = False,
    advance: Advance | None = None,
    workers: int | None = None,
) -> Examination:
    """Read all data of a configuration once, and find what is wrong with it.

    Args:
        stride: of the network's logits, for objects that are too small for it; None: that is not looked at.
        cache: a file of facts: images that have not changed since they are not read again. None: all are read.
        again: read all, and keep the facts.
        advance: called with a stage and the share of it that is done.
        workers: threads that read; None: one per core.
    """
    data = config.data
    try:
        classes = make_classes(data.classes, data.palette)
        table = make_mask_table(
            classes,
            None if data.attribute else data.values,
            None if data.attribute else data.ignore,
            "error" if data.attribute else data.other_values,
        )
    except ConfigError as problem:
        return Examination((Finding("PW106", "[data]", str(problem), " "),), None)
    count = workers or os.cpu_count() or 1
    work = _Work(config, classes, table, FactCache(cache, empty=again), advance or (lambda stage, share: None), count)
    try:
        with warnings.catch_warnings():
            # A photo has no place on the ground. Threads share these filters, so they are set here.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            _open(work)
            _divide(work)
            _read(work)
            found = _judge(work, stride)
    except BaseException:
        work.cache.save(complete=False)
        raise
    work.cache.save(complete=True)
    return found


def _in_parallel(work: _Work, stage: str, call: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
    """Yield items with their results, in order; few wait at a time, so memory stays flat."""
    if not items:
        return
    with ThreadPoolExecutor(work.workers, thread_name_prefix="check") as pool:
        waiting: list[tuple[T, Future[R]]] = []
        rest = iter(items)
        done = 0
        try:
            while True:
                while len(waiting) < 4 * work.workers and (item := next(rest, None)) is not None:
                    waiting.append((item, pool.submit(call, item)))
                if not waiting:
                    break
                item, future = waiting.pop(0)
                yield item, future.result()
                done += 1
                work.advance(stage, done / len(items))
        finally:
            for _, future in waiting:
                future.cancel()


def _open(work: _Work) -> None:
    """List the files, read their headers and compare them."""
    work.samples, work.drawings, found = gather(work.config.data, work.classes)
    work.findings += found
    paths = dict.fromkeys(path for s in work.samples for path in (s.image, s.mask) if path is not None)
    headers = dict[Path, RasterInfo | DataError](_headers(work, list(paths)))
    alike = dict[RasterInfo, RasterInfo]()
    for sample in work.samples:
        for path in (sample.image, sample.mask):
            header = headers[path] if path is not None else None
            if isinstance(header, DataError):
                work.findings.append(_unopened(header, path, sample))
                sample.sound = False
            elif path == sample.image:
                sample.info = header
            elif header is not None:
                sample.mask_header = alike.setdefault(replace(header, path=Path()), header)
        work.findings += check_fit(sample, work.table)
    work.findings += check_orientation(work.samples)
    opened = [sample.info for sample in work.samples if sample.info is not None]
    work.colours = any(len(info.colour_bands) == 3 or info.paletted for info in opened)
    work.findings += check_kinds(work.samples, work.config.data.bands, colours=work.colours)


def _headers(work: _Work, paths: list[Path]) -> Iterable[tuple[Path, RasterInfo | DataError]]:
    systems, known = dict[str, CRS](), dict[tuple, object]()
    missing = []
    for path in paths:
        kept = work.cache.get(f"header {path}", [path])
        if kept is None:
            missing.append(path)
            continue
        try:
            yield path, with_shared_values(header_from_dict(path, kept, systems), known)
        except CRSError:
            # A system that is known where it was read, and not by its text.
            missing.append(path)
    for path, header in _in_parallel(work, "Opening files", _header, missing):
        if isinstance(header, RasterInfo) and (kept := header_to_dict(header)) is not None:
            work.cache.put(f"header {path}", [path], kept)
        yield path, with_shared_values(header, known) if isinstance(header, RasterInfo) else header


def _header(path: Path) -> RasterInfo | DataError:
    try:
        return describe(path)
    except DataError as problem:
        return problem


def _unopened(problem: DataError, path: Path | None, sample: Sample) -> Finding:
    said = str(problem)
    code = "PW111" if "is cut off" in said else "PW112" if "pages" in said else "PW110"
    others = () if path == sample.image else (str(sample.image),)
    return Finding(code, str(path), said, " ", others=others, picture=Spot(sample.image, sample.mask))


def _divide(work: _Work) -> None:
    """Say which sample is in which part of the split."""
    usable = [sample for sample in work.samples if sample.info is not None]
    if not usable:
        if not work.findings:
            work.findings.append(Finding("PW105", "[data].images", "No image has a mask.", "Fix the paths in [data]."))
        return
    try:
        work.inside = divide(usable, work.config)
    except (ConfigError, DataError) as problem:
        if not any(finding.severity == "error" for finding in work.findings):
            work.findings.append(Finding("PW173", "[data].split", str(problem), " "))
    everywhere: dict[str, Part | None] = {} if work.inside else {"training": None}
    alike: dict[tuple[str, ...], tuple[str, ...]] = {}
    for sample in usable:
        parts = tuple(work.inside.get(id(sample), everywhere))
        # Thousands of images share one tuple.
        sample.parts = alike.setdefault(parts, parts)


def _read(work: _Work) -> None:
    """Read the pixels of each sample, or take the facts that are known of it."""
    data = work.config.data
    drawn = hashlib.sha256()
    for drawing in work.drawings:
        drawn.update(_digest(drawing))
    for source in dict.fromkeys(sample.source for sample in work.samples if sample.source is not None):
        drawn.update(_annotation_digest(source, data))
    common = [data.bands, data.nodata, work.table.colours, work.colours]

    def name_of(sample: Sample) -> str:
        parts = {name: _signature(part) for name, part in work.inside.get(id(sample), {}).items()}
        # Which part a whole scene is in changes nothing in it.
        about = [*common, sample.sound, parts if any(parts.values()) else "whole"]
        about += [drawn.hexdigest()] if sample.drawn is not None else []
        name = hashlib.sha256(repr(about).encode()).hexdigest()[:16]
        return f"facts {sample.image} {sample.mask or ''} {name}"

    missing = []
    for sample in work.samples:
        if sample.info is None:
            continue
        place = work.cache.find(name_of(sample), _files(sample))
        if place is None:
            missing.append(sample)
        else:
            sample.facts_in, sample.place = work.cache, place
    work.read = len(missing)
    for sample, facts in _in_parallel(work, "Reading images", lambda sample: _facts(work, sample), missing):
        sample.facts_in, sample.place = work.cache, work.cache.put(name_of(sample), _files(sample), facts)


def _files(sample: Sample) -> list[Path]:
    return [sample.image, *([sample.mask] if sample.mask is not None else [])]


def _digest(drawing: Drawing) -> bytes:
    from pixelwise.optional import optional_module

    shapes = optional_module("shapely").to_wkb(drawing.polygons.geometries)
    settings = [drawing.polygons.crs.to_wkt(), drawing.background, drawing.boundary, drawing.data.boundary_width]
    about = repr([*settings, drawing.data.all_touched]).encode()
    return hashlib.sha256(b"".join(shapes) + drawing.class_of.tobytes() + about).digest()


def _annotation_digest(source: Path, data: DataConfig) -> bytes:
    """Return what changes when a file of annotations, or what a configuration makes of them, does."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    read = data.model_dump(
        include={"classes", "values", "ignore", "attribute", "background", "boundary", "boundary_width"}
    )
    return hashlib.sha256(repr((stamps, read)).encode()).digest()


def _signature(part: Part | None) -> str:
    """Return what makes out which pixels of a scene are in a part; nothing for all of them."""
    if part is None:
        return ""
    grid, listed = getattr(part, "grid", None), getattr(part, "listed", None)
    return hashlib.sha256(repr((repr(grid), listed)).encode()).hexdigest()


def _facts(work: _Work, sample: Sample) -> Facts:
    data = work.config.data
    assert sample.info is not None
    parts = work.inside.get(id(sample), {})
    if not any(parts.values()):
        parts: dict[str, Part | None] = {WHOLE: None}
    try:
        reader = open_image(sample.info, bands=data.bands, nodata=data.nodata, colours=work.colours)
    except (DataError, ConfigError) as problem:
        code = "bands" if isinstance(problem, ConfigError) else "kind"
        return {"broken": [[code, str(problem)]], "parts": {}}
    return read_facts(sample, reader, parts, colours=work.table.colours)


def _judge(work: _Work, stride: int | None) -> Examination:
    findings, samples, classes = work.findings, work.samples, work.classes
    findings += [finding for sample in samples for finding in _broken(sample)]
    wrong_values = check_values(samples, work.table)
    findings += wrong_values
    index = class_index(samples, work.table)
    drawn = {i: i for i in range(len(classes))}
    background = max((drawing.background for drawing in work.drawings), default=IGNORE)
    parts = _summaries(samples, index, drawn, classes, work.table)
    for drawing in work.drawings:
        findings += check_polygons(drawing.polygons, [sample for sample in samples if sample.drawn == drawing.labels])
    # What is wrong with labels explains what is wrong with classes.
    unexplained = not any(finding.code < "PW150" or "PW160" <= finding.code < "PW170" for finding in findings)
    objects = _objects(samples, index, drawn, classes, work.table)
    if unexplained:
        findings += check_classes(parts, classes)
        findings += check_objects(objects, stride)
        findings += check_cover(samples, drawn if work.drawings else index, classes, background)
    findings += _check_images(work)
    notes = () if hashes_available() else ("Near-duplicates were not looked for: pip install 'pixelwise[check]'.",)
    order = {id(finding): i for i, finding in enumerate(findings)}
    ordered = sorted(findings, key=lambda finding: (finding.code, order[id(finding)]))
    return Examination(tuple(ordered), classes, samples, parts, objects, notes, work.read)


def _check_images(work: _Work) -> list[Finding]:
    """Judge images by themselves and among each other."""
    samples, blocks = work.samples, work.config.data.split == "block"
    findings = check_ranges(samples) + check_tags(samples, {finding.file for finding in work.findings})
    units = check_units(samples)
    findings += units + check_resolutions(samples)
    for info, between in doubtful_alpha([s.info for s in samples if s.info is not None], work.config.data.bands):
        said = (
            f"{info.path} calls its band {info.alpha} alpha, so it is not read as data; but {between:.0%} of its pixels"
            " are neither transparent nor opaque."
        )
        bands = sorted(band for band in (*info.colour_bands, info.alpha) if band is not None)
        fix = f"If it holds data, such as near infrared, list it: bands = {bands} below [data]."
        findings.append(Finding("PW217", str(info.path), said, fix, round(between, 4), Spot(info.path)))
    findings += check_statistics(samples, {finding.file for finding in [*findings, *work.findings]})
    copies = check_copies(samples, work.cache)
    return findings + copies + check_ground(samples, blocks=blocks)


def _broken(sample: Sample) -> list[Finding]:
    findings = []
    for where, said in sample.facts.get("broken", ()):
        code = {"bands": "PW106", "kind": "PW112", "polygons": "PW165", "values": "PW130"}.get(where, "PW111")
        file = sample.mask if where == "mask" and sample.mask is not None else sample.image
        if where == "bands":
            findings.append(Finding(code, "[data].bands", said, " "))
            continue
        picture = Spot(sample.image, sample.mask)
        others = () if file == sample.image else (str(sample.image),)
        findings.append(Finding(code, str(file), said, " ", None, picture, others))
    return findings


def _summaries(
    samples: Sequence[Sample], index: dict[int, int], drawn: dict[int, int], classes: Classes, table: MaskTable
) -> dict[str, PartSummary]:
    """Add up what the parts hold, as training sees it."""
    from pixelwise.data.doctor.values import raw_values

    found: dict[str, list] = {}
    for sample in samples:
        facts = sample.facts
        for name, part in facts.get("parts", {}).items():
            counts = np.zeros(len(classes), np.int64)
            numbers = raw_values({"values": part["pixels"], "packed": facts.get("packed")}, table)
            pixels = {str(value): count for value, count in numbers.items()}
            counts += class_counts(pixels, drawn if sample.drawn is not None else index, len(classes))
            statistics = BandStatistics(part["count"], np.array(part["mean"]), np.array(part["deviations"]))
            kept = found.setdefault(name, [0, np.zeros(len(classes), np.int64), 0, no_statistics(len(part["mean"]))])
            kept[0] += 1
            kept[1] += counts
            kept[2] += part["count"] - int(counts.sum()) + part["ignored"]
            if len(statistics.mean) == len(kept[3].mean):
                kept[3] = merge_statistics(kept[3], statistics)
    order = [name for name in ("training", "validation", "test") if name in found]
    return {
        name: PartSummary(found[name][0], tuple(found[name][1].tolist()), found[name][2], found[name][3])
        for name in order
    }


def _objects(
    samples: Sequence[Sample], index: dict[int, int], drawn: dict[int, int], classes: Classes, table: MaskTable
) -> dict[str, list[int]]:
    totals: dict[str, list[int]] = {}
    for sample in samples:
        of, facts = drawn if sample.drawn is not None else index, sample.facts
        grey = facts.get("packed") and not table.colours
        for value, sizes in facts.get("objects", {}).items():
            found = of.get(int(value) & 0xFF if grey else int(value), IGNORE)
            if found >= 0:
                kept = totals.setdefault(classes.names[found], [0] * len(sizes))
                totals[classes.names[found]] = [a + b for a, b in zip(kept, sizes, strict=True)]
    return totals
