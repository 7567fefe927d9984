"""Images without labels, which a network learns from too."""

from collections.abc import Callable, Collection, Sequence
from zlib import crc32

import numpy as np
from jaxtyping import Int16

from pixelwise.config import DataConfig, as_places
from pixelwise.data.folder import Naming, distinct_names, find_images
from pixelwise.data.scenes import Labels, Scene, keep_in_memory, require_same_kind
from pixelwise.errors import DataError
from pixelwise.geo.colours import open_image
from pixelwise.geo.raster import Window, describe

HOLDS_DATA = np.int16(0)
"""What a mask says where the class is not known, but there is data. A scene makes `IGNORE` of the rest."""
READ = 1 << 20
"""Bytes of a file that are read at once."""


class NoLabels(Labels):
    """The labels of an image that has none."""

    def read(self, window: Window) -> Int16[np.ndarray, "h w"]:
        """Return `HOLDS_DATA` everywhere."""
        return np.full((window.height, window.width), HOLDS_DATA)


def open_unlabelled(
    data: DataConfig, like: Scene, scored: Collection[Scene], say: Callable[[str], None]
) -> list[Scene]:
    """Open the images of ``[data].unlabelled``, without those that the network is scored on.

    Args:
        like: a training scene, whose bands and type they must have.
        scored: scenes of validation and test.
        say: called with a sentence about what is left out.

    Raises:
        DataError: a file that does not work, other bands or another type, or nothing left.
    """
    assert data.unlabelled is not None, "only called with a place"
    naming, places = Naming(image=data.image_pattern), as_places(data.unlabelled)
    found = [path for place in places for path in find_images(place) if naming.image_name(path) is not None]
    left_out = {scene.info.path.resolve() for scene in scored}
    kept = [path for path in found if path.resolve() not in left_out]
    if len(kept) < len(found):
        say(f"{len(found) - len(kept)} images of [data].unlabelled are for validation or test, and so left out.")
    if not kept:
        raise DataError(
            f"[data].unlabelled = {', '.join(map(str, places))} leaves no image to learn from. Name other images.",
            code="PW402",
        )
    colours = len(like.reader.bands) == 3
    scenes = [
        Scene(name, open_image(describe(path), bands=data.bands, nodata=data.nodata, colours=colours), NoLabels())
        for name, path in zip(distinct_names(kept), kept, strict=True)
    ]
    require_same_kind([like, *scenes])
    keep_in_memory(scenes)
    return scenes


def checksums(scenes: Sequence[Scene]) -> dict[str, list[int]]:
    """Return for each scene a checksum of its file, and 0 for the labels that it does not have.

    Files are not decoded, since there may be many more than labelled ones. So of a mosaic it is that of its list.

    Raises:
        DataError: a file that cannot be read.
    """
    return {scene.name: [_checksum(scene), 0] for scene in scenes}


def _checksum(scene: Scene) -> int:
    found = 0
    try:
        with scene.info.path.open("rb") as file:
            while part := file.read(READ):
                found = crc32(part, found)
    except OSError as error:
        raise DataError(f"{scene.info.path} cannot be read: {error.strerror}.") from None
    return found
