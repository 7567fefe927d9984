"""What may be written where: never over an input, and never over what somebody else made."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pixelwise.errors import ConfigError

PRODUCT_TAG = "PIXELWISE_PRODUCT"
"""Says what a raster beside a map is. By it, or by an older tag of ours, we know our own files again."""
SIDE_FILES = (".aux.xml", ".ovr", ".msk")
"""GDAL takes NAME.tif with one of these at its end for a part of NAME.tif."""


def same_file(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths lead to one file: by another spelling, a symbolic link or a hard link."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def keep_inputs(outputs: Iterable[Path], inputs: Iterable[str | Path], what: str) -> None:
    """See that no output is a file that is read.

    Args:
        inputs: the file that the user named comes first, then those that it is made of.
        what: a word for the first, such as 'scene'.

    Raises:
        ConfigError: an output is an input, whatever its name.
    """
    inputs = list(inputs)
    for path in outputs:
        for read in inputs:
            if same_file(path, read):
                role = f"the {what} itself" if read == inputs[0] else f"{read}, a file that the {what} is read from"
                raise ConfigError(f"{path} is {role}. Choose another output, so that the {what} is kept.")


def side_files(path: Path) -> list[Path]:
    """Return what GDAL would take for parts of a raster."""
    return [path.with_name(path.name + suffix) for suffix in SIDE_FILES]


def made_here(path: Path) -> bool:
    """Return whether a file is a GeoTIFF that bears a tag of ours. A symbolic link is nobody's."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as file:
                return any(name.startswith("PIXELWISE_") for name in file.tags())
    except RasterioError:
        return False


def check_products(named: Path, beside: Iterable[Path]) -> None:
    """See that writing a raster takes nothing from anybody but the older file that the user named.

    Args:
        named: the user chose this name, so that an older file gives way.
        beside: their names follow from it, so an older one gives way only if it is ours.

    Raises:
        ConfigError: a folder, a file of somebody else, or a part of a raster that is not there.
    """
    beside = list(beside)
    for path in (named, *beside):
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, and no file can take its name. Choose another output.")
    for path in beside:
        if os.path.lexists(path) and not made_here(path):
            raise ConfigError(
                f"{path} is not from pixelwise, and would be overwritten. Move it away, or choose another output."
            )
    for path in (named, *beside):
        notes, *parts = side_files(path)
        # What GDAL and viewers noted of an older raster goes with it.
        strange = [] if not os.path.lexists(notes) or b"<PAMDataset" in _beginning(notes) else [notes]
        strange += [] if path.exists() else [part for part in parts if os.path.lexists(part)]
        if strange:
            raise ConfigError(
                f"GDAL would take {strange[0]} for a part of the new {path.name}, which it is not. Move it away, or "
                "choose another output."
            )


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1000)
    except OSError:
        return b""
