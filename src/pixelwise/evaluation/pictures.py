"""The pictures that explain an evaluation: every scene, and the worst tiles."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Integer, Shaped

from pixelwise.errors import ConfigError
from pixelwise.files import read_arrays, replacing
from pixelwise.geo.label_map import to_picture

WORST = 12
"""How many tiles are kept to look at."""
PICTURE = 512
"""Longest side of a scene's picture; larger scenes keep every n-th pixel."""


@dataclass(frozen=True)
class Picture:
    """A piece of a scene with its truth and its prediction."""

    name: str
    image: Shaped[np.ndarray, "C h w"]
    """Raw values; 8-bit colours when it comes from a file."""
    truth: Int16[np.ndarray, "h w"]
    prediction: Integer[np.ndarray, "h w"]
    miou: float | None

    def part(self, first: int, end: int, name: str, miou: float) -> "Picture":
        """Return a copy of the columns from ``first`` to ``end`` - 1."""
        columns = np.s_[..., first:end]
        image, truth, prediction = (a[columns].copy() for a in (self.image, self.truth, self.prediction))
        return Picture(name, image, truth, prediction, miou)


class Thumbnail:
    """Every n-th pixel of a scene, gathered strip by strip."""

    def __init__(self, height: int, width: int) -> None:
        self.step = -(-max(height, width) // PICTURE)
        self._strips: list[Picture] = []

    def add(self, top: int, strip: Picture) -> None:
        """Take a strip of the full width that begins at row ``top``."""
        n, first = self.step, -top % self.step
        image, truth, prediction = (a[..., first::n, ::n].copy() for a in (strip.image, strip.truth, strip.prediction))
        self._strips.append(Picture("", image, truth, prediction, None))

    def picture(self, name: str, miou: float | None) -> Picture:
        """Return the strips as one picture."""
        parts = [(strip.image, strip.truth, strip.prediction) for strip in self._strips]
        image, truth, prediction = (np.concatenate(part, axis=-2) for part in zip(*parts, strict=True))
        return Picture(name, image, truth, prediction, miou)


@dataclass
class WorstTiles:
    """The `WORST` tiles with the lowest mIoU."""

    _heap: list[tuple[float, int, Picture]] = field(default_factory=list)
    _seen: int = 0

    def wants(self, miou: float) -> bool:
        """Return whether a tile is among the worst so far; of equal ones the first stay."""
        return len(self._heap) < WORST or -miou > self._heap[0][0]

    def add(self, tile: Picture) -> None:
        """Take a tile with a score, and drop the best one if there are too many."""
        assert tile.miou is not None
        self._seen += 1
        # heapq drops the smallest. The minus signs make that the best tile and, of equal ones, the last.
        entry = (-tile.miou, -self._seen, tile)
        heapq.heappush(self._heap, entry) if len(self._heap) < WORST else heapq.heappushpop(self._heap, entry)

    def ranked(self) -> tuple[Picture, ...]:
        """Return the tiles, worst first."""
        return tuple(tile for *_, tile in sorted(self._heap, key=lambda entry: entry[:2], reverse=True))


def save_pictures(path: Path, scenes: Sequence[Picture], worst: Sequence[Picture]) -> None:
    """Save an evaluation's pictures for the report, which then needs neither the model nor the data."""
    arrays: dict[str, np.ndarray] = {}
    for kind, pictures in (("scene", scenes), ("tile", worst)):
        for i, picture in enumerate(pictures):
            arrays[f"{kind}/{i}/image"] = np.moveaxis(to_picture(picture.image), -1, 0)
            arrays[f"{kind}/{i}/truth"] = picture.truth
            arrays[f"{kind}/{i}/prediction"] = picture.prediction
            about = [picture.name, "" if picture.miou is None else repr(picture.miou)]
            arrays[f"{kind}/{i}/about"] = np.array(about)
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def load_pictures(path: Path) -> tuple[list[Picture], list[Picture]]:
    """Return the pictures that `save_pictures` saved: of the scenes, and of the worst tiles, worst first.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        arrays = read_arrays(path)
        return _pictures(arrays, "scene"), _pictures(arrays, "tile")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}). Remove it, and evaluate again for the "
            "pictures.",
            code="PW615",
        ) from None


def _pictures(arrays: dict[str, np.ndarray], kind: str) -> list[Picture]:
    pictures: list[Picture] = []
    while f"{kind}/{len(pictures)}/about" in arrays:
        key = f"{kind}/{len(pictures)}"
        name, miou = arrays[f"{key}/about"].tolist()
        image, truth, prediction = (arrays[f"{key}/{part}"] for part in ("image", "truth", "prediction"))
        if image.dtype != np.uint8 or image.ndim != 3 or not image.shape[1:] == truth.shape == prediction.shape:
            raise ValueError(f"the pictures of {key} do not belong together")
        if truth.dtype != np.int16 or prediction.dtype.kind not in "iu":
            raise ValueError(f"the pictures of {key} hold no classes")
        pictures.append(Picture(str(name), image, truth, prediction, float(miou) if miou else None))
    return pictures
