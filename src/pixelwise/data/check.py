"""Read every pixel once before the first step, to name broken files and to gather the statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from jaxtyping import Int64

from pixelwise.data.masks import MaskFile
from pixelwise.data.notes import notes_on
from pixelwise.data.problems import Problem, grouped
from pixelwise.data.scenes import Scene
from pixelwise.data.stats import BandStatistics, merge_statistics, no_statistics, statistics_of
from pixelwise.errors import DataError
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE, Classes, UnknownMaskValuesError

STRIP_PIXELS = 1 << 22


@dataclass(frozen=True)
class Survey:
    """What a list of scenes holds."""

    statistics: BandStatistics
    class_pixels: Int64[np.ndarray, " K"]
    ignored: int
    """Pixels without data, without a label or outside of the split's part."""
    problems: tuple[str, ...]
    """One paragraph for each kind of problem, which names all its files."""
    notes: tuple[str, ...] = ()
    """What the user should know of scenes that work."""
    ignores_255: bool = False
    """Some masks ignore 255."""
    contents: dict[str, list[int]] = field(default_factory=dict)
    """Scene -> checksums of its raw values and of its classes, which show whether they changed."""


def survey(scenes: Sequence[Scene], classes: Classes, *, advance: Callable[[str], None] | None = None) -> Survey:
    """Read all scenes, strip by strip.

    Args:
        advance: called with each scene's name when it is done.
    """
    statistics = no_statistics(len(scenes[0].reader.bands)) if scenes else no_statistics(0)
    pixels = np.zeros(len(classes), np.int64)
    ignored = 0
    problems: list[Problem] = []
    contents: dict[str, list[int]] = {}
    for scene in scenes:
        paths = (scene.info.path, *([scene.labels.reader.info.path] if isinstance(scene.labels, MaskFile) else []))
        # One for each band, so that they do not depend on the height of the strips.
        sums = [0] * (len(scene.reader.bands) + 1)
        for strip in _strips(scene):
            try:
                crop = scene.read(strip)
            except UnknownMaskValuesError as problem:
                # The other strips may hold other values.
                problems.append(Problem(problem, paths))
                if scene.resident:
                    # The scene was read whole, so its other strips would say the same.
                    break
                continue
            except DataError as problem:
                problems.append(Problem(problem, paths))
                break
            planes = (*crop.values, crop.mask)
            sums = [crc32(plane.tobytes(), kept) for plane, kept in zip(planes, sums, strict=True)]
            statistics = merge_statistics(statistics, statistics_of(crop.values, crop.valid))
            counts = np.bincount(crop.mask.ravel() - IGNORE, minlength=len(classes) + 1)
            ignored += int(counts[0])
            pixels += counts[1:]
        contents[scene.name] = [crc32(repr(sums[:-1]).encode()), sums[-1]]
        if advance:
            advance(scene.name)
    ignores_255 = any(isinstance(scene.labels, MaskFile) and 255 in scene.labels.table.ignored for scene in scenes)
    notes = notes_on(scenes, classes, pixels)
    return Survey(statistics, pixels, ignored, tuple(grouped(problems)), notes, ignores_255, contents)


def _strips(scene: Scene) -> list[Window]:
    rows = max(1, STRIP_PIXELS // scene.info.width)
    height, width = scene.info.height, scene.info.width
    return [Window(top, 0, min(rows, height - top), width) for top in range(0, height, rows)]


def require_usable(found: Survey, classes: Classes, what: str) -> None:
    """Stop before the first step if anything is wrong.

    Raises:
        DataError: corrupt files (all are named), no labelled pixel, or training scenes with pixels of one class alone.
    """
    if found.problems:
        more = f" ({len(found.problems) - 3} more; `pixelwise check` lists all)" if len(found.problems) > 3 else ""
        raise DataError(" ".join(found.problems[:3]) + more, code="PW416")
    if found.class_pixels.sum() == 0:
        raise DataError(
            f"No pixel of the {what} scenes has a class: all are ignored or have no data. Check [data].ignore.",
            code="PW415",
        )
    present = np.flatnonzero(found.class_pixels)
    if len(present) == 1 and what == "training":
        name = classes.names[present[0]]
        raise DataError(
            f"All labelled pixels of the training scenes are of the class {name!r}, so there is nothing to learn. "
            + _advice(found, classes),
            code="PW415",
        )


def _advice(found: Survey, classes: Classes) -> str:
    if len(classes) == 2 and found.class_pixels[0] and found.ignored and found.ignores_255:
        first, second = classes.names
        return (
            "Masks of 0 and 255 are a likely reason: 255 is ignored unless it is mapped. Write below [data]: "
            f'values = {{ "{first}" = 0, "{second}" = 255 }}'
        )
    return "Check [data].values and the masks."
