"""Evaluation: one confusion matrix, and the pictures that explain it."""

import heapq
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int16, Int64, Integer, Shaped
from pydantic import ValidationError

from pixelwise.config import Config, PredictConfig, load_config, override_config
from pixelwise.data.scenes import Scene, open_scenes
from pixelwise.data.split import open_split
from pixelwise.data.split_lists import PARTS
from pixelwise.errors import ConfigError
from pixelwise.evaluation.learned_from import learned_scenes
from pixelwise.evaluation.metrics import Scores, confusion_matrix, scores
from pixelwise.evaluation.names import VALIDATION, About, choose_name, evaluation_digest
from pixelwise.fast.fuse import fuse
from pixelwise.files import replacing
from pixelwise.geo.label_map import to_picture
from pixelwise.geo.raster import Window
from pixelwise.inference.images import require_bands, require_fitting
from pixelwise.inference.options import TileOptions
from pixelwise.inference.tiling import predict_strips
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard, load_model
from pixelwise.runs.run_folder import open_finished_run

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
    name: str = ""
    """What it is called in the run; empty where it is not kept."""
    about: About | None = None
    learned: tuple[str, ...] = ()
    """Names of scenes that the run learned from, or that lie on ground which it did."""

    def to_dict(self) -> dict:
        """Return what ``metrics.json`` keeps."""
        names = list(self.scores.names)
        bare = [scene.name for scene in self.scenes]
        # Scenes of one name in two folders keep a score each.
        keys = [scene.name if bare.count(scene.name) == 1 else str(scene.path) for scene in self.scenes]
        each = {key: scores(scene.matrix, names).miou for key, scene in zip(keys, self.scenes, strict=True)}
        told = {"confusion": self.matrix.tolist(), "scenes": each, "learned": list(self.learned)}
        return {**self.scores.to_dict(), **told, **({"about": asdict(self.about)} if self.about else {})}

    def warning(self) -> str | None:
        """Return a sentence where scenes were learned from."""
        if not self.learned:
            return None
        shown, more = ", ".join(self.learned[:5]), len(self.learned) - 5
        return (
            f"{len(self.learned)} of the {len(self.scenes)} scenes are among those that the run learned from, or lie "
            f"on the same ground ({shown}{f' and {more} more' if more > 0 else ''}). Their scores say little about new "
            "scenes."
        )


def evaluate(
    run: str | Path,
    config: Config | str | Path | None = None,
    *,
    part: str = "validation",
    name: str | None = None,
    options: Mapping[str, object] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    flips: bool | None = None,
    scales: Sequence[float] | None = None,
    overrides: Sequence[str] = (),
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a run's best model, and keep the scores in the run's ``metrics.json``.

    Args:
        run: the run's folder.
        config: data to score on, all of it; None: a part of the run's own data.
        part: which one: 'training', 'validation' or 'test'. With ``config`` it must stay as it is.
        name: what the evaluation is called in the run; None: that of the part, or the configuration's own. A name that
            another evaluation has gets a number.
        options: the paper's options for inference, such as ``{"output_stride": 8}``; others are the model's.
        tile, overlap, flips, scales: None: as ``[predict]`` of the configuration says, else as that of the run does.
        overrides: assignments such as ``"data.images=/mnt/scenes"`` that change the configuration.
        report: called with a sentence per scene.

    Raises:
        ConfigError: no such run, an empty part, other classes or bands than the model's, or a name that is taken.
        DataError: files that cannot be used, or other bands or units than the model's.
        WeightsError: options that the weights do not fit.
    """
    model, card, weights = load_model(run, options=options)
    kept, settings = open_finished_run(run)
    if part not in PARTS:
        raise ConfigError(f"{part!r} is no part of a run's data. Choose {', '.join(PARTS)}.")
    if config is not None and part != VALIDATION:
        raise ConfigError(f"All of {config} is scored, so the part {part!r} has no meaning. Leave one of the two out.")
    chosen = {"tile": tile, "overlap": overlap, "flips": flips, "scales": None if scales is None else list(scales)}
    if config is None:
        data = override_config(settings, overrides) if overrides else settings
        _require_classes(data, card)
        _, split = open_split(data, kept=kept.folder / "split")
        scenes = getattr(split, part)
        if not scenes:
            raise ConfigError(f"{run} kept no scenes for {part}. Name a configuration with scenes to score on.")
        learned, source = (), part
    else:
        data = _loaded(config, overrides)
        scenes = _open_other(data, card)
        learned = learned_scenes(settings, scenes)
        source = "a Config" if isinstance(config, Config) else str(Path(config).resolve())
    predict = _predict_settings(settings.predict, data.predict, chosen)
    digest = evaluation_digest(data, predict, options)
    about = About(source, predict.model_dump(mode="json"), dict(options or {}), weights, digest)
    # A name that cannot be is refused before the work, and not after it.
    own_name = part if config is None else "other" if isinstance(config, Config) else Path(config).stem
    plain = source == VALIDATION and data == settings and predict == settings.predict and not options
    name = choose_name(kept.metrics, about, wanted=name, own=own_name, plain=plain)
    result = evaluate_scenes(fuse(model), scenes, card, predict, pictures=True, report=report)
    result = replace(result, name=name, about=about, learned=learned)
    save_pictures(kept.folder / "evaluations" / f"{name}.npz", result)
    # The newest stands last.
    others = {key: value for key, value in kept.metrics.items() if key != name}
    kept.write_metrics({**others, name: result.to_dict()})
    return result


def _loaded(config: Config | str | Path, overrides: Sequence[str]) -> Config:
    if not isinstance(config, Config):
        return load_config(config, overrides)
    return override_config(config, overrides) if overrides else config


def _open_other(config: Config, card: ModelCard) -> list[Scene]:
    """Open other data than the run's as the model wants it: its bands, and its nodata where nothing is said."""
    _require_classes(config, card)
    data, bands = config.data, list(card.bands)
    if data.bands is not None and data.bands != bands:
        raise ConfigError(
            f"[data].bands is {data.bands}, but the model was trained on the bands {bands}, in this order. Leave bands "
            "out, or give the same."
        )
    changed = {"bands": bands, "nodata": card.nodata if data.nodata is None else data.nodata}
    _, scenes = open_scenes(data.model_copy(update=changed))
    if data.bands is None:
        for scene in scenes:
            require_bands(scene.info, card)
    return scenes


def _require_classes(config: Config, card: ModelCard) -> None:
    if tuple(config.data.classes) != card.classes.names:
        raise ConfigError(
            f"The model knows the classes {', '.join(card.classes.names)}; the configuration has "
            f"{', '.join(config.data.classes)}. Give both the same classes in the same order."
        )


def _predict_settings(run: PredictConfig, other: PredictConfig, chosen: Mapping[str, object]) -> PredictConfig:
    """Join what is known of tiles: what was chosen now wins, then what the other file says, then the run's."""
    said = {key: getattr(other, key) for key in other.model_fields_set}
    said |= {key: value for key, value in chosen.items() if value is not None}
    joined = {**run.model_dump(), **said}
    if "tile" in said and "overlap" not in said and isinstance(joined["tile"], int):
        joined["overlap"] = max(0, min(joined["overlap"], joined["tile"] // 64 * 32))
    try:
        return PredictConfig.model_validate(joined)
    except ValidationError as error:
        reasons = " ".join(f"{'.'.join(map(str, each['loc'][:1]))} {each['msg']}." for each in error.errors()[:3])
        raise ConfigError(f"Tiles and scales of this evaluation: {reasons}".replace(" Value error,", "")) from None


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
    options = TileOptions(settings.tile, settings.overlap, settings.flips, tuple(settings.scales))
    strips = predict_strips(model, scene.reader, card, options)
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
