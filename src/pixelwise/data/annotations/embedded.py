"""Pictures inside of other files: small ones decoded, images kept as files, since images are read from files."""

import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.files import replacing

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
"""Of embedded images, and the suffix of the file that is made."""


def cache_folder() -> Path:
    """Return where files are kept that can be made again: ``pixelwise`` in the system's folder for such."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pixelwise" / "embedded"


def kept_image(content: bytes, name: str, source: Path) -> Path:
    """Write an embedded image to a file, once, and return its path.

    Args:
        name: of the image; its stem is kept.
        source: the file that embeds it, for the message.

    Raises:
        DataError: it is no image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=list(FORMATS)) as picture:
            suffix = FORMATS[picture.format or "PNG"]
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{source} embeds an image that cannot be read: {error}. Export it again.") from None
    stem = re.sub(r"[^\w.-]+", "_", Path(name).stem)[:80] or "image"
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = cache_folder() / digest[:2] / f"{stem}-{digest}{suffix}"
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path


def decoded_picture(content: bytes, size: tuple[int, int] | None = None) -> Bool[np.ndarray, "h w"]:
    """Return which pixels of a small picture are set: opaque ones where it has transparency, else those above 0.

    Args:
        size: height and width that it must have.

    Raises:
        DataError: it is no PNG, or has another size.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if size is not None and (picture.height, picture.width) != size:
                raise DataError(
                    f"A bitmap has {picture.width}x{picture.height} pixels, but its place {size[1]}x{size[0]}.",
                    code="PW430",
                )
            clear = "A" in picture.getbands() or "transparency" in picture.info
            values = np.asarray(picture.convert("RGBA"))[..., 3] if clear else np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"A bitmap in the annotations is no PNG: {error}. Export them again.", code="PW430") from None
    return (values if values.ndim == 2 else values.max(axis=-1)) > 0
