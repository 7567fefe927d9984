"""Read every pixel once before the first step: broken files are named now, and the statistics fall out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pixelwise.data.folder import MaskFile
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
    """One paragraph for each kind of problem, with all files that have it."""


def survey(scenes: Sequence[Scene], classes: Classes, *, advance: Callable[[str], None] | None = None) -> Survey:
    """Read all scenes, strip by strip.

    Args:
        advance: called with each scene's name when it is done.
    """
    statistics = no_statistics(len(scenes[0].reader.bands)) if scenes else no_statistics(0)
    pixels = np.zeros(len(classes), np.int64)
    ignored = 0
    problems: list[Problem] = []
    for scene in scenes:
        paths = (scene.info.path, *([scene.labels.reader.info.path] if isinstance(scene.labels, MaskFile) else []))
        for strip in _strips(scene):
            try:
                crop = scene.read(strip)
            except UnknownMaskValuesError as problem:
                # The other strips may hold other values.
                problems.append(Problem(problem, paths))
                continue
            except DataError as problem:
                problems.append(Problem(problem, paths))
                break
            statistics = merge_statistics(statistics, statistics_of(crop.values, crop.valid))
            counts = np.bincount(crop.mask.ravel() - IGNORE, minlength=len(classes) + 1)
            ignored += int(counts[0])
            pixels += counts[1:]
        if advance:
            advance(scene.name)
    return Survey(statistics, pixels, ignored, tuple(grouped(problems)))


def _strips(scene: Scene) -> list[Window]:
    if scene.resident:
        return [scene.whole]
    rows = max(1, STRIP_PIXELS // scene.info.width)
    height, width = scene.info.height, scene.info.width
    return [Window(top, 0, min(rows, height - top), width) for top in range(0, height, rows)]


def require_usable(found: Survey, classes: Classes, what: str) -> None:
    """Stop before the first step if anything is wrong.

    Raises:
        DataError: corrupt files (all are named), no labelled pixel, or a class without any.
    """
    if found.problems:
        more = f" ({len(found.problems) - 3} more; `pixelwise check` lists all)" if len(found.problems) > 3 else ""
        raise DataError(" ".join(found.problems[:3]) + more)
    if found.class_pixels.sum() == 0:
        raise DataError(
            f"No pixel of the {what} scenes has a class: all are ignored or without data. Check [data].ignore."
        )
