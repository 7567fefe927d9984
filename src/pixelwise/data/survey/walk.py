"""All files of a folder, by kind."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pixelwise.data.folder import NOT_THE_USERS
from pixelwise.geo.drivers import IMAGE_SUFFIXES

MOST = 300_000
"""Files that are listed."""


@dataclass
class Files:
    """The files of a folder and its subfolders, sorted."""

    rasters: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def walked(folder: Path) -> Files:
    """List files; hidden ones, those of systems, and the folders of runs are left out."""
    found, count = Files(), 0
    for top, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(
            f for f in folders if f[0] not in ".#" and f not in NOT_THE_USERS and not _is_run(Path(top) / f)
        )
        for name in sorted(names):
            path = Path(top) / name
            if name.startswith(".") or count >= MOST:
                continue
            count += 1
            (found.rasters if path.suffix.lower() in IMAGE_SUFFIXES else found.others).append(path)
    return found


def _is_run(folder: Path) -> bool:
    return (folder / "model" / "model.toml").exists() or (folder / "model.toml").exists()
