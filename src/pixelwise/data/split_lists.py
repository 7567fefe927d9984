"""The parts of a split as text files: a line for each image, or for each block of ground."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pixelwise.config import DataConfig
from pixelwise.data.folder import image_place
from pixelwise.data.scenes import Scene
from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.geo.drivers import IMAGE_SUFFIXES

PARTS = {"training": "train.txt", "validation": "val.txt", "test": "test.txt"}
"""Part -> the file in the folder ``split`` of a run that lists it."""
Block = tuple[str, int, int]
"""A square of ground: the grid it belongs to, and its row and column there."""


def list_paths(data: DataConfig) -> dict[str, Path]:
    """Return the lists that a configuration names, by part."""
    named = {"training": data.training_list, "validation": data.validation_list, "test": data.test_list}
    return {part: path for part, path in named.items() if path is not None}


def kept_lists(folder: Path) -> dict[str, Path]:
    """Return the lists that a run has kept in a folder, by part."""
    found = {part: folder / name for part, name in PARTS.items()}
    return {part: path for part, path in found.items() if path.exists()}


def lists_any(folder: Path, part: str) -> bool:
    """Return whether a run has kept a list of a part in a folder, with something in it."""
    path = folder / PARTS[part]
    return path.is_file() and any(
        line.strip() and not line.startswith("#") for line in path.read_text(encoding="utf-8").splitlines()
    )


def write_lists(folder: Path, lines: dict[str, list[str]], head: str) -> None:
    """Write a list for each part.

    Args:
        lines: part -> its lines.
        head: what the lines are, for the first one.
    """
    for part, listed in lines.items():
        with replacing(folder / PARTS[part]) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in (f"# {head}", *listed)), encoding="utf-8")


def write_plain_lists(folder: Path, lines: dict[str, list[str]]) -> list[tuple[Path, int]]:
    """Write a list for each part that has images, of nothing but the lines, as other tools read them.

    Returns:
        each list that was written, and its number of lines.

    Raises:
        ConfigError: a list that is there already.
    """
    wanted = {folder / PARTS[part]: listed for part, listed in lines.items() if listed}
    for name in PARTS.values():
        if (folder / name).exists():
            raise ConfigError(
                f"{folder / name} is there already, and is kept. Choose another folder, or move it away.", code="PW801"
            )
    for path, listed in wanted.items():
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in listed), encoding="utf-8")
    return [(path, len(listed)) for path, listed in wanted.items()]


def read_list(path: Path) -> list[str]:
    """Return the lines of a list, without empty ones and those that begin with #.

    Raises:
        ConfigError: no such file, or no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"There is no list {path}. Fix its key in [data], or leave it out.", code="PW310") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a list of images: {error}.", code="PW310") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def scenes_of_lists(
    scenes: Sequence[Scene], folders: Sequence[Path], lists: dict[str, Path], *, may_be_gone: bool = False
) -> dict[str, list[Scene]]:
    """Return the scenes of each part, in the order of the folder. Those that no list names are left out.

    A line names an image as `ListedImages` says.

    Args:
        may_be_gone: leave out lines that name no image.

    Raises:
        ConfigError: a line that names no image or several, or an image in two lists.
    """
    paths = [scene.info.path for scene in scenes]
    places = [image_place(path, folders) for path in paths]
    named = ListedImages(paths, places)
    part_of: dict[int, str] = {}
    for part, path in lists.items():
        for line in read_list(path):
            found = named.find(line, path.parent)
            if may_be_gone and not found:
                continue
            if len(found) != 1:
                near = difflib.get_close_matches(line, places, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                several = f"{len(found)} images" if found else "no image"
                raise ConfigError(
                    f"{path} names {line!r}, but {', '.join(map(str, folders))} has {several} of this name.{hint}",
                    code="PW310",
                )
            (i,) = found
            if part_of.setdefault(i, part) != part:
                raise ConfigError(
                    f"{places[i]} is in the lists of {part_of[i]} and {part}. Keep it in one.", code="PW310"
                )
    return {part: [scene for i, scene in enumerate(scenes) if part_of.get(i) == part] for part in PARTS}


class ListedImages:
    """Finds the images that lines of lists name."""

    def __init__(self, paths: Sequence[Path], places: Sequence[str]) -> None:
        """Take images.

        Args:
            places: of the images in their folders (`image_place`).
        """
        self._known: dict[str, set[int]] = {}
        self._tails: dict[str, set[int]] = {}
        for i, (path, place) in enumerate(zip(paths, places, strict=True)):
            whole = path.absolute().as_posix()
            for name in (place, whole):
                for each in (name, name.rpartition(".")[0]):
                    self._known.setdefault(each, set()).add(i)
            self._tails.setdefault(path.stem, set()).add(i)
        self._paths = [path.absolute().with_suffix("").as_posix() for path in paths]

    def find(self, line: str, folder: Path) -> set[int]:
        """Return the numbers of the images that a line names, which is one if it is right.

        A line is the place of an image, with or without its suffix; a path that counts from the list's folder or
        another one above; or one of these with the mask behind it, as other programs write.

        Args:
            folder: of the list.
        """
        for name in dict.fromkeys((line, re.split(r"[\s,;]+", line)[0])):
            path = Path(name)
            for each in (path.as_posix(), Path(os.path.abspath(folder / path)).as_posix()):
                if found := self._known.get(each):
                    return found
            end = "/" + (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix().lstrip(
                "./"
            )
            if found := {i for i in self._tails.get(Path(end).name, ()) if self._paths[i].endswith(end)}:
                return found
        return set()


def block_line(block: Block) -> str:
    """Return a block as a line: its row, its column and its grid."""
    name, row, column = block
    return f"{row} {column} {name}"


def blocks_of_lists(lists: dict[str, Path], side: float) -> dict[str, frozenset[Block]]:
    """Return the blocks of each part.

    Args:
        side: of a block; the lists must have the same.

    Raises:
        ConfigError: lists of other blocks, a line that is not a block, or a block in two lists.
    """
    out: dict[str, frozenset[Block]] = {part: frozenset() for part in PARTS}
    for part, path in lists.items():
        lines = read_list(path)
        head = path.read_text(encoding="utf-8-sig").splitlines()[:1]
        if head != [f"# {block_head(side)}"]:
            raise ConfigError(
                f"{path} is not a list of blocks of this size and grid. Use the lists of a run with the same images, "
                "[data].split = 'block' and the same [data].block.",
                code="PW310",
            )
        try:
            blocks = frozenset((name, int(row), int(column)) for row, column, name in (s.split(" ", 2) for s in lines))
        except ValueError:
            raise ConfigError(f"{path} holds a line that is not a block: ROW COLUMN GRID.", code="PW310") from None
        for other, theirs in out.items():
            if theirs & blocks:
                raise ConfigError(
                    f"The block {block_line(min(theirs & blocks))!r} is in the lists of {other} and {part}.",
                    code="PW310",
                )
        out[part] = blocks
    return out


def block_head(side: float) -> str:
    """Return the first line of a list of blocks."""
    return f"blocks of side {side!r}: row, column, grid"
