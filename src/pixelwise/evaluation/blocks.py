"""What an evaluation counted block by block: enough for intervals of scores, and to compare runs on equal pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, Integer

from pixelwise.errors import ConfigError
from pixelwise.evaluation.metrics import confusion_matrix
from pixelwise.files import ensure_folder, read_arrays, replacing

BLOCK = 512
"""Side of a block in pixels. Pixels of one block are alike, so they are drawn together."""
ENOUGH_SCENES = 20
"""From so many scenes on, whole scenes are drawn instead of blocks."""
DRAWS = 2000
"""Random draws for an interval."""


@dataclass(frozen=True)
class BlockCounts:
    """Pixels of each class in each block of `BLOCK` x `BLOCK` pixels; blocks of one scene follow each other."""

    scenes: tuple[str, ...]
    """Name of the scene of each block."""
    places: Int64[np.ndarray, "n 2"]
    """Row and column of each block in its scene, in blocks."""
    right: Int64[np.ndarray, "n K"]
    """Pixels whose class was found."""
    truth: Int64[np.ndarray, "n K"]
    predicted: Int64[np.ndarray, "n K"]

    def chosen(self, kept: Sequence[int]) -> "BlockCounts":
        """Return some of the blocks."""
        rows = np.asarray(kept, np.int64)
        scenes = tuple(self.scenes[i] for i in rows)
        return BlockCounts(scenes, self.places[rows], self.right[rows], self.truth[rows], self.predicted[rows])


@dataclass
class BlockCounter:
    """Counts blocks while scenes go by in strips."""

    classes: int
    _counts: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)

    def add(
        self, scene: str, top: int, truth: Integer[np.ndarray, "h W"], prediction: Integer[np.ndarray, "h W"]
    ) -> Int64[np.ndarray, "K K"]:
        """Count a strip of a scene that begins at row ``top`` and lies within a row of blocks; return its matrix."""
        total = np.zeros((self.classes, self.classes), np.int64)
        for left in range(0, truth.shape[1], BLOCK):
            columns = np.s_[:, left : left + BLOCK]
            matrix = confusion_matrix(truth[columns], prediction[columns], self.classes)
            counts = np.stack([np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])
            key = (scene, top // BLOCK, left // BLOCK)
            self._counts[key] = self._counts.get(key, 0) + counts
            total += matrix
        return total

    def blocks(self) -> BlockCounts:
        """Return what was counted, without blocks in which nothing counts."""
        kept = {key: counts for key, counts in self._counts.items() if counts[1].any()}
        counts = np.array(list(kept.values()), np.int64).reshape(-1, 3, self.classes)
        places = np.array([key[1:] for key in kept], np.int64).reshape(-1, 2)
        return BlockCounts(tuple(key[0] for key in kept), places, counts[:, 0], counts[:, 1], counts[:, 2])


def save_blocks(path: Path, blocks: BlockCounts) -> None:
    """Save an evaluation's counts."""
    ensure_folder(path.parent)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            allow_pickle=False,
            scenes=np.array(blocks.scenes, np.str_),
            places=blocks.places,
            right=blocks.right,
            truth=blocks.truth,
            predicted=blocks.predicted,
        )


def load_blocks(path: Path) -> BlockCounts:
    """Return what `save_blocks` saved.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        kept = read_arrays(path)
        scenes = tuple(map(str, kept["scenes"].tolist()))
        places, right, truth, predicted = (kept[key] for key in ("places", "right", "truth", "predicted"))
        if not places.shape == (len(scenes), 2) or not right.shape == truth.shape == predicted.shape:
            raise ValueError("its tables do not belong together")
        if len(right) != len(scenes) or any(each.dtype != np.int64 for each in (places, right, truth, predicted)):
            raise ValueError("its tables do not belong together")
        return BlockCounts(scenes, places, right, truth, predicted)
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} is damaged ({reason}). Remove it, and evaluate again.", code="PW615") from None


def drawn_ious(
    several: Sequence[BlockCounts], *, draws: int = DRAWS, seed: int = 0
) -> list[Float64[np.ndarray, "n K"]]:
    """Return the IoUs of each class in random draws of the blocks, the same draws for all.

    The block bootstrap (Efron 1979; blocks for dependent data: Künsch 1989): units are drawn with replacement, as many
    as there are. A unit is a scene where there are `ENOUGH_SCENES`, else a block.

    Args:
        several: counts of the same blocks by several networks.

    Returns:
        for each of them the IoUs of ``draws`` draws; NaN where a draw has no pixel of a class.
    """
    first = several[0]
    assert all(each.scenes == first.scenes and np.array_equal(each.places, first.places) for each in several)
    unit = unit_of(first)
    count = int(unit.max()) + 1
    chosen = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)
    found = []
    for blocks in several:
        right, truth, predicted = (
            _by_unit(each, unit, count) for each in (blocks.right, blocks.truth, blocks.predicted)
        )
        found.append(ious(chosen @ right, chosen @ truth, chosen @ predicted))
    return found


def unit_of(blocks: BlockCounts) -> Int64[np.ndarray, " n"]:
    """Return the number of the unit that each block belongs to: its scene, or itself where scenes are few."""
    names, scene = np.unique(np.array(blocks.scenes), return_inverse=True)
    return scene.astype(np.int64) if len(names) >= ENOUGH_SCENES else np.arange(len(blocks.scenes))


def ious(right: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> Float64[np.ndarray, "..."]:
    """Return intersection over union; NaN where neither truth nor prediction has the class."""
    union = np.asarray(truth + predicted - right, np.float64)
    return np.divide(right, union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_iou(of_classes: Float64[np.ndarray, "... K"]) -> Float64[np.ndarray, "..."]:
    """Return the mean over the classes that are there; NaN where none is."""
    there = ~np.isnan(of_classes)
    total = np.where(there, of_classes, 0).sum(axis=-1)
    count = there.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def interval(values: Float64[np.ndarray, " n"]) -> tuple[float, float] | None:
    """Return what 95 % of the draws lie between; None where none has a value."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _by_unit(counts: Int64[np.ndarray, "n K"], unit: Int64[np.ndarray, " n"], count: int) -> Float64[np.ndarray, "u K"]:
    summed = np.zeros((count, counts.shape[1]), np.float64)
    np.add.at(summed, unit, counts)
    return summed
