"""Which files may be opened: formats of pixels only, nothing that leads to other files or to the network."""

import stat
from errno import EMFILE, ENFILE
from pathlib import Path

from pixelwise.errors import DataError
from pixelwise.machine import open_file_limit

DRIVERS = (
    *("GTiff", "PNG", "JPEG", "GIF", "BIGGIF", "BMP", "WEBP", "PNM", "TGA", "SGI"),
    *("JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEGXL", "HEIF", "AVIF"),
    *("HFA", "ENVI", "EHdr", "NITF", "DTED", "SRTMHGT", "USGSDEM", "AAIGrid", "RST", "SAGA"),
)
"""GDAL's drivers for files that hold their pixels themselves.

Others follow addresses or paths in a file (VRT, WMS, WCS, WMTS, STAC, tile indices, MRF, PCIDSK, ERS, HDF5), so that a
file from a stranger could ask any server or show any local file.
"""
IMAGE_SUFFIXES = (
    *(".tif", ".tiff", ".gtif", ".gtiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif"),
    *(".bmp", ".dib", ".ppm", ".pgm", ".pnm", ".jp2", ".j2k", ".img", ".vrt"),
)
"""Of the files that count as images in a folder. A file that is named itself may have any suffix."""
LEADS_ELSEWHERE = (
    *(b"<VRTDataset", b"<GDAL_W", b"<WMS_", b"<WMT_", b"<WCS_", b"<GDALTileIndexDataset", b"<MRF_META"),
    b"<Capabilities",
)
"""What makes GDAL take a file for a list of other files or servers, wherever in the beginning it stands."""
HEAD = 4096
"""Bytes of a file's beginning that are looked at."""


def check_content(path: Path, *, mosaic: bool = False) -> None:
    """See that a local path is a file, and that its beginning leads nowhere else.

    Raises:
        DataError: it is not there, is a folder, a pipe or a device, cannot be opened, or is a list of other files.
    """
    try:
        mode = path.stat().st_mode
        # A pipe is never opened: that would wait for somebody who writes to it.
        head = _head(path) if stat.S_ISREG(mode) else b""
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.", code="PW401") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be opened: {system_words(error)}", code="PW403") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise DataError(f"{path} is {kind}, not an image. Name a file.", code="PW404")
    if not mosaic and any(mark in head for mark in LEADS_ELSEWHERE):
        raise DataError(
            f"{path} holds no pixels but XML that leads to other files or servers, which is not followed. If it is a "
            "mosaic of yours, let its name end in .vrt; else name the files that hold the pixels.",
            code="PW405",
        )
    for ending in (".msk", ".ovr"):
        companion = path.with_name(path.name + ending)
        # GDAL opens these with any driver.
        if companion.exists() and not has_signature(companion):
            raise DataError(
                f"{companion}, which belongs to {path.name}, is no image. Delete it, or make it again.", code="PW404"
            )


SIGNATURES = (
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"P5", b"P6"),
    *(b"EHFA_HEADER_TAG", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)


def has_signature(path: Path) -> bool:
    """Return whether a file begins as one of the formats that tell themselves apart, and leads nowhere else."""
    try:
        head = _head(path) if path.is_file() else b""
    except OSError:
        return False
    known = head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    return known and not any(mark in head for mark in LEADS_ELSEWHERE)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def system_words(error: OSError | ValueError) -> str:
    """Return what the system said, and what helps where it is known."""
    if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
        return (
            f"too many files are open (the limit is {open_file_limit()}). Raise it with `ulimit -n 4096`, or read with "
            "fewer [train].workers."
        )
    return f"{getattr(error, 'strerror', None) or error}."
