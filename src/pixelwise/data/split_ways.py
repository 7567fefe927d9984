"""Ways to divide whole scenes: as folders, annotations or a table say, in groups, and with each class in each part."""

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixelwise.config import DataConfig, as_places
from pixelwise.data.folder import image_place
from pixelwise.data.footprints import overlapping_groups
from pixelwise.data.part_names import part_named
from pixelwise.data.scenes import Scene
from pixelwise.errors import ConfigError
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE
from pixelwise.source_name import is_local

STRIP_PIXELS = 1 << 22
IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path", "name", "id", "image_id")
"""Of a table, the first column of these names holds the images; else its first one does."""


def scene_groups(scenes: Sequence[Scene], data: DataConfig) -> list[list[int]]:
    """Return scenes that stay together: they share ground, or ``[data].group`` finds the same in their paths.

    Raises:
        ConfigError: an expression that is wrong, or that finds nothing in a path.
    """
    groups = overlapping_groups([scene.info for scene in scenes])
    if data.group is None:
        return groups
    try:
        expression = re.compile(data.group)
    except re.error as error:
        raise ConfigError(
            f"[data].group is {data.group!r}, which is no regular expression: {error}.", code="PW310"
        ) from None
    named: dict[str, int] = {}
    group = {i: number for number, members in enumerate(groups) for i in members}
    for i, scene in enumerate(scenes):
        place = image_place(scene.info.path, as_places(data.images))
        found = expression.search(place)
        if found is None:
            raise ConfigError(
                f"[data].group is {data.group!r}, which finds nothing in {place!r}. Change it, so that it finds the "
                "group of every image.",
                code="PW310",
            )
        text = (found[1] if expression.groups else found[0]) or ""
        old, new = group[i], named.setdefault(text, group[i])
        group = {j: new if number == old else number for j, number in group.items()}
        named = {text: new if number == old else number for text, number in named.items()}
    return [[i for i in group if group[i] == number] for number in dict.fromkeys(group.values())]


def given_parts(scenes: Sequence[Scene], data: DataConfig) -> dict[int, str] | None:
    """Return the part of each scene, as annotations or the names of folders say; None if nobody asked for that.

    Raises:
        ConfigError: ``[data].split`` is 'given', and scenes are in no part.
    """
    asked = data.split == "given"
    if not asked and (data.split == "shares" or data.annotations is None):
        return None
    # Folders above all images divide nothing, whatever they are called.
    local = [scene.info.path.parent for scene in scenes if is_local(scene.info.path)]
    top = Path(os.path.commonpath([folder.absolute() for folder in local])) if local else Path("/")
    parts = {i: scene.given or _part_of_folder(scene.info.path.absolute(), top) for i, scene in enumerate(scenes)}
    nowhere = [scenes[i].info.path for i, part in parts.items() if part is None]
    if not asked and (nowhere or len(set(parts.values())) < 2):
        return None
    if nowhere:
        raise ConfigError(
            f"[data].split is 'given', but {len(nowhere)} images, such as {nowhere[0]}, are in no folder called train, "
            "val or test, and no annotations name their part. Move them, or choose split = 'shares'.",
            code="PW310",
        )
    return {i: part for i, part in parts.items() if part is not None}


def _part_of_folder(path: Path, top: Path) -> str | None:
    folders = reversed(path.parent.relative_to(top).parts) if path.is_relative_to(top) else ()
    return next((part for folder in folders if (part := part_named(folder))), None)


def table_parts(scenes: Sequence[Scene], data: DataConfig) -> dict[int, str]:
    """Return the part of each scene that ``[data].split_table`` names. Others are left out.

    Raises:
        ConfigError: no such table or column, a word that is no part, or a line that names no image or several.
    """
    path = data.split_table
    assert path is not None
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"Reading [data].split_table {path} failed: {error}.", code="PW310") from None
    columns = list(rows[0]) if rows else []
    if data.split_column not in columns:
        raise ConfigError(
            f"{path} has no column {data.split_column!r}; it has {', '.join(map(str, columns)) or 'none'}. Name "
            "the one that holds train, val or test with [data].split_column.",
            code="PW310",
        )
    image_column = next((name for name in IMAGE_COLUMNS if name in columns), columns[0])
    known: dict[str, set[int]] = {}
    for i, scene in enumerate(scenes):
        place = image_place(scene.info.path, as_places(data.images))
        for name in (place, place.rpartition(".")[0], scene.info.path.name, scene.info.path.stem):
            known.setdefault(name, set()).add(i)
    parts: dict[int, str] = {}
    for number, row in enumerate(rows):
        part, name = part_named(row[data.split_column] or ""), Path(row[image_column] or "").as_posix()
        if part is None:
            raise ConfigError(
                f"{path}, line {number + 2}: {row[data.split_column]!r} is no part. Write train, val or test.",
                code="PW310",
            )
        found = known.get(name, set())
        if len(found) != 1:
            several = f"{len(found)} images" if found else "no image"
            raise ConfigError(f"{path}, line {number + 2}: {name!r} names {several} in [data].images.", code="PW310")
        if parts.setdefault(next(iter(found)), part) != part:
            raise ConfigError(
                f"{path} has {name!r} in {parts[next(iter(found))]} and in {part}. Keep it in one.", code="PW310"
            )
    return parts


def classes_of(scene: Scene) -> frozenset[int]:
    """Return the classes that a scene has pixels of; its labels are read, and its image is not."""
    rows = max(1, STRIP_PIXELS // scene.info.width)
    found: set[int] = set()
    for top in range(0, scene.info.height, rows):
        strip = Window(top, 0, min(rows, scene.info.height - top), scene.info.width)
        found |= set(np.unique(scene.labels.read(strip)).tolist())
    return frozenset(found - {IGNORE})


def stratified(
    present: Sequence[frozenset[int]], area: Sequence[int], shares: dict[str, float], rng: np.random.Generator
) -> list[str]:
    """Return the part of each group, so that each class is in each part where that can be.

    The rarest class goes first, as in iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): each part that
    lacks it gets a group that has it, and of these the one with most other classes that the part lacks. What is left
    goes where the share lacks most.

    Args:
        present: the classes of each group.
        area: the size of each group.
        shares: part -> its share; they add up to 1.
    """
    part_of: dict[int, str] = {}
    order = rng.permutation(len(present)).tolist()
    has: dict[str, set[int]] = {part: set() for part in shares}

    def put(group: int, part: str) -> None:
        part_of[group] = part
        has[part] |= present[group]

    counts = {label: sum(label in each for each in present) for each in present for label in each}
    for label in sorted(counts, key=lambda each: (counts[each], each)):
        for part in shares:
            free = [g for g in order if g not in part_of]
            holders = [g for g in free if label in present[g]]
            # Something must stay for each part that is empty still.
            others = set(shares) - set(part_of.values()) - {part}
            if label not in has[part] and holders and len(free) > len(others):
                put(max(holders, key=lambda g: (len(present[g] - has[part]), -area[g])), part)
    # A part may be empty still, where classes are few.
    for part in shares:
        free = [g for g in order if g not in part_of]
        if free and part not in part_of.values():
            put(min(free, key=lambda g: area[g]), part)
    total = sum(area)
    for group in order:
        if group not in part_of:
            taken = {part: sum(area[g] for g, other in part_of.items() if other == part) for part in shares}
            put(group, max(shares, key=lambda part: shares[part] - taken[part] / total))
    return [part_of[group] for group in range(len(present))]
