"""Where crops are aimed at: places that hold a class that was drawn, and places where the network errs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, Int64, UInt16
from torch import Tensor

from pixelwise.config import SamplingConfig
from pixelwise.data.scenes import Scene
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE

CELL = 32
"""Side in pixels of the squares that scenes are divided into."""
STRIP_PIXELS = 1 << 22
NEWEST = 0.5
"""Share of the newest error in what is known of a cell."""
ROUND = 50
"""Steps after which the errors that were found begin to count. Crops are read ahead up to there and not beyond, so the
result does not depend on how far ahead."""


@dataclass(frozen=True)
class Place:
    """Where a crop is from."""

    scene: int
    window: Window


class Targets:
    """The cells of all scenes that have labelled pixels: how many of each class, and how wrong the network was there.

    Draws use the errors that were known when the round began (`ROUND`).
    """

    def __init__(self, scenes: Sequence[Scene], classes: int, config: SamplingConfig) -> None:
        """Read the labels of all scenes once.

        Raises:
            DataError: a file that does not work.
        """
        self.config = config
        self.sizes = [(scene.info.height, scene.info.width) for scene in scenes]
        found = [_cells_of(scene, classes) for scene in scenes]
        self.index: list[Int32[np.ndarray, "rows columns"]] = []
        """Of each scene: the number of each cell; -1 for one without labels."""
        total = 0
        for counts in found:
            labelled = counts.any(axis=2)
            numbers = np.full(labelled.shape, -1, np.int32)
            numbers[labelled] = total + np.arange(int(labelled.sum()), dtype=np.int32)
            self.index.append(numbers)
            total += int(labelled.sum())
        places = [np.argwhere(numbers >= 0) for numbers in self.index]
        self._scene = np.repeat(np.arange(len(scenes), dtype=np.int32), [len(place) for place in places])
        self._corner = np.concatenate(places).astype(np.int32) * CELL
        counts = np.concatenate([counts[counts.any(axis=2)] for counts in found])
        self._sums: Int64[np.ndarray, "K N"] = np.cumsum(counts.T, axis=1, dtype=np.int64)
        self.class_chances = class_chances(self._sums[:, -1], config.rarity)
        # NaN: no crop was there yet.
        self.errors: Float32[np.ndarray, " N"] = np.full(total, np.nan, np.float32)
        self.drawn_from = self.errors.copy()
        self._prepare()

    def begin_round(self) -> None:
        """Let the errors that were recorded so far count from now on."""
        self.drawn_from = self.errors.copy()
        self._prepare()

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs to draw the same."""
        return {"errors": torch.from_numpy(self.errors.copy()), "drawn_from": torch.from_numpy(self.drawn_from)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a state, unless the data has other cells now."""
        if len(state["errors"]) == len(self.errors):
            self.errors, self.drawn_from = state["errors"].numpy().copy(), state["drawn_from"].numpy()
            self._prepare()

    def draw(self, side: int, rng: np.random.Generator) -> Place | None:
        """Return where a crop is to be read; None: anywhere.

        Args:
            side: of its window, in pixels. A window of `CELL` or more holds the whole cell.
        """
        choice = rng.random()
        if choice < self.config.balanced:
            sums = self._sums[rng.choice(len(self.class_chances), p=self.class_chances)]
            cell = int(np.searchsorted(sums, rng.integers(sums[-1]), side="right"))
        elif choice < self.config.balanced + self.config.hard:
            cell = int(np.searchsorted(self._hardness, rng.random() * self._hardness[-1], side="right"))
            cell = min(cell, len(self._hardness) - 1)
        else:
            return None
        scene = int(self._scene[cell])
        corner, sizes = self._corner[cell], self.sizes[scene]
        top, left = (_start(int(at), side, size, rng) for at, size in zip(corner, sizes, strict=True))
        return Place(scene, Window(top, left, side, side))

    def record(self, place: Place, error: float) -> None:
        """Keep the share of pixels, 0 to 1, that were wrong in a crop, for all cells of its window."""
        window = place.window
        rows, columns = (
            slice(max(0, start) // CELL, max(0, -(-(start + length) // CELL)))
            for start, length in ((window.top, window.height), (window.left, window.width))
        )
        cells = self.index[place.scene][rows, columns]
        cells = cells[cells >= 0]
        before = self.errors[cells]
        self.errors[cells] = np.where(np.isnan(before), error, before + NEWEST * (error - before))

    def _prepare(self) -> None:
        known = ~np.isnan(self.drawn_from)
        # Where no crop was yet, the error is taken for the mean of the others.
        mean = float(self.drawn_from[known].mean()) if known.any() else 1.0
        hardness = np.where(known, self.drawn_from, mean).astype(np.float64)
        self._hardness: Float64[np.ndarray, " N"] = np.cumsum(hardness if hardness.any() else np.ones_like(hardness))


def class_chances(pixels: Int64[np.ndarray, " K"], rarity: float) -> Float64[np.ndarray, " K"]:
    """Return how likely each class is drawn: by its frequency to the power of -``rarity``; 0 for one without pixels."""
    present = pixels > 0
    chances = np.zeros(len(pixels))
    chances[present] = (pixels[present] / pixels.sum()) ** -rarity
    return chances / chances.sum()


def _cells_of(scene: Scene, classes: int) -> UInt16[np.ndarray, "rows columns K"]:
    """Return the pixels of each class in each cell of a scene, read strip by strip."""
    height, width = scene.info.height, scene.info.width
    columns = -(-width // CELL)
    step = max(1, STRIP_PIXELS // width // CELL) * CELL
    strips = []
    for top in range(0, height, step):
        mask = scene.read(Window(top, 0, min(step, height - top), width)).mask
        rows = -(-len(mask) // CELL)
        padded = np.full((rows * CELL, columns * CELL), IGNORE, np.int16)
        padded[: len(mask), :width] = mask
        cells = padded.reshape(rows, CELL, columns, CELL)
        strips.append(np.stack([(cells == k).sum(axis=(1, 3), dtype=np.uint16) for k in range(classes)], axis=-1))
    return np.concatenate(strips)


def _start(corner: int, side: int, size: int, rng: np.random.Generator) -> int:
    """Return where a window begins along one axis: it holds the cell, or lies in it if it is smaller."""
    low, high = sorted((corner + CELL - side, corner))
    # As for windows from anywhere: inside of the scene or, where that is smaller, around it.
    first, last = sorted((0, size - side))
    return int(rng.integers(min(max(low, first), last), min(max(high, first), last) + 1))
