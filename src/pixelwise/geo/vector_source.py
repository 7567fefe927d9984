"""Which vector files are opened: those of plain formats, never one that sends GDAL to other files or to the network."""

import lzma
import re
import zipfile
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from pixelwise.errors import DataError
from pixelwise.source_name import gdal_name, is_local, local_path, shown

DRIVERS = {
    *("GPKG", "SQLite", "ESRI Shapefile", "FlatGeobuf", "OpenFileGDB", "MapInfo File"),
    *("GeoJSON", "GeoJSONSeq", "TopoJSON", "ESRIJSON", "JSONFG", "KML", "LIBKML", "GML"),
}
"""GDAL's drivers of plain files. What else GDAL has may read other files or ask servers: OGR VRT, WFS, GDALG, ..."""
SUFFIXES = (
    *(".gpkg", ".sqlite", ".db", ".shp", ".fgb", ".gdb", ".tab", ".mif"),
    *(".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson", ".topojson", ".kml", ".gml", ".xml"),
)
BEGINNINGS = (b"SQLite format 3\0", b"fgb\x03fgb", b"\0\0\x27\x0a", b"!table", b"!TABLE", b"Version", b"VERSION")
"""Of GeoPackage and SQLite, FlatGeobuf, Shapefile, and MapInfo's TAB and MIF."""
PARQUET = b"PAR1"
INDIRECT = (b"<OGRVRTDataSource", b"<OGRWFSDataSource", b"gdal_streamed_alg", b"WFS_Capabilities")
"""GDAL takes a file that holds one of these in its first bytes for something that names other sources."""
_ESCAPE, _BLANK = re.compile(rb"\\u00([0-7][0-9a-f])", re.I), re.compile(rb"\s+|/\*.*?\*/", re.S)
_LINKED = re.compile(rb"""["']type["']:["'](link|url)""", re.I)
_ADDRESS, _CRS = re.compile(rb"""["'](href|url)["']""", re.I), re.compile(rb"""["']crs["']""", re.I)
HEADER = 8192
LARGEST_INFLATION = 200
"""Times that an archive may grow when it is unpacked."""
SMALL_ARCHIVE = 1 << 28


def split_layer(path: str | Path) -> tuple[Path, str | None]:
    """Part ``county.gpkg:fields`` in a file and the name of a layer; None where no layer is named."""
    path = local_path(path)
    before, colon, layer = str(path).rpartition(":")
    if not colon or not layer or (is_local(path) and path.exists()):
        return path, None
    known = Path(before).exists() if is_local(before) else Path(before).suffix.lower() in SUFFIXES
    return (Path(before), layer) if known else (path, None)


def is_geodatabase(path: Path) -> bool:
    """Return whether a folder is a File Geodatabase."""
    return path.is_dir() and (path.suffix.lower() == ".gdb" or any(path.glob("a0000000*.gdbtable")))


def is_parquet(path: Path) -> bool:
    """Return whether a local file is Parquet, by its first bytes."""
    return is_local(path) and path.is_file() and _header(path).startswith(PARQUET)


def vector_source(path: Path) -> str:
    """Return GDAL's name of a vector file, after a look at what it is.

    A .zip or .kmz gives the one vector file in it.

    Raises:
        DataError: no file or geodatabase, a format that is not one of plain files, or an archive that grows beyond
            measure.
    """
    if not is_local(path):
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(
                f"{shown(path)} has a name that does not end as a vector file's does ({', '.join(SUFFIXES)}). "
                "Download it, or name the file inside the archive.",
                code="PW420",
            )
        return gdal_name(path)
    if is_geodatabase(path):
        return str(path)
    if not path.is_file():
        raise DataError(f"{path} is neither a file of polygons nor a .gdb folder. Name such a file.", code="PW420")
    header = _header(path)
    if header.startswith(b"PK\3\4"):
        return _member(path)
    _require_plain(header, str(path))
    if header.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b"\x1e"):
        with path.open("rb") as file:
            _require_named_system(file, str(path))
    return str(path)


def require_driver(driver: str, path: Path) -> None:
    """See that GDAL took a file for what its first bytes say.

    Raises:
        DataError: another driver opened it.
    """
    if driver not in DRIVERS:
        raise DataError(
            f"{path} is of the format {driver}, which is not read here. Export it as a GeoPackage.", code="PW420"
        )


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEADER)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", code="PW420") from None


def _require_plain(header: bytes, name: str) -> None:
    indirect = [mark.decode().strip("<") for mark in INDIRECT if mark in header]
    if indirect:
        raise DataError(
            f"{name} is not a file of polygons but names other sources ({indirect[0]}), which are not followed. "
            "Export the polygons as a GeoPackage.",
            code="PW405",
        )
    text = header.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not (text.startswith((*BEGINNINGS, b"{", b"[", b"\x1e")) or header.startswith(BEGINNINGS) or _is_xml(text)):
        raise DataError(
            f"{name} cannot be read as polygons: it is corrupt, or not a vector file. Give a GeoPackage, GeoJSON, "
            "Shapefile (the .shp), FlatGeobuf, GeoParquet, KML, GML or a .gdb folder.",
            code="PW420",
        )


def _require_named_system(file: BufferedIOBase | IO[bytes], name: str) -> None:
    """See that a GeoJSON names its coordinate system: GDAL would ask the server of one that is an address."""
    found, before = set[re.Pattern[bytes]](), b""
    while chunk := file.read(1 << 20):
        text = _BLANK.sub(b"", _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), before + chunk))
        found |= {pattern for pattern in (_LINKED, _ADDRESS, _CRS) if pattern.search(text)}
        # What lies across two chunks is seen with the second.
        before = text[-200:]
    if len(found) == 3:
        raise DataError(
            f"{name} says its coordinate system by an address in the network, which is not asked. Export the polygons "
            "as a GeoPackage.",
            code="PW405",
        )


def _is_xml(text: bytes) -> bool:
    # The first element of KML is kml; that of GML may be any, and the name space is declared in it.
    element = re.search(rb"<(?:\w+:)?([A-Za-z_]\w*)", re.sub(rb"<!--.*?-->", b"", text, flags=re.DOTALL))
    return text.startswith(b"<") and element is not None and (element[1] == b"kml" or b"opengis.net/gml" in text)


def _member(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > max(SMALL_ARCHIVE, LARGEST_INFLATION * path.stat().st_size):
                raise DataError(
                    f"{path} would grow to {unpacked / 2**30:.1f} GiB when unpacked, more than {LARGEST_INFLATION} "
                    "times its size. Unpack it yourself if that is right.",
                    code="PW420",
                )
            folders = {match[1] for entry in entries if (match := re.match(r"(.*\.gdb)/", entry.filename, re.I))}
            files = {e.filename for e in entries if e.filename.lower().endswith(SUFFIXES) and not e.is_dir()}
            # A Shapefile brings an .xml of its own, and a geodatabase holds files.
            found = folders or {name for name in files if not name.lower().endswith(".xml")} or files
            if len(found) != 1:
                listed = ", ".join(sorted(found)[:5]) or "none"
                raise DataError(
                    f"{path} holds {len(found)} vector files where one is expected ({listed}). Unpack it, or name the "
                    f"one that is meant, as /vsizip/{path.absolute()}/FILE.",
                    code="PW420",
                )
            (name,) = found
            if not folders:
                with archive.open(name) as file:
                    _require_plain(file.read(HEADER), f"{name} in {path}")
                with archive.open(name) as file:
                    _require_named_system(file, f"{name} in {path}")
    except DataError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}. It is corrupt, or encrypted.", code="PW420") from None
    return f"/vsizip/{path.absolute()}/{name}"
