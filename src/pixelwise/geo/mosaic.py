"""Mosaics (.vrt): lists of other files, which may lie below the mosaic's own folder or where the user allows it."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from rasterio import DatasetReader

from pixelwise.errors import DataError
from pixelwise.geo.drivers import check_content, has_signature

FOLDERS = "PIXELWISE_VRT_FOLDERS"
"""The environment variable that lists further folders in which files of mosaics may lie."""
LARGEST = 256 << 20
"""Bytes of a mosaic's XML."""
KINDS = (None, "VRTWarpedDataset", "VRTPansharpenedDataset")
FREE_TEXT = {"SRS", "GeoTransform", "Description", "UnitType", "Category", "MDI", "TargetSRS", "SourceSRS", "LineSRS"}
"""Elements whose text names no file; `MDI` may, in the domains of `FILES_IN_METADATA`."""
FILES_IN_METADATA = {"GEOLOCATION", "OVERVIEWS", "RPC"}


def check_mosaic(path: Path, seen: frozenset[Path] = frozenset()) -> None:
    """See that a mosaic and the mosaics in it name no files but images in folders that are allowed, and no server.

    Raises:
        DataError: it does, is no mosaic, or is made of itself.
    """
    own = path.resolve()
    if own in seen:
        raise DataError(
            f"{path} is made of itself. Make the mosaic again, from the files that hold the pixels.", code="PW404"
        )
    check_content(path, mosaic=True)
    if path.stat().st_size > LARGEST:
        raise DataError(
            f"{path} is larger than {LARGEST >> 20} MiB, too large for a list of files. It is no mosaic.", code="PW404"
        )
    checked: set[Path] = set()
    for source in _sources(path, path.read_bytes()):
        if source in checked:
            continue
        checked.add(source)
        if source.suffix.lower() == ".vrt":
            check_mosaic(source, seen | {own})
        elif not source.exists():
            raise DataError(
                f"{path} is made of {source}, which is not there. Copy it there, or make the mosaic again.",
                code="PW401",
            )
        elif not has_signature(source):
            raise DataError(
                f"{path} is made of {source}, which is no TIFF, PNG, JPEG, JPEG 2000, WebP, BMP, GIF or HFA file. "
                "Convert it to GeoTIFF (gdal_translate), and make the mosaic of that.",
                code="PW404",
            )


def check_opened_mosaic(path: Path, source: DatasetReader) -> None:
    """See that a mosaic in an archive or on a server, which was opened, names no files elsewhere.

    Raises:
        DataError: it does.
    """
    _sources(path, source.tags(ns="xml:VRT").get("xml:VRT", "").encode())


def _sources(path: Path, text: bytes) -> list[Path]:
    """Return the files that a mosaic names, after seeing that each place is allowed."""
    try:
        # GDAL takes all XML for UTF-8, whatever its first line says. What we check has to be what GDAL reads.
        root = ET.fromstring(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not in UTF-8 (its byte {error.start:,} is not), so GDAL would look for files of other names. "
            "Save it as UTF-8, or make it again (gdalbuildvrt).",
            code="PW404",
        ) from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(
            f"{path} is no mosaic: its XML cannot be read ({error}). Make it again (gdalbuildvrt).", code="PW404"
        ) from None
    if root.tag != "VRTDataset" or root.get("subClass") not in KINDS:
        raise DataError(f"{path} is no plain mosaic of images. Make it with gdalbuildvrt or gdalwarp.", code="PW404")
    if root.find(".//PixelFunctionCode") is not None:
        raise DataError(
            f"{path} holds program code, which is not run. Compute the bands, and store them as GeoTIFF.", code="PW405"
        )
    found = []
    for element in root.iter():
        domain = element.get("domain") if element.tag == "Metadata" else None
        if domain in FILES_IN_METADATA:
            for entry in element:
                _place(path, entry.text or "", relative=False, certain=False)
        if element.tag in FREE_TEXT or element.tag == "Metadata":
            continue
        certain = element.tag in ("SourceFilename", "SourceDataset")
        place = _place(path, element.text or "", relative=element.get("relativeToVRT") == "1", certain=certain)
        if certain and place is not None:
            found.append(place)
    return found


def _place(path: Path, text: str, *, relative: bool, certain: bool) -> Path | None:
    """Return the file that a text names, None if it may name none.

    Raises:
        DataError: it lies elsewhere than below the mosaic's folder or an allowed one.
    """
    text = text.strip()
    remote = "://" in text or "/vsi" in text
    if not text or not (certain or remote or text[0] in "/\\<" or ".." in text or text[1:3] in (":\\", ":/")):
        return None
    if (remote and not str(path).startswith("/vsi")) or text[0] == "<":
        raise DataError(
            f"{path} names {text[:200]!r}, which is not read: files of a mosaic are local, and lie below its folder.",
            code="PW405",
        )
    folder = path.absolute().parent
    # GDAL takes a path that is not marked as relative from where the command is given.
    place = folder / text if relative else Path(text).absolute()
    # Only `..` after a link needs the disk to tell where it leads.
    place = place.resolve() if ".." in place.parts else place
    more = [Path(each).absolute() for each in os.environ.get(FOLDERS, "").split(os.pathsep) if each]
    if not any(place.is_relative_to(each) for each in (folder, folder.resolve(), *more)):
        raise DataError(
            f"{path} is made of {place}, which lies outside its folder. Move the mosaic to a folder above its files, "
            f"or allow their folder: export {FOLDERS}={place.parent}.",
            code="PW405",
        )
    return place
