"""PNG files that are cut off, which GDAL does not notice."""

import struct
from pathlib import Path

from pixelwise.errors import DataError


def check_png_end(path: Path) -> None:
    """See that a PNG file has its last part.

    Raises:
        DataError: it is cut off.
    """
    # GDAL inflates a PNG as a whole, and gives zeros without a word where the file is cut off. (Without that
    # shortcut it would complain, but windows take four times as long.)
    with path.open("rb", buffering=0) as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind == b"IEND":
                return
            file.seek(length + 4, 1)
    raise DataError(
        f"{path} is cut off: its last part is missing. Copy it again, or move it out of the folder.", code="PW403"
    )
