"""The polygons of a file as labels: which class each of them is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from pixelwise.config import DataConfig
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.polygon_labels import PolygonLabels, count_touching, labels_for_scene
from pixelwise.geo.raster import RasterInfo
from pixelwise.geo.vector import Polygons, read_polygons
from pixelwise.labels import IGNORE, Classes


class Drawing:
    """The polygons of a file. They become the labels of scenes."""

    def __init__(self, data: DataConfig, classes: Classes, place: Path, folders: Sequence[Path]) -> None:
        self.polygons = read_polygons(place, attribute=data.attribute, layer=data.layer)
        self.place, self.folders, self.data = place, folders, data
        self.background = classes.names.index(data.background) if data.background in classes.names else IGNORE
        self.boundary = classes.names.index(data.boundary) if data.boundary in classes.names else None
        taken = {self.background, self.boundary}
        self.class_of = _class_of_polygons(data, classes, self.polygons, taken, place)
        self.scenes = self.touched = 0

    def labels(self, image: RasterInfo) -> PolygonLabels:
        """Return the labels of a scene."""
        drawn = labels_for_scene(
            self.polygons,
            image,
            self.class_of,
            background=self.background,
            boundary=self.boundary,
            boundary_width=self.data.boundary_width,
            all_touched=self.data.all_touched,
        )
        self.scenes += 1
        self.touched += count_touching(self.polygons, image)
        return drawn

    def require_touching(self) -> None:
        """Check that some polygon is on some scene.

        Raises:
            DataError: no polygon touches any of them.
        """
        if not self.touched:
            raise DataError(
                f"None of the {len(self.polygons.geometries)} polygons in {self.place} touches any of the "
                f"{self.scenes} scenes in {', '.join(map(str, self.folders))}. Check that both lie in the same place "
                "and that their coordinate systems are right.",
                code="PW422",
            )


def _class_of_polygons(
    data: DataConfig, classes: Classes, polygons: Polygons, taken: set[int | None], place: Path
) -> Int16[np.ndarray, " n"]:
    free = [index for index in range(len(classes)) if index not in taken]
    if data.attribute is None or polygons.values is None:
        if len(free) != 1:
            raise ConfigError(
                f"[data].classes leaves {len(free)} classes for the polygons of {place} besides background "
                f"and boundary ({', '.join(classes.names[i] for i in free) or 'none'}). Name the column that tells "
                "them apart with [data].attribute, or keep one.",
                code="PW311",
            )
        return np.full(len(polygons.geometries), free[0], np.int16)
    listed = data.values or {name: [name] for name in classes.names}
    index = {str(value): classes.index(name) for name, values in listed.items() for value in values}
    index |= {str(value): IGNORE for value in data.ignore or []}
    found = [_listed_as(value, index) for value in polygons.values]
    strange = sorted(set(found) - set(index))
    if strange:
        more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
        raise DataError(
            f"{place} has {', '.join(map(repr, strange[:5]))}{more} in the column {data.attribute!r}, which no "
            f"class has. Map it with [data].values, or mark it ignored with ignore = [{strange[0]!r}].",
            code="PW423",
        )
    return np.array([index[value] for value in found], np.int16)


def _listed_as(value: object, index: dict[str, int]) -> str:
    # A yes-or-no column may be mapped as true, as 1 or as 'true'.
    spellings = [str(value).lower(), str(int(value)), str(value)] if isinstance(value, bool) else [str(value)]
    return next((each for each in spellings if each in index), spellings[0])
