"""What may be written where: never over an input, and never over what somebody else made."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import rasterio
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pixelwise.errors import ConfigError
from pixelwise.files import replacing

SOFTWARE = "pixelwise"
CLASSES_TAG = "PIXELWISE_CLASSES"
"""Holds the names of the classes of a map, as a JSON list."""
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
                role = "itself" if read == inputs[0] else f"or a file that it is read from ({read})"
                raise ConfigError(
                    f"{path} is the {what} {role}. Choose another output, so that the {what} is kept.", code="PW801"
                )


def side_files(path: Path) -> list[Path]:
    """Return what GDAL would take for parts of a raster."""
    return [path.with_name(path.name + suffix) for suffix in SIDE_FILES]


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Save a picture, its format by the suffix; in a PNG or JPEG it says that it is from here.

    Raises:
        ConfigError: a folder that cannot be written.
    """
    note = PngInfo()
    note.add_text("Software", SOFTWARE)
    noted = {".png": {"pnginfo": note}, ".jpg": {"comment": SOFTWARE}, ".jpeg": {"comment": SOFTWARE}}
    with replacing(path) as temporary:
        picture.save(temporary, **noted.get(Path(path).suffix.lower(), {}))


def made_here(path: Path) -> bool:
    """Return whether a file is a GeoTIFF, PNG or JPEG that says it is from here. A symbolic link is nobody's."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        return bool(_own_tags(path))
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as picture:
            return SOFTWARE in (picture.info.get("Software"), picture.info.get("comment", b"").decode("latin-1"))
    except (OSError, ValueError, SyntaxError):
        return False


def is_product(path: Path) -> bool:
    """Return whether a file is a raster of ours that lies beside a map: not a map itself, and no symbolic link."""
    own = [] if path.is_symlink() or not path.is_file() else _own_tags(path)
    return bool(own) and CLASSES_TAG not in own


def _own_tags(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as file:
                return [name for name in file.tags() if name.startswith("PIXELWISE_")]
    except RasterioError:
        return []


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
            raise ConfigError(
                f"{path} is a folder, and no file can take its name. Choose another output.", code="PW802"
            )
    for path in beside:
        if os.path.lexists(path) and not is_product(path):
            raise ConfigError(
                f"{path} is not from pixelwise, and would be overwritten. Move it away, or choose another output.",
                code="PW801",
            )
    for path in (named, *beside):
        notes, *parts = side_files(path)
        # What GDAL and viewers noted of an older raster goes with it.
        strange = [] if not os.path.lexists(notes) or b"<PAMDataset" in _beginning(notes) else [notes]
        strange += [] if path.exists() else [part for part in parts if os.path.lexists(part)]
        if strange:
            raise ConfigError(
                f"GDAL would take {strange[0]} for a part of the new {path.name}, which it is not. Move it away, or "
                "choose another output.",
                code="PW801",
            )


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1000)
    except OSError:
        return b""
