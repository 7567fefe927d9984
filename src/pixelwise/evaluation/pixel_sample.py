"""A random sample of labelled pixels with their logits, in memory that does not grow with the scenes."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int64

from pixelwise.geo.raster import Window
from pixelwise.inference.sampled_logits import Cells
from pixelwise.labels import IGNORE

LARGEST_PIXELS = 1 << 18
"""Pixels that are kept at most."""
LARGEST_VALUES = 1 << 23
"""Logits that are kept at most: 32 MB."""
_PATTERN = (509, 521)
"""Sides of the pattern of random numbers that is laid over scenes: primes, so that no grid of tiles keeps step."""
_SEED = 0xCA1B


@dataclass(frozen=True)
class SampledPixels:
    """Labelled pixels, each drawn with the same probability."""

    logits: Float32[np.ndarray, "n K"]
    """Blended as in prediction."""
    truth: Int64[np.ndarray, " n"]
    labelled: int
    """Pixels that they were drawn from; as many as there are drawn where all of them fit."""


@dataclass
class PixelSample:
    """Draws pixels while scenes are predicted.

    Each pixel has a random number, which depends on its place alone. Those whose number is below a threshold are
    kept. The threshold is halved when there is no more room, so each pixel had the same chance in the end.
    """

    classes: int
    labelled: int = 0
    _share: float = 1.0
    _shift: tuple[int, int] = (0, 0)
    _shown: list["_Drawn"] = field(default_factory=list)
    """Pixels of the scene at hand whose truth is not known yet."""
    _kept: list["_Drawn"] = field(default_factory=list)
    _pattern: Float64[np.ndarray, "h w"] = field(default_factory=lambda: np.random.default_rng(_SEED).random(_PATTERN))

    @property
    def room(self) -> int:
        """Pixels that are kept at most."""
        return max(1, min(LARGEST_PIXELS, LARGEST_VALUES // self.classes))

    def begin(self, scene: int) -> None:
        """Begin the scene of a number."""
        down, across = np.random.default_rng([_SEED, scene]).integers(0, _PATTERN)
        self._shift, self._shown = (int(down), int(across)), []

    def show(self, cells: Cells) -> None:
        """Draw pixels of a strip of the scene; strips come from the top."""
        where = cells.pixels
        rows, columns = (np.arange(*ends) for ends in ((where.top, where.bottom), (where.left, where.right)))
        places = np.ix_((rows + self._shift[0]) % _PATTERN[0], (columns + self._shift[1]) % _PATTERN[1])
        numbers = self._pattern[places]
        chosen = numbers < self._share
        while sum(map(len, self._shown)) + np.count_nonzero(chosen) > self.room:
            self._thin()
            chosen = numbers < self._share
        down, across = np.nonzero(chosen)
        logits = cells.at(rows[down], columns[across])
        self._shown.append(_Drawn(numbers[chosen], rows[down], columns[across], logits, np.zeros(len(down), np.int64)))

    def settle(self, window: Window, mask: Int16[np.ndarray, "h w"]) -> None:
        """Give the truth of rows of the full width, which come from the top; `IGNORE` is left out."""
        self.labelled += int(np.count_nonzero(mask != IGNORE))
        waiting, self._shown = self._shown, []
        for drawn in waiting:
            known = drawn.rows < window.top + window.height
            now, later = drawn.part(known), drawn.part(~known)
            now.truth[:] = mask[now.rows - window.top, now.columns - window.left]
            self._kept.append(now.part(now.truth != IGNORE))
            if len(later):
                self._shown.append(later)
        while sum(map(len, self._kept)) > self.room:
            self._thin()

    def pixels(self) -> SampledPixels:
        """Return what was drawn."""
        kept = [each for each in self._kept if len(each)]
        if not kept:
            return SampledPixels(np.empty((0, self.classes), np.float32), np.empty(0, np.int64), self.labelled)
        logits, truth = (np.concatenate(part) for part in zip(*((d.logits, d.truth) for d in kept), strict=True))
        return SampledPixels(logits, truth, self.labelled)

    def _thin(self) -> None:
        self._share /= 2
        self._shown, self._kept = (
            [drawn.part(drawn.numbers < self._share) for drawn in each] for each in (self._shown, self._kept)
        )


@dataclass(frozen=True)
class _Drawn:
    numbers: Float64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " n"]
    columns: Int64[np.ndarray, " n"]
    logits: Float32[np.ndarray, "n K"]
    truth: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, chosen: np.ndarray) -> "_Drawn":
        """Return a copy of some of them."""
        return _Drawn(
            self.numbers[chosen], self.rows[chosen], self.columns[chosen], self.logits[chosen], self.truth[chosen]
        )
