"""Regions where a trained network is sure of another class than the labels have: likely mistakes in the labels."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float32, Int16, Shaped
from rasterio.features import shapes

from pixelwise.config import Config
from pixelwise.data.scenes import Scene
from pixelwise.data.split import Split, open_split
from pixelwise.errors import ConfigError
from pixelwise.evaluation.learned_from import learned_scenes
from pixelwise.evaluation.pictures import Picture
from pixelwise.fast.fuse import fuse
from pixelwise.geo.raster import Window
from pixelwise.inference.images import require_fitting
from pixelwise.inference.options import TileOptions
from pixelwise.inference.tiling import predict_strips
from pixelwise.labels import IGNORE, Classes
from pixelwise.models import Segmenter
from pixelwise.optional import optional_module
from pixelwise.runs.model_folder import ModelCard, load_model
from pixelwise.runs.run_folder import open_finished_run

MOST = 200
"""So many are kept."""
SURE = 0.6
"""Of a pixel that counts, the network gives its class at least this probability."""
EDGE = 2
"""Pixels along the edge of a region that do not count: outlines are seldom drawn exactly, and that is no mistake."""
BLOCK_PIXELS = 1 << 24
"""A larger scene is looked at in strips of so many pixels; a region that crosses from one to the next is two."""
MARGIN = 24
"""Pixels around a region in its picture, at least."""


@dataclass(frozen=True)
class Suspect:
    """A connected region of one label, where the network is sure of one other class."""

    scene: str
    path: Path
    part: str
    """'training', 'validation' or 'test'."""
    learned: bool
    """The network has learned from this region's labels, so it agrees with them more than it should."""
    label: str
    predicted: str
    pixels: int
    score: float
    """Sum over its pixels, without those along its edge, of 2p - 1, where p is the probability of the predicted class:
    the least by which it exceeds the label's. So large, compact regions of which the network is sure come first."""
    window: Window
    """Around the region."""
    outline: object
    """Shapely geometry, in columns and rows."""
    picture: Picture
    inside: Bool[np.ndarray, "h w"]
    """Which pixels of the picture are the region's."""

    def to_dict(self) -> dict:
        """Return it as JSON can hold it, without its picture."""
        box = self.window
        return {
            "score": round(self.score, 2),
            "image": str(self.path),
            "scene": self.scene,
            "part": self.part,
            "learned": self.learned,
            "label": self.label,
            "predicted": self.predicted,
            "pixels": self.pixels,
            "left": box.left,
            "top": box.top,
            "width": box.width,
            "height": box.height,
        }


def suspects_of(
    run: str | Path,
    config: Config,
    *,
    most: int = MOST,
    advance: Callable[[str, float], None] | None = None,
) -> tuple[list[Suspect], list[Scene]]:
    """Rank regions of a configuration's labels that a run's best model contradicts.

    If the data are the run's own, its kept split says what the model has learned from; else scenes that are among its
    training scenes, or on the same ground, count as learned.

    Args:
        most: how many are kept.
        advance: called with what is done and the share of it, 0 to 1.

    Returns:
        the suspects, the likeliest first, and all scenes.

    Raises:
        ConfigError: no such run, or other classes than the model's.
        DataError, WeightsError: files that do not work.
        MissingExtraError: the extra `geo` is not installed.
    """
    model, card, _ = load_model(run)
    kept, settings = open_finished_run(run)
    if tuple(config.data.classes) != card.classes.names:
        raise ConfigError(
            f"The model of {run} knows the classes {', '.join(card.classes.names)}; the configuration has "
            f"{', '.join(config.data.classes)}. Name a run with the same classes.",
            code="PW514",
        )
    own = config.data == settings.data
    _, split = open_split(config, kept=kept.split if own else None, may_be_gone=own)
    scenes = [*split.validation, *split.test, *split.training]
    if own:
        learned = {id(scene) for scene in split.training}
    else:
        names = set(learned_scenes(kept, settings, scenes))
        learned = {id(scene) for scene in scenes if scene.name in names}
    found = find_suspects(fuse(model), card, split, learned=learned, most=most, advance=advance)
    return found, scenes


def suspects_of_folds(
    folds: Sequence[tuple[Path, Split]],
    *,
    most: int = MOST,
    advance: Callable[[str, float], None] | None = None,
) -> tuple[list[Suspect], list[Scene]]:
    """Rank regions that networks contradict which have not learned from them.

    Args:
        folds: runs, and the scenes that each of them judges, since it has not learned from these.
        most: how many are kept.
        advance: called with what is done and the share of it, 0 to 1.

    Returns:
        the suspects, the likeliest first, and all scenes that were judged.
    """
    found, scenes = list[Suspect](), list[Scene]()
    for done, (run, judged) in enumerate(folds):

        def onward(stage: str, share: float, done: int = done) -> None:
            if advance:
                advance(stage, (done + share) / len(folds))

        model, card, _ = load_model(run)
        found += find_suspects(fuse(model), card, judged, learned=(), most=most, advance=onward)
        scenes += [scene for part in ("validation", "test", "training") for scene in getattr(judged, part)]
    return sorted(found, key=lambda suspect: -suspect.score)[:most], scenes


def find_suspects(
    model: Segmenter,
    card: ModelCard,
    split: Split,
    *,
    learned: Collection[int],
    most: int = MOST,
    advance: Callable[[str, float], None] | None = None,
) -> list[Suspect]:
    """Rank regions whose labels are likely to be wrong, the likeliest first.

    Args:
        model: in evaluation mode.
        learned: the `id` of each scene whose labels the network has learned from.
        most: how many are kept.
        advance: called with what is done and the share of it, 0 to 1.

    Raises:
        DataError: a scene that cannot be read, or other bands or units than the model's.
        MissingExtraError: the extra `geo` is not installed.
    """
    found: list[Suspect] = []
    scenes = [(part, scene) for part in ("validation", "test", "training") for scene in getattr(split, part)]
    for i, (part, scene) in enumerate(scenes, start=1):
        require_fitting(scene.info, scene.reader.bands, card)
        for block in _blocks(model, scene, card):
            regions = list(_regions(block, len(card.classes)))
            for region in sorted(regions, key=lambda region: -region.score)[:most]:
                found.append(_suspect(region, block, scene, card.classes, part, learned=id(scene) in learned))
        found = sorted(found, key=lambda suspect: -suspect.score)[:most]
        if advance:
            advance("Comparing labels with predictions", i / len(scenes))
    return found


@dataclass(frozen=True)
class _Block:
    """A piece of a scene."""

    window: Window
    truth: Int16[np.ndarray, "h w"]
    predicted: Int16[np.ndarray, "h w"]
    confidence: Float32[np.ndarray, "h w"]
    values: Shaped[np.ndarray, "C h w"]


def _blocks(model: Segmenter, scene: Scene, card: ModelCard) -> Iterator[_Block]:
    """Predict a scene and give it in strips of about `BLOCK_PIXELS`."""
    height, width = scene.info.height, scene.info.width
    rows = max(1, min(height, BLOCK_PIXELS // width))
    labels, confidence, top = np.empty((0, width), np.int16), np.empty((0, width), np.float32), 0
    for piece in predict_strips(model, scene.reader, card, TileOptions(), confidence=True):
        assert piece.confidence is not None
        labels = np.concatenate([labels, piece.labels.astype(np.int16)])
        confidence = np.concatenate([confidence, piece.confidence])
        while len(labels) >= rows or (len(labels) and top + len(labels) == height):
            window = Window(top, 0, min(rows, len(labels)), width)
            crop = scene.read(window)
            yield _Block(window, crop.mask, labels[: window.height], confidence[: window.height], crop.values)
            top, labels, confidence = top + window.height, labels[window.height :], confidence[window.height :]


@dataclass(frozen=True)
class _Region:
    label: int
    predicted: int
    score: float
    pixels: int
    rows: slice
    columns: slice
    inside: Bool[np.ndarray, "h w"]


def _regions(block: _Block, classes: int) -> Iterator[_Region]:
    """Yield the regions of one label and one other predicted class that are wider than twice `EDGE`."""
    ndimage, square = optional_module("scipy.ndimage"), np.ones((3, 3), bool)
    truth, predicted, confidence = block.truth, block.predicted, block.confidence
    doubtful = (truth != IGNORE) & (truth != predicted) & (confidence >= SURE)
    pairs = np.where(doubtful, truth.astype(np.int32) * classes + predicted, -1)
    margin = np.where(doubtful, 2 * confidence - 1, 0)
    for pair in np.unique(pairs[doubtful]).tolist():
        inside = pairs == pair
        core = ndimage.binary_erosion(inside, square, iterations=EDGE, border_value=1)
        numbers, count = ndimage.label(core)
        if not count:
            continue
        sums = ndimage.sum_labels(margin, numbers, np.arange(1, count + 1))
        for i, (rows, columns) in enumerate(ndimage.find_objects(numbers)):
            rows = slice(max(0, rows.start - EDGE), rows.stop + EDGE)
            columns = slice(max(0, columns.start - EDGE), columns.stop + EDGE)
            own = ndimage.binary_dilation(numbers[rows, columns] == i + 1, square, iterations=EDGE)
            own &= inside[rows, columns]
            label, other = divmod(pair, classes)
            yield _Region(label, other, float(sums[i]), int(own.sum()), rows, columns, own)


def _suspect(region: _Region, block: _Block, scene: Scene, classes: Classes, part: str, *, learned: bool) -> Suspect:
    height, width = region.inside.shape
    around, top, left = max(MARGIN, height // 3, width // 3), region.rows.start, region.columns.start
    shown = np.s_[..., max(0, top - around) : top + height + around, max(0, left - around) : left + width + around]
    values, truth, predicted = (each[shown].copy() for each in (block.values, block.truth, block.predicted))
    inside = np.zeros(truth.shape, bool)
    first, second = top - max(0, top - around), left - max(0, left - around)
    inside[first : first + height, second : second + width] = region.inside
    return Suspect(
        scene=scene.name,
        path=scene.info.path,
        part=part,
        learned=learned,
        label=classes.names[region.label],
        predicted=classes.names[region.predicted],
        pixels=region.pixels,
        score=region.score,
        window=Window(block.window.top + top, left, height, width),
        outline=_outline(region.inside, block.window.top + top, left),
        picture=Picture(scene.name, values, truth, predicted, None),
        inside=inside,
    )


def _outline(inside: Bool[np.ndarray, "h w"], top: int, left: int) -> object:
    """Return the region as a polygon in columns and rows."""
    shapely = optional_module("shapely")
    traced = shapes(inside.astype(np.uint8), mask=inside, transform=Affine.translation(left, top))
    parts = [optional_module("shapely.geometry").shape(geometry) for geometry, _ in traced]
    joined = shapely.union_all(parts)
    # Pieces that touch at corners only are told by the largest.
    return max(shapely.get_parts(joined), key=shapely.area)
