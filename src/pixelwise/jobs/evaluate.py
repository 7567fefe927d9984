"""Evaluation: one confusion matrix, and the pictures that explain it."""

import heapq
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int16, Int64, Integer, Shaped

from pixelwise.config import Config, PredictConfig, load_config
from pixelwise.data.scenes import Scene, open_scenes
from pixelwise.data.split import open_split
from pixelwise.data.split_lists import PARTS
from pixelwise.errors import ConfigError
from pixelwise.fast.fuse import fuse
from pixelwise.files import replacing
from pixelwise.geo.label_map import to_picture
from pixelwise.geo.raster import Window
from pixelwise.jobs.images import require_fitting
from pixelwise.jobs.model_folder import ModelCard, load_model
from pixelwise.jobs.run_folder import open_finished_run
from pixelwise.jobs.tiling import predict_strips
from pixelwise.metrics import Scores, confusion_matrix, scores
from pixelwise.models import Segmenter

TILE = 256
"""Side of the tiles that are ranked from worst to best."""
WORST = 12
"""Tiles that are kept to look at."""
PICTURE = 512
"""Longest side of a scene's picture; larger scenes keep every n-th pixel."""


@dataclass(frozen=True)
class Picture:
    """A piece of a scene beside its truth and its prediction."""

    name: str
    image: Shaped[np.ndarray, "C h w"]
    """Raw values; 8-bit colours once it was kept."""
    truth: Int16[np.ndarray, "h w"]
    prediction: Integer[np.ndarray, "h w"]
    miou: float | None


@dataclass(frozen=True)
class SceneResult:
    """What came out for one scene."""

    name: str
    path: Path
    matrix: Int64[np.ndarray, "K K"]
    picture: Picture | None


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a list of scenes."""

    scores: Scores
    matrix: Int64[np.ndarray, "K K"]
    """Rows are the truth, columns the prediction."""
    scenes: tuple[SceneResult, ...]
    worst: tuple[Picture, ...]
    """Tiles with the lowest mIoU, worst first."""

    def to_dict(self) -> dict:
        """Return what ``metrics.json`` keeps."""
        names = list(self.scores.names)
        each = {scene.name: scores(scene.matrix, names).miou for scene in self.scenes}
        return {**self.scores.to_dict(), "confusion": self.matrix.tolist(), "scenes": each}


def evaluate(
    run: str | Path,
    config: Config | str | Path | None = None,
    *,
    part: str = "validation",
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a run's best model.

    Args:
        run: the run's folder.
        config: data to score on, all of it; None: a part of the run's own data.
        part: which one: 'training', 'validation' or 'test'. With ``config`` it must stay as it is.
        report: called with a sentence per scene.

    Raises:
        ConfigError: no such run, an empty part, or other classes than the model's.
        DataError: files that cannot be used, or other bands than the model's.
    """
    model, card, _ = load_model(run)
    kept, settings = open_finished_run(run)
    if part not in PARTS:
        raise ConfigError(f"{part!r} is no part of a run's data. Choose {', '.join(PARTS)}.")
    if config is not None and part != "validation":
        raise ConfigError(f"All of {config} is scored, so the part {part!r} has no meaning. Leave one of the two out.")
    if config is None:
        _, split = open_split(settings, kept=kept.folder / "split")
        scenes = getattr(split, part)
        if not scenes:
            raise ConfigError(f"{run} kept no scenes for {part}. Name a configuration with scenes to score on.")
        name = part
    else:
        other = load_config(config) if not isinstance(config, Config) else config
        classes, scenes = open_scenes(other.data)
        if classes.names != card.classes.names:
            raise ConfigError(
                f"The model knows the classes {', '.join(card.classes.names)}; the configuration has "
                f"{', '.join(classes.names)}. Give both the same classes in the same order."
            )
        name = Path(config).stem if not isinstance(config, Config) else "other"
    result = evaluate_scenes(fuse(model), scenes, card, settings.predict, pictures=True, report=report)
    kept.write_metrics({**kept.metrics, name: result.to_dict()})
    save_pictures(kept.folder / "evaluations" / f"{name}.npz", result)
    return result


def save_pictures(path: Path, result: Evaluation) -> None:
    """Keep an evaluation's pictures for the report, which then needs neither the model nor the data."""
    arrays: dict[str, np.ndarray] = {}
    scenes = [scene.picture for scene in result.scenes if scene.picture is not None]
    for kind, pictures in (("scene", scenes), ("tile", result.worst)):
        for i, picture in enumerate(pictures):
            arrays[f"{kind}/{i}/image"] = np.moveaxis(to_picture(picture.image), -1, 0)
            arrays[f"{kind}/{i}/truth"] = picture.truth
            arrays[f"{kind}/{i}/prediction"] = picture.prediction
            about = [picture.name, "" if picture.miou is None else repr(picture.miou)]
            arrays[f"{kind}/{i}/about"] = np.array(about)
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def load_pictures(path: Path) -> tuple[list[Picture], list[Picture]]:
    """Return the pictures that `save_pictures` kept: of the scenes, and of the worst tiles, worst first.

    Raises:
        ConfigError: the file is damaged.
    """
    try:
        return _load_pictures(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}). Remove it, and evaluate again for the pictures."
        ) from None


def _load_pictures(path: Path) -> tuple[list[Picture], list[Picture]]:
    with np.load(path, allow_pickle=False) as arrays:
        kept: dict[str, list[Picture]] = {"scene": [], "tile": []}
        for kind, pictures in kept.items():
            while f"{kind}/{len(pictures)}/about" in arrays:
                key = f"{kind}/{len(pictures)}"
                name, miou = arrays[f"{key}/about"].tolist()
                image, truth, prediction = (arrays[f"{key}/{part}"] for part in ("image", "truth", "prediction"))
                if image.dtype != np.uint8 or image.ndim != 3 or not image.shape[1:] == truth.shape == prediction.shape:
                    raise ValueError(f"the pictures of {key} do not belong together")
                if truth.dtype != np.int16 or prediction.dtype.kind not in "iu":
                    raise ValueError(f"the pictures of {key} hold no classes")
                pictures.append(Picture(str(name), image, truth, prediction, float(miou) if miou else None))
        return kept["scene"], kept["tile"]


def evaluate_scenes(
    model: Segmenter,
    scenes: Sequence[Scene],
    card: ModelCard,
    settings: PredictConfig,
    *,
    pictures: bool = False,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Predict and count, strip by strip; memory does not grow with the number or the height of scenes.

    Raises:
        DataError: a scene with other bands than the model's.
    """
    names = list(card.classes.names)
    total = np.zeros((len(names), len(names)), np.int64)
    results: list[SceneResult] = []
    worst: list[tuple[float, int, Picture]] = []
    for scene in scenes:
        require_fitting(scene.info, scene.reader.bands, card)
    for scene in scenes:
        matrix = np.zeros_like(total)
        keep = _Thumbnail(scene) if pictures else None
        for band, prediction in _bands(model, scene, card, settings):
            crop = scene.read(band)
            matrix += confusion_matrix(crop.mask, prediction, len(names))
            if keep is None:
                continue
            keep.add(band.top, crop.values, crop.mask, prediction)
            for left in range(0, band.width, TILE):
                part = np.s_[..., left : left + TILE]
                tile = confusion_matrix(crop.mask[part], prediction[part], len(names))
                miou = scores(tile, names).miou
                if miou is not None and tile.sum() >= TILE * TILE // 8:
                    name = f"{scene.name}, row {band.top}, column {left}"
                    picture = Picture(
                        name, crop.values[part].copy(), crop.mask[part].copy(), prediction[part].copy(), miou
                    )
                    # heapq drops the smallest, so the sign is turned to keep the worst.
                    entry = (-miou, -len(results) * 10**9 - band.top * 10**5 - left, picture)
                    heapq.heappush(worst, entry) if len(worst) < WORST else heapq.heappushpop(worst, entry)
        total += matrix
        miou = scores(matrix, names).miou
        results.append(
            SceneResult(scene.name, scene.info.path, matrix, keep.picture(scene.name, miou) if keep else None)
        )
        if report:
            report(f"{scene.name}: mIoU {miou:.3f}" if miou is not None else f"{scene.name}: nothing labelled")
    ranked = tuple(picture for *_, picture in sorted(worst, key=lambda entry: entry[:2], reverse=True))
    return Evaluation(scores(total, names), total, tuple(results), ranked)


def _bands(
    model: Segmenter, scene: Scene, card: ModelCard, settings: PredictConfig
) -> Iterator[tuple[Window, Integer[np.ndarray, "h w"]]]:
    """Gather predicted strips into bands of `TILE` rows; the last one may be lower."""
    height, width = scene.info.height, scene.info.width
    waiting: list[np.ndarray] = []
    rows = start = 0
    strips = predict_strips(
        model,
        scene.reader,
        card,
        tile=settings.tile,
        overlap=settings.overlap,
        flips=settings.flips,
        scales=settings.scales,
    )
    for strip in strips:
        waiting.append(strip.labels)
        rows += len(strip.labels)
        while rows >= TILE or (start + rows == height and rows):
            gathered = np.concatenate(waiting)
            count = min(TILE, rows)
            yield Window(start, 0, count, width), gathered[:count]
            waiting, rows, start = [gathered[count:]], rows - count, start + count


class _Thumbnail:
    """Every n-th pixel of a scene, its truth and its prediction."""

    def __init__(self, scene: Scene) -> None:
        self.step = -(-max(scene.info.height, scene.info.width) // PICTURE)
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, top: int, values: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
        n = self.step
        first = -top % n
        self._rows.append(
            (values[:, first::n, ::n].copy(), truth[first::n, ::n].copy(), prediction[first::n, ::n].copy())
        )

    def picture(self, name: str, miou: float | None) -> Picture:
        values, truth, prediction = (np.concatenate(part, axis=-2) for part in zip(*self._rows, strict=True))
        return Picture(name, values, truth, prediction, miou)
