"""A label map and its confidence, checked once and then read window by window."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from pixelwise.errors import DataError
from pixelwise.geo.coordinates import placement
from pixelwise.geo.label_map import CONFIDENCE_NODATA, confidence_path
from pixelwise.geo.map_file import read_tags
from pixelwise.geo.outputs import CLASSES_TAG, is_product
from pixelwise.geo.raster import RasterReader, Window, describe

NUMBERS = 2**31
"""Labels are below this."""


class LabelSource:
    """A georeferenced raster of one band of whole numbers, and the confidence beside it if there is one."""

    def __init__(self, path: Path) -> None:
        """Open a map.

        Raises:
            DataError: no such map, one without a place on the ground, no map of whole numbers, a damaged tag, or a
                confidence of another size.
        """
        self.info = info = describe(path)
        crs, transform = placement(info, "its parcels have no place or area")
        self.info = info = replace(info, crs=crs, transform=transform)
        if info.count != 1 or np.dtype(info.dtype).kind not in "ui":
            raise DataError(
                f"{path} is no label map: it has {info.count} bands of {info.dtype}, not one of whole numbers. "
                "Name a map that `pixelwise predict` wrote."
            )
        self.crs, self.names = crs, _tagged_names(path)
        self._labels, self._confidence = RasterReader(path), None
        beside = confidence_path(path)
        # A file of that name that is somebody else's says nothing of this map.
        if is_product(beside):
            self._confidence = RasterReader(beside)
            if (self._confidence.info.height, self._confidence.info.width) != (info.height, info.width):
                raise DataError(f"{beside} has another size than {path}. Delete it, or map the scene again.")

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        return [self.info.path, *([] if self._confidence is None else [self._confidence.info.path])]

    @property
    def has_confidence(self) -> bool:
        """Whether there is a confidence beside the map."""
        return self._confidence is not None

    @property
    def colours(self) -> dict[int, tuple[int, int, int]]:
        """The red, green and blue of each number, from the map's colour table; empty if it has none."""
        if not self.info.paletted:
            return {}
        return {i: (red, green, blue) for i, (red, green, blue, _) in self._labels.colour_table().items()}

    def labels(self, window: Window) -> Int64[np.ndarray, "h w"]:
        """Return the numbers of a window, and -1 where there is no data or a negative number.

        Raises:
            DataError: a number that is too large for a label, or a file that cannot be read there.
        """
        values, valid = self._labels.read(window)
        if values.max(initial=0, where=valid) >= NUMBERS:
            raise DataError(
                f"{self.info.path} holds numbers above {NUMBERS - 1}, which are too large for labels. "
                "Name a map that `pixelwise predict` wrote."
            )
        return np.where(valid, values[0].astype(np.int64), -1).clip(min=-1)

    def confidence(self, window: Window) -> Int32[np.ndarray, "h w"]:
        """Return the confidence of a window, 0 to 254 for 0 to 1, and -1 where there is none."""
        assert self._confidence is not None
        values, _ = self._confidence.read(window)
        return np.where(values[0] == CONFIDENCE_NODATA, -1, values[0].astype(np.int32))


def _tagged_names(path: Path) -> dict[int, str]:
    tag = read_tags(path).get(CLASSES_TAG, "[]")
    try:
        return dict(enumerate(map(str, json.loads(tag))))
    except (json.JSONDecodeError, TypeError):
        raise DataError(
            f"{path} has the tag {CLASSES_TAG} = {tag!r}, which is no list of names. Write it as a JSON list."
        ) from None
