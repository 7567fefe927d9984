"""Scenes that the operator lets people name: files below some folders, and nothing else."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelwise.geo.drivers import IMAGE_SUFFIXES
from pixelwise.serve.refusals import Refusal

LISTED = 1000
"""Most scenes that are listed."""


def found_scene(folders: Sequence[Path], name: str) -> Path:
    """Return the file that a client named, relative to one of the allowed folders.

    A name that leads out of them, by ``..``, from the root, or through a symbolic link, is refused, whether or not a
    file is there.

    Raises:
        Refusal: 403 or 404.
    """
    if not folders:
        fix = "Send the scene, or start the server with --scenes FOLDER."
        raise Refusal(403, "no_scenes", "The operator has allowed no folder of scenes.", fix)
    inside = False
    for folder in folders:
        root = Path(os.path.realpath(folder))
        try:
            # Unlike Path.resolve, which a name with a null character or a circle of links stops in other ways.
            path = Path(os.path.realpath(root / name))
            allowed = path != root and path.is_relative_to(root) and not Path(name).is_absolute()
            if allowed and path.is_file():
                return path
        except (OSError, ValueError):
            allowed = False
        inside = inside or allowed
    if not inside:
        raise Refusal(403, "not_allowed", "This path leads out of the folders of scenes.", "GET /scenes lists them.")
    raise Refusal(404, "no_scene", "There is no such scene.", "GET /scenes lists them.")


def listed_scenes(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return name and bytes of the scenes that can be named, the first `LISTED` by name."""
    found: dict[str, int] = {}
    for folder in folders:
        for name, size in _images(Path(os.path.realpath(folder))):
            found.setdefault(name, size)
            if len(found) >= LISTED:
                break
    return [{"path": name, "bytes": found[name]} for name in sorted(found)]


def _images(root: Path) -> Iterator[tuple[str, int]]:
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.is_symlink():
                yield path.relative_to(root).as_posix(), path.stat().st_size
