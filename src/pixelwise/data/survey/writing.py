"""A configuration is written, never over another one, and tried."""

import os
import shutil
from pathlib import Path

from pixelwise.config import load_config
from pixelwise.data.split import open_split
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.files import replacing


def require_free(path: Path, *, force: bool) -> None:
    """See that a configuration can have this name.

    Raises:
        ConfigError: there is one, and it is not to be replaced; or the name does not end in .toml.
    """
    if path.suffix.lower() != ".toml":
        raise ConfigError(f"{path} does not end in .toml, as configurations do. Choose such a name with --out.")
    if os.path.lexists(path) and not force:
        raise ConfigError(
            f"{path} is there and is kept. Choose another name with --out, or replace it with --force, which keeps a "
            "copy."
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
    """Return what is wrong with a configuration's headers and pairs; None if training can open them."""
    try:
        open_split(load_config(path))
    except PixelwiseError as problem:
        return str(problem)
    return None
