"""Annotations of other tools among the files of a folder: which images they describe, and which classes they use."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.annotations import Annotations, read, recognise
from pixelwise.data.survey.classes import Ask, ClassTable
from pixelwise.data.survey.groups import Group
from pixelwise.data.survey.names import VOID
from pixelwise.data.survey.walk import Files
from pixelwise.errors import PixelwiseError

SUFFIXES = (".json", ".xml", ".csv", ".ndjson", ".txt")
TRIED = 40
"""Files of a folder that are looked at."""
FEW_MISSING = 0.1
"""If more of the images that annotations name are not there, they are left out; else `check` names them."""


@dataclass
class Drawn:
    """Images, the classes that are drawn on them, and keys of ``[data]``."""

    images: list[Path]
    classes: ClassTable
    data: dict[str, object] = field(default_factory=dict)


def annotated_images(folder: Path, groups: Sequence[Group], files: Files, ask: Ask, reasons: list[str]) -> Drawn | None:
    """Find annotations that describe images of a folder; None where there are none.

    Args:
        groups: of images; empty where there are none, since some formats hold them in their own files.
        reasons: gets a sentence for each that is of no use.
    """
    # Without images here, those of the annotations may lie beside the folder.
    top = _common_folder([group.folder for group in groups], folder) if groups else folder.absolute().parent
    found: list[tuple[int, Path, Annotations]] = []
    for place in _places(folder, files):
        try:
            told = read(place, images=[top] if groups or place.is_file() else [place])
        except PixelwiseError as problem:
            reasons.append(f"{place.name} looks like annotations ({recognise(place)}), but: {problem}")
            continue
        drawn = sum(image.annotated for image in told.images)
        if drawn:
            found.append((drawn, place, told))
        else:
            shown = ", ".join(told.missing[:3]) + (" ..." if len(told.missing) > 3 else "")
            reasons.append(
                f"{place.name} holds annotations ({told.format}) of {len(told.missing)} images that are not here: "
                f"{shown}. Put these images into the folder, under these names."
            )
    if not found:
        return None
    found.sort(key=lambda each: -each[0])
    best = [each for each in found if each[0] == found[0][0]]
    # A folder and the only file in it are the same annotations; the shorter path is kept.
    best = [each for each in best if not any(other[1] in each[1].parents for other in best)]
    chosen = 0
    if len(best) > 1:
        chosen = ask("Several annotations describe the images. Which are the labels?", [str(b[1].name) for b in best])
    return _drawn(best[chosen][2], best[chosen][1], top)


def _common_folder(folders: Sequence[Path], folder: Path) -> Path:
    distinct = list(dict.fromkeys(folders))
    return distinct[0] if len(distinct) == 1 else folder


def _places(folder: Path, files: Files) -> list[Path]:
    """Return files and folders that are annotations of a known format; a folder instead of many files of its own."""
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        name = recognise(place)
        if name in ("roboflow", "supervisely", "yolo", "huggingface", "cityscapes", "voc"):
            return [place]
    by_folder: dict[Path, list[Path]] = {}
    for path in files.others:
        if path.suffix.lower() in SUFFIXES:
            by_folder.setdefault(path.parent, []).append(path)
    places: list[Path] = []
    for parent, paths in by_folder.items():
        known = {path: name for path in paths[:TRIED] if (name := recognise(path)) is not None and name != "lists"}
        if len(known) > 1 and len(set(known.values())) == 1 and recognise(parent) == next(iter(known.values())):
            places.append(parent)
        else:
            places += known
    return places


def _drawn(told: Annotations, place: Path, top: Path) -> Drawn:
    images = [image for image in told.images if image.annotated]
    counts = Counter(region.name for image in images for region in image.regions)
    names = [
        name
        for name in dict.fromkeys([*told.classes, *counts])
        if name and name.lower() not in ("background", "_background_")
    ]
    void = [name for name in names if VOID.search(name) or name in told.ignorable]
    masks = any(image.mask is not None for image in images)
    used = [name for name in names if name not in void and (counts[name] or masks)]
    table = ClassTable(["background", *(used or ["object"])])
    table.saw.append(
        f"{len(images)} images in {top.name}, with annotations in {place.name} ({told.format}): "
        f"{sum(counts.values()):,} regions."
    )
    if used:
        shown = ", ".join(f"{name} ({counts[name]:,})" if counts[name] else name for name in used[:12])
        table.saw.append(
            f"Classes in the annotations: {shown}{f' and {len(used) - 12} more' if len(used) > 12 else ''}."
        )
    else:
        table.guessed.append("The annotations name no class, so all regions are one class, 'object'; give it its name.")
    absent = [name for name in names if name not in used and name not in void]
    if absent:
        table.guessed.append(f"Nothing is drawn of {', '.join(absent[:8])}, so they are left out.")
    if void:
        table.ignore = [*void]
        table.guessed.append(f"{', '.join(void)} is no class: it is ignored.")
    table.guessed.append("Pixels outside of all regions are 'background'. Are they unlabelled? Then drop that class.")
    table.saw += told.notes
    colours = [told.classes.get(name) for name in used]
    if used and None not in colours and len(set(colours)) == len(colours):
        table.palette = ["#000000", *("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours if colour)]
    data: dict[str, object] = {"images": top, "annotations": place}
    if len(told.missing) > FEW_MISSING * (len(images) + len(told.missing)):
        data["missing_images"] = "leave_out"
        table.guessed.append(
            f"{len(told.missing)} images that the annotations name are not here ({told.missing[0]} ...): left out."
        )
    if all(image.part for image in told.images):
        data["split"] = "given"
        table.guessed.append("The annotations say which image is in which part.")
    return Drawn([image.path for image in images], table, data)
