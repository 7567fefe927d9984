"""What GDAL calls a file that the user named: a path, an address in the network, or a place inside an archive."""

import re
from pathlib import Path

VIRTUAL = {
    **{"http": "/vsicurl/http://", "https": "/vsicurl/https://", "ftp": "/vsicurl/ftp://"},
    **{"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/", "azure": "/vsiaz/", "adl": "/vsiadls/", "abfs": "/vsiadls/"},
    **{"oss": "/vsioss/", "swift": "/vsiswift/", "hdfs": "/vsihdfs/", "file": "/"},
}
"""Scheme of an address -> what GDAL begins its name for it with (https://gdal.org/user/virtual_file_systems.html)."""
ARCHIVES = "zip|tar|7z|rar|gzip"


def gdal_name(path: str | Path) -> str:
    """Return GDAL's name of what the user gave: ``s3://bucket/a.tif`` is ``/vsis3/bucket/a.tif``.

    pathlib takes two slashes for one. So the second slash of ``http://`` may be missing, and so may that of
    ``/vsizip//folder/a.zip``, which tells an absolute path from a relative one; both are put back.
    """
    text = Path(path).as_posix() if isinstance(path, Path) else path
    if match := re.match(r"(\w\w+):/+", text):
        scheme = match[1].lower()
        if scheme in VIRTUAL:
            text = VIRTUAL[scheme] + text[match.end() :]
    text = re.sub(r"\b(https?|ftp):/+", r"\1://", text)
    if match := re.match(rf"(/vsi(?:{ARCHIVES})/)(?!/|vsi|\{{)(.+)", text):
        start, rest = match.groups()
        if not _begins_with_file(Path(rest)) and _begins_with_file(Path("/" + rest)):
            return f"{start}/{rest}"
    return text


def shown(path: str | Path) -> str:
    """Return an address as the user wrote it, with both slashes."""
    return re.sub(rf"\b({'|'.join(VIRTUAL)}):/+(?=\w)", r"\1://", Path(path).as_posix())


def is_local(path: str | Path) -> bool:
    """Return whether the file system of this machine has the path, rather than a network or an archive."""
    return not gdal_name(path).startswith("/vsi")


def local_path(path: str | Path) -> Path:
    """Return the path of a local file, which may be given as ``file:///home/me/a.tif``."""
    return Path(gdal_name(path)) if is_local(path) else Path(path)


def absolute(path: Path, base: Path | None = None) -> Path:
    """Return a path that holds wherever one stands; addresses and places in archives hold anyway.

    Args:
        base: where relative paths count from; None: the current folder.
    """
    if not is_local(path):
        return path
    return ((base or Path.cwd()) / local_path(path).expanduser()).resolve()


def _begins_with_file(path: Path) -> bool:
    # The file is the archive; what follows is inside of it.
    return any(each.is_file() for each in (path, *path.parents))
