"""Folders of images, and which mask belongs to which image."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pixelwise.data.problems import Problem
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.drivers import IMAGE_SUFFIXES
from pixelwise.geo.vector_source import is_geodatabase
from pixelwise.source_name import is_local, local_path

MASK_ENDINGS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_L")
"""What the name of a mask may add to that of its image."""
NOT_THE_USERS = ("@eaDir", "__MACOSX", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that systems make among a user's files, besides those that begin with a dot or '#'."""


class NoMaskError(DataError):
    """An image has no mask."""

    code = "PW411"


def find_images(path: Path) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by name; a file, or an address in the
    network, is a list of itself.

    Links to folders are followed, but each folder is read once. Hidden folders and those of systems are left out.

    Raises:
        DataError: no such path, a folder that cannot be read, or one without images.
    """
    path = local_path(path)
    if not is_local(path) or (path.exists() and not path.is_dir()):
        return [path]
    if not path.is_dir():
        raise DataError(
            f"There is no folder {path}. Fix the path in [data]; it counts from the configuration's folder.",
            code="PW401",
        )
    found = sorted(_walked(path))
    if not found:
        raise DataError(
            f"The folder {path} has no images ({', '.join(IMAGE_SUFFIXES)}). Name the folder that holds them.",
            code="PW402",
        )
    return found


def _walked(top: Path) -> Iterator[Path]:
    # Real folders come first. A link to one of them is then left out, and not the folder.
    folders, links, seen = [top], list[Path](), {os.path.realpath(top)}
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if folder != top and real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"The folder {folder} cannot be read: {error.strerror}. Change its permissions, or move it away.",
                code="PW401",
            ) from None
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if not entry.name.startswith("#") and entry.name not in NOT_THE_USERS:
                    (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                yield path


def label_groups(images: tuple[Path, ...], labels: tuple[Path, ...]) -> list[tuple[tuple[Path, ...], Path]]:
    """Return which images belong to which labels: one place of labels for all images, or one each.

    Raises:
        ConfigError: another number of places.
    """
    if len(labels) == 1:
        return [(images, labels[0])]
    if len(labels) != len(images):
        raise ConfigError(
            f"[data].labels lists {len(labels)} places for {len(images)} of images. Give one for all, or one for each."
        )
    return [((image,), label) for image, label in zip(images, labels, strict=True)]


def holds_masks(place: Path) -> bool:
    """Return whether a place of labels holds masks, and not polygons."""
    return not is_geodatabase(place) if place.is_dir() else place.suffix.lower() in IMAGE_SUFFIXES


def image_place(path: Path, folders: Sequence[Path]) -> str:
    """Return an image's path in its folder, such as ``north/a.tif``; with several folders, after the folder's name.

    Folders of the same name, such as ``tile1/images`` and ``tile2/images``, have as much of their paths before them as
    tells them apart.
    """
    tails = _tails(tuple(folders))
    for folder in folders:
        if path != folder and path.is_relative_to(folder):
            place = path.relative_to(folder).as_posix()
            return place if len(folders) == 1 else f"{tails[folder]}/{place}"
    return tails.get(path, path.name)


@lru_cache(maxsize=8)
def _tails(places: tuple[Path, ...]) -> dict[Path, str]:
    """Return the end of each path, as long as it takes to tell it from the others."""
    tails = {place: place.name for place in places}
    for parts in range(2, max((len(place.parts) for place in places), default=0) + 1):
        twice = {tail for tail, count in Counter(tails.values()).items() if count > 1}
        if not twice:
            break
        tails |= {place: "/".join(place.parts[-parts:]) for place, tail in tails.items() if tail in twice}
    return tails


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Name files by their stems, with as many of their folders as it takes to tell them apart.

    Files that differ only in their suffix keep it.
    """
    same = Counter((path.parent, path.stem) for path in paths)
    ends = [path.name if same[path.parent, path.stem] > 1 else path.stem for path in paths]
    names = ends
    for parts in range(2, max((len(path.parts) for path in paths), default=0) + 1):
        twice = {name for name, count in Counter(names).items() if count > 1}
        if not twice:
            break
        names = [
            "/".join((*path.parts[-parts:-1], end)) if name in twice else name
            for path, end, name in zip(paths, ends, names, strict=True)
        ]
    return names


@dataclass(frozen=True)
class Naming:
    """Patterns of file names with {name} in them; None: any name for images, and `MASK_ENDINGS` for masks."""

    image: str | None = None
    mask: str | None = None

    def image_name(self, path: Path) -> str | None:
        """Return the {name} of an image; None for another file."""
        return path.stem if self.image is None else _name_in(self.image, path)

    def mask_name(self, path: Path) -> str | None:
        """Return the {name} of a mask's image; None for another file."""
        return path.stem if self.mask is None else _name_in(self.mask, path)

    def mask_of(self, name: str) -> str:
        """Return a file name that the mask of an image may have."""
        file = name if self.mask is None else self.mask.replace("{name}", name)
        return file if Path(file).suffix.lower() in IMAGE_SUFFIXES else f"{file}.png, .tif, ..."


def _name_in(pattern: str, path: Path) -> str | None:
    with_suffix = Path(pattern.replace("{name}", "x")).suffix.lower() in IMAGE_SUFFIXES
    expression = "(.+)".join(map(re.escape, pattern.split("{name}")))
    found = re.fullmatch(expression, path.name if with_suffix else path.stem)
    return found[1] if found else None


def pair_masks(
    images: Path, labels: Path, naming: Naming | None = None
) -> tuple[list[tuple[Path, Path]], list[Problem]]:
    """Find the mask of each image: in the same subfolder, with its name, any suffix and one of `MASK_ENDINGS`.

    Images and masks may share a folder, if the masks' names tell them apart.

    Returns:
        the pairs, and the images that have no mask, or two.

    Raises:
        DataError: a folder that is not there or holds no images.
        ConfigError: a pattern that no file has.
    """
    naming = naming or Naming()
    masks: dict[tuple[str, str], list[Path]] = {}
    for mask in find_images(labels):
        name = naming.mask_name(mask)
        if name is not None:
            masks.setdefault((_folder(mask, labels), name), []).append(mask)
    named = [(image, naming.image_name(image)) for image in find_images(images)]
    for pattern, any_fits in ((naming.mask, bool(masks)), (naming.image, any(name for _, name in named))):
        if not any_fits:
            where = labels if pattern == naming.mask else images
            raise ConfigError(f"No file in {where} is called {pattern!r}. Fix the pattern in [data].", code="PW411")
    endings = ("",) if naming.mask is not None else MASK_ENDINGS
    single = not labels.is_dir() and not images.is_dir()
    anywhere = {name: paths[0] for (_, name), paths in masks.items()}
    pairs, problems = list[tuple[Path, Path]](), list[Problem]()
    for image, name in named:
        place = _folder(image, images)
        if name is None or _is_mask(image, place, masks, naming, shared=images == labels):
            continue
        found = [mask for ending in endings for mask in masks.get((place, name + ending), []) if mask != image]
        found = [labels] if single else found
        if len(found) > 1:
            said = f"{image} has two masks, {found[0]} and {found[1]}. Keep one."
            problems.append(Problem(DataError(said), (image, *found)))
        elif found:
            pairs.append((image, found[0]))
        else:
            expected = labels / place / naming.mask_of(name)
            own = image in masks.get((place, name), [])
            problems.append(_no_mask(image, expected, None if own else anywhere.get(name), own=own))
    return pairs, problems


def _is_mask(path: Path, place: str, masks: dict[tuple[str, str], list[Path]], naming: Naming, *, shared: bool) -> bool:
    """Return whether a file in a folder of images and masks is the mask of another one there."""
    if not shared:
        return False
    if naming.mask is not None:
        return naming.mask_name(path) is not None
    stems = [path.stem.removesuffix(ending) for ending in MASK_ENDINGS if ending and path.stem.endswith(ending)]
    return any((place, stem) in masks for stem in stems)


def _no_mask(image: Path, expected: Path, elsewhere: Path | None, *, own: bool) -> Problem:
    """Say where a mask should be, and why it may be missing.

    Args:
        elsewhere: a mask of that name in another subfolder.
        own: only the image itself has the name.
    """
    if own:
        hint = (
            "Images and masks share a folder, so the masks need names of their own: call them NAME_mask.png, set "
            "[data].mask_pattern, or put them in another folder."
        )
    elif elsewhere:
        hint = f"There is {elsewhere}: put masks in the same subfolders as their images."
    else:
        hint = (
            "Add the mask, move the image out of the folder, or say with [data].mask_pattern how masks are called. To "
            'go on without such images, write below [data]: missing_masks = "leave_out".'
        )
    said = f"{image} has no mask: expected {expected}. {hint}"
    return Problem(NoMaskError(said), tuple(path for path in (image, expected, elsewhere) if path))


def _folder(path: Path, top: Path) -> str:
    return str(path.relative_to(top).parent) if path.is_relative_to(top) and path != top else "."
