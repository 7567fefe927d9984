"""Files of one kind: those in one folder whose names are built alike."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from pixelwise.data.survey.look import Look, look_at, mask_word

SAME = 0.9
"""Intersection over union of what two files hold besides their commonest value, from which they hold the same."""
LOOKED_AT = 6
"""Files of a group that are opened."""
TOKENS = re.compile(r"\d+|[A-Za-z]+|[^A-Za-z\d]+")


def tokens(stem: str) -> list[str]:
    """Cut a name into numbers, words and what stands between them."""
    return TOKENS.findall(stem)


@dataclass(frozen=True, eq=False)
class Group:
    """Files of one folder whose names are built alike, sorted."""

    folder: Path
    paths: tuple[Path, ...]
    word: str = ""
    """What all names have, and those of other groups in the folder have not: ``mask`` of a_mask.png."""
    _looks: dict[Path, Look | None] = field(default_factory=dict)

    @cached_property
    def looks(self) -> list[Look]:
        """Looks at some files, evenly over the group; those that cannot be read are left out."""
        step = max(1, len(self.paths) // LOOKED_AT)
        return [look for path in self.paths[::step][:LOOKED_AT] if (look := look_at(path)) is not None]

    @cached_property
    def maskness(self) -> float:
        """As `Look.maskness`, of the group; a word in its names counts as a hint."""
        if not self.looks:
            return 0.0
        hint = mask_word(self.word) or mask_word(self.folder.name)
        return median(look.maskness for look in self.looks) + 0.5 * hint

    @property
    def could_be_masks(self) -> bool:
        """Whether most of its files could be masks."""
        return 2 * sum(look.could_be_mask for look in self.looks) > len(self.looks)

    @cached_property
    def constant(self) -> bool:
        """Whether its files hold nearly the same, so that they say nothing of what is in an image."""
        sketches = [look.sketch for look in self.looks]
        if len(sketches) < 2 or len({sketch.shape for sketch in sketches}) > 1:
            return False
        values, counts = np.unique(sketches[0], return_counts=True)
        shown = [sketch != values[counts.argmax()] for sketch in sketches]
        least = min((a & b).sum() / max(1, (a | b).sum()) for a, b in pairwise(shown))
        return bool(least > SAME)

    @property
    def stems(self) -> list[str]:
        """The names without suffixes."""
        return [path.stem for path in self.paths]


def grouped_files(paths: Iterable[Path]) -> list[Group]:
    """Sort files into groups by folder, suffix, and a first or last word that comes with the same numbers."""
    kinds: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        kinds[path.parent, path.suffix.lower()].append(path)
    found: list[Group] = []
    for (folder, _), same in sorted(kinds.items(), key=lambda item: str(item[0])):
        for word, members in _by_word(same).items():
            found.append(Group(folder, tuple(sorted(members)), word))
    return found


def _by_word(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Divide files whose names differ by a word: a.png, a_mask.png; image_1, mask_1; 7_sat, 7_mask."""
    if (endings := _endings(paths)) is not None:
        return endings
    for last in (True, False):
        parts: dict[str, dict[str, Path]] = defaultdict(dict)
        for path in paths:
            cut = tokens(path.stem)
            words = [i for i, token in enumerate(cut) if token.isalpha()]
            if not words or len(cut) < 2:
                break
            at = words[-1] if last else words[0]
            parts[cut[at]]["".join([*cut[:at], "*", *cut[at + 1 :]])] = path
        else:
            most = max(map(len, parts.values()))
            if 2 <= len(parts) <= 6 and min(map(len, parts.values())) >= 0.5 * most and _same_cores(parts):
                return {word: list(cores.values()) for word, cores in parts.items()}
    return {"": list(paths)}


def _same_cores(parts: dict[str, dict[str, Path]]) -> bool:
    first, *others = sorted(parts.values(), key=len)
    return all(len(first.keys() & other.keys()) >= 0.6 * len(first) for other in others)


def _endings(paths: Sequence[Path]) -> dict[str, list[Path]] | None:
    """Divide a.png from a_mask.png, where most names come both ways."""
    stems = {path.stem for path in paths}
    found: Counter[str] = Counter()
    for stem in stems:
        cut = tokens(stem)
        for i in range(1, len(cut)):
            before = "".join(cut[:i])
            if before in stems and any(token.isalpha() for token in cut[i:]):
                found["".join(cut[i:])] += 1
    common = [ending for ending, count in found.items() if count >= 0.3 * len(paths) / (1 + len(found))]
    common = [ending for ending in common if found[ending] >= max(1, 0.2 * max(found.values()))]
    if not common or sum(found[ending] for ending in common) < 0.25 * len(paths):
        return None
    parts: dict[str, list[Path]] = {"": [], **{ending: [] for ending in common}}
    for path in paths:
        fits = [e for e in common if path.stem.endswith(e) and path.stem.removesuffix(e) in stems]
        parts[max(fits, key=len) if fits else ""].append(path)
    return {word: members for word, members in parts.items() if members}
