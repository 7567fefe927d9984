"""Which images and labels a configuration names, and what is wrong with their names."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from pixelwise.config import DataConfig, as_places
from pixelwise.data.annotated import annotated_scenes
from pixelwise.data.doctor.finding import Finding, Spot
from pixelwise.data.doctor.sample import Sample
from pixelwise.data.drawing import Drawing
from pixelwise.data.folder import (
    MASK_ENDINGS,
    Naming,
    NoMaskError,
    find_images,
    holds_masks,
    label_groups,
    pair_masks,
)
from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.geo.vector_source import split_layer
from pixelwise.labels import Classes
from pixelwise.source_name import is_local

ORPHAN_FIX = 'Add the image, move the mask out, or write below [data]: missing_images = "leave_out".'


def gather(data: DataConfig, classes: Classes) -> tuple[list[Sample], list[Drawing], list[Finding]]:
    """List the images of a configuration with their masks, or the polygons that are drawn on them.

    Returns:
        samples, the files of polygons, and findings on names and pairs.
    """
    samples, drawings, findings = list[Sample](), list[Drawing](), list[Finding]()
    wanted = [(data.images, data.label_places, False)]
    if data.validation_images is not None:
        apart = data.validation_labels
        wanted.append((data.validation_images, data.label_places if apart is None else as_places(apart), True))
    for images, labels, apart in wanted:
        try:
            groups = label_groups(as_places(images), labels)
        except ConfigError as problem:
            findings.append(Finding("PW106", "[data].labels", str(problem), " "))
            continue
        for folders, place in groups:
            try:
                if data.annotations is not None:
                    samples += _annotated(data, classes, folders, place, apart, findings)
                elif holds_masks(place):
                    samples += _masked(data, folders, place, apart, findings)
                elif place.exists() or not is_local(place) or split_layer(place)[1] is not None:
                    samples += _drawn(data, classes, folders, place, apart, drawings, findings)
                else:
                    said = f"There is no {place}. Fix [data].labels: a folder of masks, or a file of polygons."
                    findings.append(Finding("PW105", str(place), said, " "))
            except PixelwiseError as problem:
                code = "PW106" if isinstance(problem, ConfigError) else "PW105"
                findings.append(Finding(code, str(place), str(problem), " "))
    findings += _case_twins([sample.image for sample in samples])
    findings += _case_twins([sample.mask for sample in samples if sample.mask is not None])
    return samples, drawings, findings


def _masked(
    data: DataConfig, folders: Sequence[Path], place: Path, apart: bool, findings: list[Finding]
) -> list[Sample]:
    if data.attribute is not None and data.validation_labels is None:
        raise ConfigError(
            f"[data].attribute names {data.attribute!r}, a column of polygons, but {place} holds masks. Leave it out "
            "and map the masks' values with [data].values, or name a file of polygons in [data].labels."
        )
    naming = Naming(data.image_pattern, data.mask_pattern)
    samples, used, alone = list[Sample](), set[Path](), list[Finding]()
    for folder in folders:
        pairs, problems = pair_masks(folder, place, naming)
        samples += [Sample(image, mask, apart=apart) for image, mask in pairs]
        used |= {mask for _, mask in pairs}
        for problem in problems:
            if isinstance(problem.error, NoMaskError) and data.missing_masks == "leave_out":
                continue
            two = "has two masks" in str(problem.error)
            image, *others = problem.paths
            named = tuple(map(str, others)) if two else ()
            # A mask that is named as being near by is no orphan besides.
            used.update(others)
            found = Finding("PW103" if two else "PW101", str(image), str(problem.error), " ", None, Spot(image), named)
            alone.append(found)
    listed = {image for folder in folders for image in find_images(folder)}
    orphans = [
        mask
        for mask in (find_images(place) if place.is_dir() else [])
        if mask not in used and mask not in listed and naming.mask_name(mask) is not None
    ]
    if data.missing_images == "leave_out":
        orphans = []
    findings += _lonely(alone, orphans, naming, folders, {naming.image_name(image): image for image in listed})
    return samples


def _lonely(
    alone: list[Finding],
    orphans: list[Path],
    naming: Naming,
    folders: Sequence[Path],
    named: Mapping[str | None, Path],
) -> list[Finding]:
    """Return findings on images and masks without a partner; two whose names differ by case only are one finding.

    Args:
        named: the images by their names.
    """
    by_name = {(naming.mask_name(mask) or "").casefold(): mask for mask in orphans}
    found, paired = list[Finding](), set[Path]()
    for finding in alone:
        image = Path(finding.file)
        stem = (naming.image_name(image) or "").casefold()
        mask = next((by_name[stem + end] for end in (*MASK_ENDINGS, "_l") if stem + end in by_name), None)
        if finding.code != "PW101" or mask is None:
            found.append(finding)
            continue
        paired.add(mask)
        said = f"{image} has no mask of its name, but {mask} differs by case only."
        found.append(Finding("PW104", str(image), said, "Rename one of them.", None, Spot(image, mask), (str(mask),)))
    places = ", ".join(map(str, folders))
    for mask in orphans:
        if mask not in paired:
            said = f"{mask} belongs to no image in {places}."
            if (elsewhere := named.get(naming.mask_name(mask))) is not None:
                said += f" {elsewhere} has its name, but lies in another subfolder."
            found.append(Finding("PW102", str(mask), said, ORPHAN_FIX, picture=Spot(None, mask)))
    return found


def _drawn(
    data: DataConfig,
    classes: Classes,
    folders: Sequence[Path],
    place: Path,
    apart: bool,
    drawings: list[Drawing],
    findings: list[Finding],
) -> list[Sample]:
    naming = Naming(image=data.image_pattern)
    images = [image for folder in folders for image in find_images(folder) if naming.image_name(image) is not None]
    try:
        drawing = Drawing(data, classes, place, folders)
    except ConfigError as problem:
        findings.append(Finding("PW106", str(place), str(problem), " "))
    except DataError as problem:
        code = "PW164" if "which no class has" in str(problem) else "PW165"
        findings.append(Finding(code, str(place), str(problem), " "))
    else:
        drawings.append(drawing)
        return [Sample(image, drawn=drawing.labels, apart=apart) for image in images]
    return [Sample(image, apart=apart, sound=False) for image in images]


def _annotated(
    data: DataConfig, classes: Classes, folders: Sequence[Path], place: Path, apart: bool, findings: list[Finding]
) -> list[Sample]:
    found = annotated_scenes(data, classes, folders, place)
    findings += [Finding("PW105", str(place), str(problem.error), " ") for problem in found.problems]
    return [
        Sample(each.path, drawn=each.open_labels, source=place, given=each.part, apart=apart) for each in found.scenes
    ]


def _case_twins(paths: Sequence[Path]) -> list[Finding]:
    """Find files of one folder whose names differ by case only."""
    by_name: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_name[path.parent, path.stem.casefold()].append(path)
    return [
        Finding(
            "PW104",
            str(twins[1]),
            f"{twins[1]} and {twins[0].name} differ by case only.",
            others=(str(twins[0]),),
            picture=Spot(twins[1], other=twins[0]),
        )
        for twins in by_name.values()
        if len({path.stem for path in twins}) > 1
    ]
