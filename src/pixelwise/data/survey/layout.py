"""Where images and masks lie, as the places and patterns that a configuration has for them."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelwise.data.folder import MASK_ENDINGS, Naming, pair_masks
from pixelwise.data.survey.pairing import Affixes, Pairs
from pixelwise.errors import PixelwiseError


@dataclass
class Layout:
    """Images and masks of one part."""

    images: list[Path]
    """Folders or files."""
    masks: list[Path]
    naming: Naming = field(default_factory=Naming)
    pairs: list[tuple[Path, Path]] = field(default_factory=list)
    alone: list[Path] = field(default_factory=list)
    """Images without a mask."""


def layout_of(found: Sequence[Pairs]) -> Layout:
    """Return the fewest places that hold some pairs."""
    naming = Naming(_image_pattern(found), _mask_pattern(found[0].mask_names))
    kept = [pairs for pairs in found if (pairs.image_names, pairs.mask_names) == _most(found)]
    pairs = [pair for each in kept for pair in each.paired]
    alone = [path for each in kept for path in each.alone]
    folders = [(each.images.folder, each.masks.folder) for each in kept]
    roots = [(Path(os.path.commonpath(side)),) for side in zip(*folders, strict=True)]
    tried = [
        Layout([*roots[0]], [*roots[1]], naming, pairs, alone),
        Layout([image for image, _ in folders], [mask for _, mask in folders], naming, pairs, alone),
    ]
    for layout in tried:
        for each in _namings(layout, kept):
            if _holds(replace(layout, naming=each)):
                return replace(layout, naming=each)
    return Layout([image for image, _ in pairs], [mask for _, mask in pairs], Naming(), pairs, alone)


def _most(found: Sequence[Pairs]) -> tuple[Affixes, Affixes]:
    votes: Counter[tuple[Affixes, Affixes]] = Counter()
    for pairs in found:
        votes[pairs.image_names, pairs.mask_names] += len(pairs.paired)
    return votes.most_common(1)[0][0]


def _image_pattern(found: Sequence[Pairs]) -> str | None:
    return _most(found)[0].pattern


def _mask_pattern(names: Affixes) -> str | None:
    return None if not names.before and names.behind in MASK_ENDINGS else names.pattern


def _namings(layout: Layout, kept: Sequence[Pairs]) -> list[Naming]:
    """Return patterns to try: the plainest first, then with the files' suffixes."""
    image, mask = _most(kept)
    suffixes = [{path.suffix for path in side} for side in zip(*layout.pairs, strict=True)]
    plain = Naming(image.pattern, _mask_pattern(mask))
    tried = [plain, Naming(image.pattern, mask.pattern or "{name}"), Naming(None, plain.mask)]
    if all(len(each) == 1 for each in suffixes):
        ends = [each.copy().pop() for each in suffixes]
        tried.append(Naming((image.pattern or "{name}") + ends[0], (mask.pattern or "{name}") + ends[1]))
        tried.append(Naming((image.pattern or "{name}") + ends[0], plain.mask))
    return tried


def _holds(layout: Layout) -> bool:
    """Return whether the places give just the pairs, and miss only masks that are not there."""
    found: set[tuple[Path, Path]] = set()
    missing = 0
    places = zip(layout.images, layout.masks, strict=True)
    try:
        for images, masks in places:
            pairs, problems = pair_masks(images, masks, layout.naming)
            found |= set(pairs)
            missing += len(problems)
    except PixelwiseError:
        return False
    return found == set(layout.pairs) and missing == len(layout.alone)
