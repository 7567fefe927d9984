"""A configuration for a folder, with what was seen and what was guessed."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.survey.annotated import Drawn, annotated_images
from pixelwise.data.survey.bands import choose_bands
from pixelwise.data.survey.classes import Ask, ClassTable, classes_of_masks
from pixelwise.data.survey.drawn import drawn_labels, unread
from pixelwise.data.survey.groups import Group, grouped_files
from pixelwise.data.survey.layout import Layout, layout_of
from pixelwise.data.survey.lists import find_lists
from pixelwise.data.survey.look import mask_word
from pixelwise.data.survey.names import find_name_files
from pixelwise.data.survey.pairing import Affixes, Pairs, find_pairs, part_of
from pixelwise.data.survey.settings import choose_settings
from pixelwise.data.survey.values import read_values
from pixelwise.data.survey.walk import Files, walked
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.raster import RasterInfo, describe

HEADERS = 2000
"""Images whose headers are read, evenly over all."""
FEW_ALONE = 0.1
"""If a smaller share of images has no mask, masks are missing by mistake, which `check` then says."""


DERIVED = re.compile(r"(?i)vis|overlay|blend|preview|thumb|color|colour|drawn")
"""In the names of pictures that were made from images and masks."""
COLOURS = 3
"""Bands of the images of ImageNet."""


@dataclass
class Proposal:
    """Tables of a configuration, with paths as they are on disk."""

    folder: Path
    data: dict[str, object] = field(default_factory=dict)
    model: dict[str, object] = field(default_factory=dict)
    train: dict[str, object] = field(default_factory=dict)
    saw: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    """What to do with what is left out, such as a folder for a test."""


@dataclass(frozen=True)
class Machine:
    """What a network may use."""

    gpu: bool = False
    memory: int | None = None
    pretrained: bool = False
    """Whether the extra of that name is installed, whose encoder knows ImageNet."""


def propose(folder: Path, *, machine: Machine, ask: Ask, say: Callable[[str], None] | None = None) -> Proposal:
    """Look at a folder and propose a configuration.

    Args:
        ask: where two readings are equally likely.
        say: called with what is being read.

    Raises:
        DataError: nothing can be made of the folder; says what was seen, and what is missing.
        ConfigError: no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"There is no folder {folder}. Name the folder that holds your images and masks.", code="PW401"
        )
    tell = say or (lambda _: None)
    files = walked(folder)
    proposal = Proposal(folder)
    tell(f"Looking at {len(files.rasters)} rasters in {folder}.")
    groups = grouped_files(files.rasters)
    pairs = find_pairs(groups, folder) or _single(groups)
    if pairs:
        classes, infos, images, divided = _from_masks(pairs, groups, files, proposal, ask, tell)
    else:
        seen = [group for group in groups if group.looks]
        drawn = drawn_labels(folder, seen, files, ask) if seen else _without_images(folder, files, ask)
        classes, infos, images = drawn.classes, _headers(drawn.images), len(drawn.images)
        proposal.data |= drawn.data
        divided = "split" in drawn.data or "validation_images" in drawn.data
    if len(classes.names) < 2:
        raise DataError(
            f"The masks in {folder} hold one value only, so there is nothing to learn. {' '.join(classes.saw)} "
            "Give masks with at least two classes.",
            code="PW415",
        )
    _add_classes(proposal, classes)
    bands = choose_bands(infos)
    proposal.data |= bands.data
    rarest = min((share for share in classes.shares.values() if share > 0), default=1.0)
    colours = bands.count == COLOURS
    settings = choose_settings(
        infos,
        images,
        rarest,
        gpu=machine.gpu,
        memory=machine.memory,
        divided=divided,
        pretrained=colours and machine.pretrained,
    )
    if colours and not machine.pretrained:
        settings.guessed.append(
            "An encoder that knows ImageNet scores higher in the same time. For it: pip install "
            "'pixelwise[pretrained]', then `pixelwise init` again with --force."
        )
    proposal.data |= settings.data
    proposal.model, proposal.train = settings.model, settings.train
    proposal.saw += [*bands.saw, *classes.saw]
    proposal.guessed += [*classes.guessed, *bands.guessed, *settings.guessed]
    return proposal


def _without_images(folder: Path, files: Files, ask: Ask) -> Drawn:
    """Return what annotations describe that lie alone in a folder: they hold the images, or these lie beside it.

    Raises:
        DataError: it has none; says what it has.
    """
    reasons: list[str] = []
    drawn = annotated_images(folder, [], files, ask, reasons)
    if drawn is None:
        reasons = [*unread(files), *reasons]
        raise DataError(
            f"{folder} holds no images ({_counted(files)}). {' '.join(reasons[:3])}".strip()
            + (
                ""
                if reasons
                else " Name a folder that holds images (PNG, JPEG, TIFF, ...) and their masks or polygons."
            ),
            code="PW402",
        )
    return drawn


def _counted(files: Files) -> str:
    kinds = Counter(path.suffix.lower() or "no suffix" for path in [*files.rasters, *files.others])
    return ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(6)) or "it is empty"


def _single(groups: Sequence[Group]) -> list[Pairs]:
    """Pair two files of one size, scene.tif and labels.tif, where a folder holds no others."""
    singles = [group for group in groups if len(group.paths) == 1 and group.looks]
    if len(groups) == 1 and len(groups[0].paths) == 2 and len(groups[0].looks) == 2:
        group = groups[0]
        singles = [Group(group.folder, (path,)) for path in group.paths]
    if len(singles) != 2 or singles[0].looks[0].size != singles[1].looks[0].size:
        return []
    image, mask = sorted(singles, key=lambda group: group.maskness)
    if not mask.could_be_masks or mask.maskness == image.maskness:
        return []
    names = (Affixes(image.stems[0], ""), Affixes(mask.stems[0], ""))
    return [Pairs(image, mask, *names, ((image.paths[0], mask.paths[0]),))]


def _headers(images: Sequence[Path]) -> list[RasterInfo]:
    found = []
    for path in images[:: max(1, -(-len(images) // HEADERS))]:
        try:
            found.append(describe(path))
        except DataError:
            # `check` names it.
            continue
    if not found:
        raise DataError(f"No image can be read; the first one is {images[0]}. Copy them again.", code="PW403")
    return found


def _from_masks(
    pairs: Sequence[Pairs],
    groups: Sequence[Group],
    files: Files,
    proposal: Proposal,
    ask: Ask,
    tell: Callable[[str], None],
) -> tuple[ClassTable, list[RasterInfo], int, bool]:
    """Fill in places of images and masks; return classes, headers, the number of images, and if they are divided."""
    folder, data = proposal.folder, proposal.data
    pairs = _one_kind(pairs, proposal, ask)
    parts: dict[str, list[Pairs]] = {}
    for each in pairs:
        parts.setdefault(part_of(each.images.folder, folder) or "training", []).append(each)
    if "training" not in parts:
        parts = {"training": [*pairs]}
    layouts = {part: layout_of(found) for part, found in parts.items()}
    _unused(groups, pairs, proposal)
    _rivals(pairs, proposal)
    _resized(pairs, proposal)
    training = layouts["training"]
    _add_places(data, training)
    for part, layout in layouts.items():
        said = (
            f"{len(layout.pairs)} images with masks for {part}"
            if len(layouts) > 1
            else f"{len(layout.pairs)} images with masks"
        )
        proposal.saw.append(
            f"{said}: {_place(layout.images, folder)} and {_place(layout.masks, folder)}{_named(layout)}."
        )
    _alone(training, proposal)
    validation = layouts.get("validation")
    if validation is not None and validation.naming == training.naming:
        data["validation_images"], data["validation_labels"] = _one(validation.images), _one(validation.masks)
        proposal.guessed.append("The folder's own part for validation is kept for that.")
    elif validation is not None:
        proposal.later.append(f"{_place(validation.images, folder)} has other names than the rest, so it is left out.")
    if (test := layouts.get("test")) is not None:
        proposal.later.append(
            f"{_place(test.images, folder)} is kept for a test, so training never reads it. Score it later: pixelwise "
            f"evaluate RUN CONFIG --set data.images={_one(test.images)} --set data.labels={_one(test.masks)}"
        )
    lists = {} if validation else find_lists(files.others, training)
    data |= lists
    if lists:
        proposal.guessed.append(
            f"The lists {', '.join(p.name for p in lists.values())} say which image is in which part."
        )
    used = [layout for part, layout in layouts.items() if part != "test"]
    tell(f"Reading {sum(len(layout.pairs) for layout in used)} masks.")
    found = read_values([mask for layout in used for _, mask in layout.pairs])
    if found.masks < found.of:
        proposal.saw.append(f"Values were read in {found.masks} of the {found.of} masks.")
    places = [mask.relative_to(folder).with_suffix("").as_posix() for _, mask in training.pairs[:20]]
    classes = classes_of_masks(found, find_name_files(files.others), places, ask)
    images = [image for image, _ in training.pairs]
    return classes, _headers(images), len(images), validation is not None or bool(lists)


def _unused(groups: Sequence[Group], pairs: Sequence[Pairs], proposal: Proposal) -> None:
    """Name folders of images that no mask belongs to."""
    used = {folder for each in pairs for folder in (each.images.folder, each.masks.folder)}
    for group in groups:
        if group.folder not in used and not group.could_be_masks and len(proposal.later) < 5:
            place = _place([group.folder], proposal.folder)
            proposal.later.append(f"{place} holds {len(group.paths)} images without masks ({group.paths[0].name} ...).")


def _rivals(pairs: Sequence[Pairs], proposal: Proposal) -> None:
    """Name masks of the same images that were not chosen."""
    others = {_name_of(group, each.masks): None for each in pairs for group in each.rivals}
    if others:
        chosen = ", ".join(dict.fromkeys(_name_of(each.masks, *each.rivals) for each in pairs if each.rivals))
        proposal.guessed.append(
            f"Labels are the masks {chosen}. The same images have others, which are left out: "
            f"{', '.join([*others][:5])}."
        )


def _name_of(group: Group, *others: Group) -> str:
    """Return what tells a group of masks from others: its word, or its folder."""
    if group.word and any(other.folder == group.folder for other in others):
        return group.word
    named = [part for part in group.folder.parts if any(part not in other.folder.parts for other in others)]
    return "/".join(named) or group.word or group.folder.name


def _resized(pairs: Sequence[Pairs], proposal: Proposal) -> None:
    """Say that masks have another size than their images."""
    image, mask = pairs[0].paired[0]
    try:
        one, other = describe(image), describe(mask)
    except DataError:
        # `check` names it.
        return
    if (one.height, one.width) != (other.height, other.width):
        proposal.guessed.append(
            f"{mask.name} is {other.width}x{other.height} pixels, and its image {one.width}x{one.height}. Masks must "
            "have the size of their images: `pixelwise check --fix` writes such copies."
        )


def _one_kind(pairs: Sequence[Pairs], proposal: Proposal, ask: Ask) -> list[Pairs]:
    """Keep one group of images for each group of masks: other sensors, or the same photos with masks drawn over."""
    by_masks: dict[int, list[Pairs]] = {}
    for each in pairs:
        by_masks.setdefault(id(each.masks), []).append(each)
    names = {kind: None for those in by_masks.values() if len(those) > 1 for kind in map(_kind, those)}
    if not names:
        return [*pairs]
    doubt = {kind: mask_word(kind) + 2 * bool(DERIVED.search(kind)) for kind in names}
    kinds = sorted(names, key=lambda kind: doubt[kind])
    likely = [kind for kind in kinds if doubt[kind] == doubt[kinds[0]]]
    question = "Several folders hold images for the same masks. Which are the images?"
    chosen = likely[ask(question, likely) if len(likely) > 1 else 0]
    others = ", ".join(kind for kind in kinds if kind != chosen)
    proposal.guessed.append(f"Images are those in {chosen}; {others} has the same masks and is left out.")
    return [each for those in by_masks.values() for each in those if len(those) == 1 or _kind(each) == chosen]


def _kind(pairs: Pairs) -> str:
    """Return what tells a group of images from others with the same masks."""
    own, other = pairs.images.folder.parts, pairs.masks.folder.parts
    named = [part for part in own if part not in other]
    return "/".join(named) or pairs.images.word or pairs.images.paths[0].suffix


def _add_places(data: dict[str, object], layout: Layout) -> None:
    data["images"], data["labels"] = _one(layout.images), _one(layout.masks)
    if layout.naming.image:
        data["image_pattern"] = layout.naming.image
    if layout.naming.mask:
        data["mask_pattern"] = layout.naming.mask


def _one(places: Sequence[Path]) -> Path | list[Path]:
    return places[0] if len(places) == 1 else [*places]


def _place(places: Sequence[Path], folder: Path) -> str:
    named = [os.path.relpath(place, folder) for place in places[:3]]
    named = ["the folder itself" if name == "." else name for name in named]
    return ", ".join(named) + (f" and {len(places) - 3} more" if len(places) > 3 else "")


def _named(layout: Layout) -> str:
    naming = layout.naming
    if naming.image is None and naming.mask is None:
        return ", paired by their names"
    return f", paired as {naming.image or '{name}'} with {naming.mask or '{name}'}"


def _alone(layout: Layout, proposal: Proposal) -> None:
    """Say what becomes of images without a mask."""
    count, all_images = len(layout.alone), len(layout.alone) + len(layout.pairs)
    if not count:
        return
    shown = ", ".join(path.name for path in layout.alone[:3]) + (" ..." if count > 3 else "")
    if count > max(2, FEW_ALONE * all_images):
        proposal.data["missing_masks"] = "leave_out"
        proposal.guessed.append(f"{count} of {all_images} images have no mask ({shown}): they are left out.")
    else:
        proposal.saw.append(f"{count} of {all_images} images have no mask ({shown}); `pixelwise check` says so.")


def _add_classes(proposal: Proposal, classes: ClassTable) -> None:
    data = proposal.data
    data["classes"] = classes.names
    for key, value in (
        ("values", classes.values),
        ("ignore", classes.ignore),
        ("palette", classes.palette),
        ("other_values", classes.other_values),
    ):
        if value is not None:
            data[key] = value
