"""Which group of masks belongs to which group of images, and how their names go together."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

from pixelwise.data.survey.groups import Group, tokens

SAMPLE = 6
"""Names from which a pattern is read."""
FEW = 24
"""Among so few groups each is compared with each."""


MANY = 2000
"""Of so many pairs of groups, those that both look like masks are not compared."""
PART = re.compile(r"(?:^|[_\-. ])(train|training|val|valid|validation|dev|test|testing)(?:$|[_\-. ])", re.IGNORECASE)


def part_of(folder: Path, root: Path) -> str | None:
    """Return the part that a folder's name says: 'training', 'validation' or 'test'; None if it says none."""
    for name in reversed(folder.relative_to(root).parts):
        if (match := PART.search(name)) is not None:
            return {"tr": "training", "te": "test"}.get(match[1].lower()[:2], "validation")
    return None


@dataclass(frozen=True)
class Affixes:
    """What stands before and behind the common part of names."""

    before: str
    behind: str

    def core(self, stem: str) -> str | None:
        """Return the common part of a name; None if it is built otherwise."""
        if len(stem) <= len(self.before) + len(self.behind):
            return None
        if not stem.startswith(self.before) or not stem.endswith(self.behind):
            return None
        return stem[len(self.before) : len(stem) - len(self.behind)]

    @property
    def pattern(self) -> str | None:
        """The pattern for a configuration; None where the name is all of it."""
        return f"{self.before}{{name}}{self.behind}" if self.before or self.behind else None


@dataclass(frozen=True)
class Pairs:
    """A group of images with its masks."""

    images: Group
    masks: Group
    image_names: Affixes
    mask_names: Affixes
    paired: tuple[tuple[Path, Path], ...]
    rivals: tuple[Group, ...] = ()
    """Other groups of masks of the same images, which were not chosen."""

    @property
    def alone(self) -> list[Path]:
        """Images without a mask."""
        having = {image for image, _ in self.paired}
        return [path for path in self.images.paths if path not in having]


def find_pairs(groups: Sequence[Group], root: Path) -> list[Pairs]:
    """Find the masks of each group of images that has some; each group of images once.

    Args:
        root: the folder that holds all; names below it may say a part, which images and masks have in common.
    """
    found = _pairs_among(_candidates(groups), root)
    if len(groups) <= FEW and (not found or _masks_for_images(found, groups)):
        # Folders that lie at other depths: images/ and annotations/masks/.
        found = _pairs_among(list(combinations(groups, 2)), root)
    if not found:
        found = _pairs_among(_candidates(groups), root, resized=True)
    # A group that is the masks of another is no image, however it looks.
    masks = {id(pairs.masks) for pairs in found if not _image_of_better(pairs, found)}
    best: dict[int, Pairs] = {}
    for pairs in sorted(found, key=_preference):
        if id(pairs.images) not in masks:
            best[id(pairs.images)] = pairs
    return [
        replace(
            pairs, rivals=tuple(other.masks for other in found if other.images is pairs.images and other is not pairs)
        )
        for pairs in found
        if best.get(id(pairs.images)) is pairs
    ]


def _masks_for_images(found: Sequence[Pairs], groups: Sequence[Group]) -> bool:
    """Return whether masks of two kinds were paired with each other, while photos were left over."""
    used = {id(group) for pairs in found for group in (pairs.images, pairs.masks)}
    left = any(group.looks and not group.could_be_masks and id(group) not in used for group in groups)
    return left and any(pairs.images.could_be_masks for pairs in found)


def _pairs_among(candidates: Sequence[tuple[Group, Group]], root: Path, *, resized: bool = False) -> list[Pairs]:
    """Return pairs of groups whose names go together.

    Args:
        resized: masks may be of another size than their images, in the same proportions; `check` says so then.
    """
    found: list[Pairs] = []
    for one, other in candidates:
        if not (one.could_be_masks or other.could_be_masks):
            continue
        if len(candidates) > MANY and min(one.maskness, other.maskness) > 1:
            # Masks of two places, of which there may be hundreds.
            continue
        parts = {part_of(group.folder, root) for group in (one, other)} - {None}
        together = None if len(parts) > 1 else matched(one, other)
        if together is None:
            continue
        names_one, names_other, paired = together
        if not _sizes_fit(one, other, paired, resized=resized):
            continue
        if one.maskness > other.maskness:
            one, other, names_one, names_other = other, one, names_other, names_one
            paired = tuple((b, a) for a, b in paired)
        if other.could_be_masks and other.maskness > one.maskness:
            found.append(Pairs(one, other, names_one, names_other, paired))
    return found


def _image_of_better(pairs: Pairs, found: Sequence[Pairs]) -> bool:
    """Return whether the masks of some pairs are themselves images with flatter masks (rgb, rgb smoothed, mask)."""
    return any(other.images is pairs.masks and not other.images.could_be_masks for other in found)


def _preference(pairs: Pairs) -> tuple[int, int, float]:
    """Sort pairs from the worst masks to the best: complete, class numbers before colours, those before instances."""
    text = f"{pairs.masks.folder.name} {pairs.mask_names.pattern or ''} {pairs.masks.word}".lower()
    # What is the same in all files, such as the field of view of a microscope, is no label.
    kind = -4 if pairs.masks.constant else -2 if "instance" in text and "color" not in text else 0
    kind += 2 if "trainid" in text else 1 if "labelid" in text else 0
    kind -= 1 if "color" in text or "colour" in text or "vis" in text.split("_") else 0
    # The photo that looks least like a mask is the image of a mask; others are masks of another kind.
    whole = round(4 * len(pairs.paired) / len(pairs.images.paths))
    same = pairs.image_names.before == pairs.mask_names.before
    return whole + same, kind, pairs.masks.maskness - pairs.images.maskness


def _candidates(groups: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Return groups in one folder, in folders that differ in one part, or where one folder is in the other's parent."""
    places: dict[tuple, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        parts = group.folder.parts
        for at in range(len(parts)):
            places[(*parts[:at], None, *parts[at + 1 :])].append(i)
        places[parts].append(i)
        # Below the folder of another: x.jpg and masks/x.png.
        places[parts[:-1]].append(i)
    close = {(a, b) for near in places.values() for n, a in enumerate(near) for b in near[n + 1 :] if a != b}
    by_folder = {(min(pair), max(pair)) for pair in close}
    return [(groups[a], groups[b]) for a, b in sorted(by_folder)]


def matched(one: Group, other: Group) -> tuple[Affixes, Affixes, tuple[tuple[Path, Path], ...]] | None:
    """Return how names of two groups go together, and the pairs; None where they do not."""
    few, many = (one, other) if len(one.paths) <= len(other.paths) else (other, one)
    votes: Counter[tuple[Affixes, Affixes]] = Counter()
    step = max(1, len(few.paths) // SAMPLE)
    known = [tokens(stem) for stem in many.stems]
    exact = set(many.stems)
    for stem in few.stems[::step][:SAMPLE]:
        if stem in exact:
            votes[Affixes("", ""), Affixes("", "")] += 2
            continue
        own = tokens(stem)
        near = sorted(known, key=lambda cut: -_common(own, cut)[0])[:3]
        for cut in near:
            if (names := _affixes(own, cut)) is not None:
                votes[names] += 1
    best: tuple[int, Affixes, Affixes, dict[str, Path], dict[str, Path]] | None = None
    for a, b in [names for names, _ in votes.most_common(6)]:
        mine = {core: path for path in few.paths if (core := a.core(path.stem)) is not None}
        theirs = {core: path for path in many.paths if (core := b.core(path.stem)) is not None}
        count = len(mine.keys() & theirs.keys())
        if best is None or count > best[0]:
            best = (count, a, b, mine, theirs)
    if best is None or best[0] < max(1, 0.5 * len(few.paths)):
        return None
    _, a, b, mine, theirs = best
    cores = sorted(mine.keys() & theirs.keys())
    if few is one:
        return a, b, tuple((mine[core], theirs[core]) for core in cores)
    return b, a, tuple((theirs[core], mine[core]) for core in cores)


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[int, int, int, int]:
    """Return the length in letters of the longest common run of tokens, where it begins, and its tokens."""
    match = SequenceMatcher(None, one, other, autojunk=False).find_longest_match()
    letters = sum(len(token) for token in one[match.a : match.a + match.size] if token[0].isalnum())
    numbers = sum(token.isdigit() for token in one[match.a : match.a + match.size])
    return letters + 8 * numbers, match.a, match.b, match.size


def _affixes(one: Sequence[str], other: Sequence[str]) -> tuple[Affixes, Affixes] | None:
    letters, a, b, size = _common(one, other)
    if not letters:
        return None
    core = one[a : a + size]
    # Separators belong to what is around the common part: {name}_mask, not {name}mask.
    while core and not core[0][0].isalnum():
        core, a, b = core[1:], a + 1, b + 1
    while core and not core[-1][0].isalnum():
        core = core[:-1]
    size = len(core)
    return (
        Affixes("".join(one[:a]), "".join(one[a + size :])),
        Affixes("".join(other[:b]), "".join(other[b + size :])),
    )


def _sizes_fit(one: Group, other: Group, paired: Sequence[tuple[Path, Path]], *, resized: bool) -> bool:
    """Return whether most pairs that were looked at have one size, or the same proportions."""
    sizes = {look.info.path: look.size for group in (one, other) for look in group.looks}
    seen = [(sizes[a], sizes[b]) for a, b in paired if a in sizes and b in sizes]
    if not seen:
        from pixelwise.data.survey.look import look_at

        looks = [(look_at(a), look_at(b)) for a, b in paired[:3]]
        seen = [(a.size, b.size) for a, b in looks if a is not None and b is not None]
    fit = sum(abs(a[0] * b[1] - a[1] * b[0]) <= max(*a, *b) if resized else a == b for a, b in seen)
    return 2 * fit >= len(seen) > 0
