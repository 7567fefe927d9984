"""Images whose labels are drawn: files of polygons on the ground, or annotations in pixels."""

from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.survey.annotated import Drawn, annotated_images
from pixelwise.data.survey.classes import Ask, ClassTable
from pixelwise.data.survey.groups import Group
from pixelwise.data.survey.pairing import matched, part_of
from pixelwise.data.survey.polygons import JSON, SUFFIXES, Drawing, classes_of_polygons, look_at_polygons
from pixelwise.data.survey.walk import Files
from pixelwise.errors import DataError
from pixelwise.geo.raster import describe

LOOKED_AT = 200
"""Scenes on which polygons are looked for."""


def drawn_labels(folder: Path, groups: Sequence[Group], files: Files, ask: Ask) -> Drawn:
    """Find polygons or annotations for the images of a folder.

    Raises:
        DataError: there are none that fit; says what was seen.
    """
    reasons: list[str] = []
    polygons = _by_polygons(folder, groups, files, ask, reasons)
    annotated = None if polygons else annotated_images(folder, groups, files, ask, reasons)
    if (drawn := polygons or annotated) is not None:
        return drawn
    raise DataError(_nothing(folder, groups, [*unread(files), *reasons]))


def _by_polygons(folder: Path, groups: Sequence[Group], files: Files, ask: Ask, reasons: list[str]) -> Drawn | None:
    vectors = [path for path in files.others if path.suffix.lower() in (*SUFFIXES, JSON)]
    placed = [group for group in groups if group.looks and group.looks[0].info.crs is not None]
    scenes = [path for group in placed for path in group.paths]
    if not vectors or not scenes:
        return None
    infos = []
    for path in scenes[:: max(1, len(scenes) // LOOKED_AT)]:
        try:
            infos.append(describe(path))
        except DataError:
            continue
    found: list[Drawing] = []
    paired = _paired(placed, vectors)
    if len(paired) > 1 and len(paired) >= 0.5 * len(vectors):
        return _one_each(paired, ask, reasons)
    for path in vectors[:50]:
        look = look_at_polygons(path, infos, scenes)
        if isinstance(look, Drawing):
            found.append(look)
        elif look is not None:
            reasons.append(look)
    if not found:
        return None
    found.sort(key=lambda drawing: -drawing.touching)
    best = found[0]
    ties = [drawing for drawing in found if drawing.touching == best.touching]
    if len(ties) > 1:
        best = ties[
            ask("Several files of polygons lie on the scenes. Which are the labels?", [d.path.name for d in ties])
        ]
    table, keys = classes_of_polygons(best, ask)
    table.saw.insert(0, f"{len(scenes)} scenes: {_where(placed)}.")
    if len(found) > 1:
        others = ", ".join(drawing.path.name for drawing in found if drawing is not best)
        table.guessed.append(f"Labels are {best.path.name}; {others} lies on the scenes too and is left out.")
    parts = _parts(placed, folder, table)
    data: dict[str, object] = {"images": _places(parts["training"], files), "labels": best.path, **keys}
    if "validation" in parts:
        data |= {"validation_images": _places(parts["validation"], files), "validation_labels": best.path}
    return Drawn([path for part in parts.values() for group in part for path in group.paths], table, data)


def _parts(groups: Sequence[Group], folder: Path, table: ClassTable) -> dict[str, list[Group]]:
    """Return the groups to train on and to validate with, as their folders' names say; a test part is left out."""
    parts: dict[str, list[Group]] = {}
    for group in groups:
        parts.setdefault(part_of(group.folder, folder) or "training", []).append(group)
    if "training" not in parts:
        return {"training": [*groups]}
    if test := parts.pop("test", None):
        table.guessed.append(
            f"{_where(test)} is kept for a test, so training never reads it. Score it later: pixelwise evaluate RUN "
            f"CONFIG --set data.images={test[0].folder}"
        )
    if "validation" in parts:
        table.guessed.append(f"{_where(parts['validation'])} is for validation, as its name says.")
    return parts


def _places(groups: Sequence[Group], files: Files) -> object:
    """Return the folders of scenes; the scenes themselves where a folder holds other rasters too."""
    scenes = [path for group in groups for path in group.paths]
    if len(scenes) == 1:
        return scenes[0]
    if any(len(group.paths) != _rasters_below(group.folder, files) for group in groups):
        return scenes
    return groups[0].folder if len(groups) == 1 else [group.folder for group in groups]


def _paired(groups: Sequence[Group], vectors: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return scenes with the files of polygons whose names hold theirs, such as buildings_img7.geojson for img7.tif."""
    by_stem = {path.stem: path for group in groups for path in group.paths}
    paired = [(by_stem[path.stem], path) for path in vectors if path.stem in by_stem]
    if paired:
        return paired
    for folder in dict.fromkeys(path.parent for path in vectors):
        drawn = Group(folder, tuple(path for path in vectors if path.parent == folder))
        together = [matched(group, drawn) for group in groups] if len(drawn.paths) > 1 else []
        found = max((each[2] for each in together if each is not None), key=len, default=())
        paired = max(paired, [*found], key=len)
    return paired


def _one_each(paired: list[tuple[Path, Path]], ask: Ask, reasons: list[str]) -> Drawn | None:
    """Take a file of polygons for each scene, of the same name."""
    looks = []
    kept = []
    for image, vector in paired:
        look = look_at_polygons(vector, [describe(image)], [image])
        if isinstance(look, Drawing):
            looks.append(look)
            kept.append((image, vector))
        elif look is not None:
            reasons.append(look)
    if not kept:
        return None
    joined = max(looks, key=lambda look: look.polygons)
    for look in looks:
        if look is joined:
            continue
        joined.polygons += look.polygons
        for column in joined.columns:
            other = next((c for c in look.columns if c.name == column.name), None)
            for value, count in (other.counts if other else {}).items():
                column.counts[value] = column.counts.get(value, 0) + count
    joined.saw = [f"{len(kept)} scenes, each with a file of polygons of its name ({joined.polygons} polygons)."]
    if len(kept) < len(paired):
        joined.saw.append(f"{len(paired) - len(kept)} scenes whose file has no polygon on them are left out.")
    table, keys = classes_of_polygons(joined, ask)
    data: dict[str, object] = {"images": [image for image, _ in kept], "labels": [vector for _, vector in kept]}
    return Drawn([image for image, _ in kept], table, data | keys)


PACKED = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z", ".bz2", ".xz")
ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5", ".pt", ".pkl", ".tfrecord", ".tfrecords", ".zarr")


def unread(files: Files) -> list[str]:
    """Say what to do with files that may hold images and are not read as they are."""
    found = []
    if packed := [path for path in files.others if path.suffix.lower() in PACKED]:
        found.append(f"{_first(packed)} packed: unpack {'it' if len(packed) == 1 else 'them'} first.")
    if arrays := [path for path in files.others if path.suffix.lower() in ARRAYS]:
        found.append(
            f"{_first(arrays)} arrays, which say nothing of their bands: write them as TIFF (rasterio, tifffile), "
            "images with bands first, and masks of whole numbers."
        )
    return found


def _first(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0].name}{more} {'are' if more else 'is'}"


def _rasters_below(folder: Path, files: Files) -> int:
    return sum(path.is_relative_to(folder) for path in files.rasters)


def _where(groups: Sequence[Group]) -> str:
    return ", ".join(dict.fromkeys(group.folder.name for group in groups))


def _several_each(groups: Sequence[Group]) -> str | None:
    """Say that each image has a folder of masks, one for each object, if it is so."""
    alone = {group.folder.parent for group in groups if len(group.paths) == 1 and not group.could_be_masks}
    several = [
        group for group in groups if len(group.paths) > 1 and group.could_be_masks and group.folder.parent in alone
    ]
    if len(several) < 2:
        return None
    return (
        f"Each image has several masks, such as {len(several[0].paths)} in {several[0].folder.parent.name}: perhaps "
        "one for each object. Join them into one mask per image, with a number for each object or class."
    )


def _nothing(folder: Path, groups: Sequence[Group], reasons: Sequence[str]) -> str:
    seen = [
        f"{len(group.paths)} {'masks' if group.could_be_masks and group.maskness > 1 else 'images'} in "
        f"{group.folder.relative_to(folder.parent)} ({group.paths[0].name} ...)"
        for group in groups[:6]
    ]
    more = f" and {len(groups) - 6} more groups" if len(groups) > 6 else ""
    several = _several_each(groups)
    reasons = [*reasons, *([several] if several else [])]
    only_masks = all(group.could_be_masks and group.maskness > 1 for group in groups)
    missing = "images of the masks' names and sizes" if only_masks else "labels for the images"
    return (
        f"{folder} holds {'; '.join(seen)}{more}, but no {missing}. {' '.join(reasons[:3])} Labels are masks of "
        "the images' sizes whose names hold those of the images (photo.jpg with photo.png in another folder, or "
        "photo_mask.png); a file of polygons on georeferenced scenes; or annotations."
    ).replace("  ", " ")
