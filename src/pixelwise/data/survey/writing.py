"""A configuration is written, never over another one, and tried."""

import os
import shutil
from pathlib import Path

from pixelwise.config import load_config
from pixelwise.data.scenes import Scene
from pixelwise.data.split import open_split
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.files import replacing
from pixelwise.geo.raster import Window

TRIED = 8
"""Images of each part of which a crop is read."""


def require_free(path: Path, *, force: bool) -> None:
    """See that a configuration can have this name.

    Raises:
        ConfigError: there is one, and it is not to be replaced; or the name does not end in .toml.
    """
    if path.suffix.lower() != ".toml":
        raise ConfigError(
            f"{path} does not end in .toml, as configurations do. Choose such a name with --out.", code="PW804"
        )
    if os.path.lexists(path) and not force:
        raise ConfigError(
            f"{path} is there and is kept. Choose another name with --out, or replace it with --force, which keeps a "
            "copy.",
            code="PW801",
        )


def write_configuration(path: Path, text: str) -> Path | None:
    """Write a configuration; return the copy of the one that was there."""
    copy = None
    if os.path.lexists(path):
        n = 1
        while os.path.lexists(copy := path.with_name(f"{path.stem}.{n}{path.suffix}")):
            n += 1
        with replacing(copy) as temporary:
            shutil.copyfile(path, temporary)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return copy


def complaint(path: Path) -> str | None:
    """Return what is wrong with a configuration; None if training can open all pairs, and read crops of some.

    Crops are read as training reads them: pixels, labels, and the parts of the split.
    """
    try:
        config = load_config(path)
        _, split = open_split(config)
        for part in ("training", "validation"):
            scenes = getattr(split, part)
            for scene in scenes[:: max(1, -(-len(scenes) // TRIED))]:
                scene.resident = False
                _read_crop(scene, config.train.crop_size)
    except PixelwiseError as problem:
        return str(problem)
    return None


def _read_crop(scene: Scene, side: int) -> None:
    """Read the crop in the middle of a scene.

    Raises:
        DataError: a file that is cut off, or a mask value without a class.
    """
    top, left = (scene.info.height - side) // 2, (scene.info.width - side) // 2
    scene.read_padded(Window(top, left, side, side))
