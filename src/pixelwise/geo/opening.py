"""Opening a raster: only what may be opened, and only if what GDAL decodes at once fits the memory."""

import os
import re
import warnings
from contextlib import ExitStack
from pathlib import Path

from rasterio import DatasetReader
from rasterio._err import CPLE_BaseError
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from pixelwise.errors import DataError
from pixelwise.geo.drivers import DRIVERS, check_content, system_words
from pixelwise.geo.mosaic import check_mosaic, check_opened_mosaic
from pixelwise.machine import free_memory
from pixelwise.source_name import gdal_name, is_local, local_path

GDAL_ERRORS = (RasterioError, CPLE_BaseError, ValueError, MemoryError)
"""What comes out of rasterio where a file is damaged: also names and numbers that make no sense."""
WHOLE = ("PNG", "GIF", "BIGGIF", "WEBP")
"""Drivers that decode an image as a whole, whichever window is asked for."""
SHARE = 0.5
"""Of the free memory, what is decoded at once may take so much."""


@ensure_env_with_credentials
def _dataset(name: str, drivers: list[str]) -> DatasetReader:
    return DatasetReader(name, driver=drivers, sharing=False)


def open_raster(path: Path) -> DatasetReader:
    """Open a raster with one of `DRIVERS`; a mosaic (.vrt) only if `check_mosaic` finds nothing against it.

    Raises:
        DataError: no such file, no file of pixels, one that leads elsewhere, or one that must be decoded at once and
            does not fit the memory.
    """
    path = local_path(path)
    name, mosaic = gdal_name(path), path.suffix.lower() == ".vrt"
    if is_local(path):
        check_content(path, mosaic=mosaic)
        if mosaic:
            check_mosaic(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = _dataset(name, ["VRT"] if mosaic else list(DRIVERS))
    except GDAL_ERRORS as error:
        refusal = _system_refusal(path)
        if refusal:
            raise DataError(f"{path} cannot be opened: {refusal}", code="PW403") from None
        raise DataError(
            f"{path} cannot be opened as an image: {reason(error)}. It is corrupt, or not an image of a known format.",
            code="PW403",
        ) from None
    try:
        if mosaic and not is_local(path):
            check_opened_mosaic(path, source)
        _check_memory(path, source)
    except BaseException:
        source.close()
        raise
    return source


def room_for(needed: int) -> int | None:
    """Return None if so many bytes fit the memory; else how many are free."""
    room = free_memory()
    return room if room is not None and needed > SHARE * room else None


def _check_memory(path: Path, source: DatasetReader) -> None:
    """See that what GDAL decodes at once, for any window, fits the memory.

    Raises:
        DataError: it does not.
    """
    if not source.count:
        raise DataError(f"{path} has no bands of pixels. Name the file that holds them.", code="PW404")
    together = source.driver in WHOLE or (source.interleaving is not None and source.interleaving.name == "pixel")
    sizes = [8 if "complex" in kind else int(re.sub(r"\D", "", kind) or 8) // 8 for kind in source.dtypes]
    bands = sum(sizes) if together else max(sizes)
    down, across = max(source.block_shapes) if source.driver not in WHOLE else (source.height, source.width)
    needed = down * across * bands
    room = room_for(needed)
    if room is not None:
        raise DataError(
            f"{path} says that it has {source.width}x{source.height} pixels and {source.count} bands, and "
            f"{across}x{down} of them must be decoded at once: {needed / 1e9:,.1f} GB, but {room / 1e9:,.1f} GB are "
            "free. Store it in tiles (gdal_translate -co TILED=YES), or use a machine with more memory.",
            code="PW904",
        )


def reason(error: BaseException) -> str:
    """Return what GDAL itself said; rasterio hides its words one cause further down."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UnicodeEncodeError):
        return "its name is not in UTF-8, which GDAL needs; rename it"
    if isinstance(error, UnicodeDecodeError):
        # rasterio could not read GDAL's words, which are these bytes.
        return error.object.decode(errors="replace").strip().rstrip(".")
    return str(error).strip().rstrip(".").splitlines()[-1] if str(error).strip() else type(error).__name__


def _system_refusal(path: Path) -> str | None:
    """Return why the system opens no more files, if that is what stood in the way."""
    try:
        with ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(open(path if is_local(path) else os.devnull, "rb"))
    except OSError as error:
        return system_words(error)
    return None
