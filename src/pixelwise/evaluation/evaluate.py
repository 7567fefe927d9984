"""Evaluation of a run, an exported file or a network: one confusion matrix, and pictures that explain it."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Integer
from pydantic import ValidationError

from pixelwise.config import Config, PredictConfig, load_config, override_config
from pixelwise.data.problems import Problem, grouped
from pixelwise.data.scenes import Scene, open_scenes
from pixelwise.data.split import open_split
from pixelwise.data.split_lists import PARTS
from pixelwise.errors import ConfigError, ContractWarning, DataError
from pixelwise.evaluation.blocks import BlockCounter, BlockCounts, save_blocks
from pixelwise.evaluation.calibration import FITTED_ON, Calibration, calibration
from pixelwise.evaluation.learned_from import learned_scenes
from pixelwise.evaluation.metrics import Scores, confusion_matrix, scores
from pixelwise.evaluation.names import VALIDATION, About, choose_name, evaluation_digest
from pixelwise.evaluation.pictures import Picture, Thumbnail, WorstTiles, save_pictures
from pixelwise.evaluation.pixel_sample import PixelSample
from pixelwise.exported.network_file import is_exported, load_exported
from pixelwise.geo.raster import Window
from pixelwise.inference.fitting import ConvertedReader, fitted
from pixelwise.inference.images import require_fitting, require_image
from pixelwise.inference.networks import Network
from pixelwise.inference.options import Fit, TileOptions
from pixelwise.inference.resampled import ResampledLabels, ResampledReader
from pixelwise.inference.sampled_logits import Watch
from pixelwise.inference.tiling import predict_strips
from pixelwise.optional import torch_needed
from pixelwise.runs.model_card import ModelCard
from pixelwise.runs.run_folder import Run, open_finished_run

TILE = 256
"""Side of the tiles that are ranked from worst to best."""


@dataclass(frozen=True)
class SceneResult:
    """The result for one scene."""

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
    """Its name in the run; empty where it is not kept."""
    about: About | None = None
    learned: tuple[str, ...] = ()
    """Names of scenes that the run learned from, or that lie on the same ground as those."""
    blocks: BlockCounts | None = None
    """What was counted in each block of ground."""
    calibration: Calibration | None = None
    """How honest the confidence is; None where no sample was drawn."""

    def to_dict(self) -> dict:
        """Return what ``metrics.json`` keeps."""
        names = list(self.scores.names)
        each = {scene.name: scores(scene.matrix, names).miou for scene in self.scenes}
        told: dict = {"confusion": self.matrix.tolist(), "scenes": each, "learned": list(self.learned)}
        if self.calibration is not None:
            told["calibration"] = self.calibration.to_dict()
        return {**self.scores.to_dict(), **told, **({"about": asdict(self.about)} if self.about else {})}

    def warning(self) -> str | None:
        """Return a sentence if the run learned from some of the scenes."""
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
    fit: Fit | None = None,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score a run's best model, and keep the scores in the run's ``metrics.json``; or score an exported file.

    A run is scored on a GPU if there is one.

    Args:
        run: the run's folder; or a file that ends in .onnx, .xml (OpenVINO) or .pt2 (torch), which has no run: its
            scores are returned and not kept.
        config: data to score on, all of it; None: a part of the run's own data.
        part: which one: 'training', 'validation' or 'test'. With ``config`` leave it as it is.
        name: of the evaluation in the run; None: that of the part, or of the configuration's file. If another
            evaluation has it, it gets a number.
        options: the paper's options for inference, such as ``{"output_stride": 8}``; others are the model's. Of a file
            that others made: what it takes and gives (`docs/export.md`).
        tile, overlap, flips, scales: None: as ``[predict]`` of the configuration says, else as that of the run does.
            A file knows the run's tile and overlap.
        overrides: assignments such as ``"data.images=/mnt/scenes"`` that change the configuration.
        fit: what is done with images of ``config`` that differ from the training images; None: they are refused, or
            scored at their own resolution.
        report: called with a sentence per scene.

    Raises:
        ConfigError: no such run, an empty part, other classes or bands than the model's, or a name that is taken.
        DataError: files that do not work, or other bands or units than the model's.
        WeightsError: options that the weights do not fit, or a damaged file.
        MissingExtraError: torch, or the file's runtime, is not installed.
    """
    chosen = {"tile": tile, "overlap": overlap, "flips": flips, "scales": None if scales is None else list(scales)}
    if part not in PARTS:
        raise ConfigError(f"A run's data has no part {part!r}. Choose {', '.join(PARTS)}.")
    if is_exported(run):
        if config is None or part != VALIDATION or name is not None:
            raise ConfigError(
                f"{run} is a file without a run, so it has no data of its own and keeps no scores. Name a "
                "configuration with the data to score on, and leave part and name out."
            )
        data = _loaded(config, overrides)
        return _evaluate_file(Path(run), data, config, options, chosen, fit, report)
    with torch_needed(f"{run} is a run, which"):
        from pixelwise.device import choose_device
        from pixelwise.fast.fuse import fuse
        from pixelwise.runs.model_folder import load_model
    model, card, weights = load_model(run, options=options)
    kept, settings = open_finished_run(run)
    if config is None:
        data, scenes = _open_part(kept, settings, card, part, overrides)
        learned, source, own_name = (), part, part
    elif part != VALIDATION:
        raise ConfigError(f"All of {config} is scored, so the part {part!r} has no meaning. Leave one of the two out.")
    else:
        data = _loaded(config, overrides)
        scenes = _open_other(data, card, fit or Fit())
        learned = learned_scenes(kept, settings, scenes)
        source, own_name = _named(config)
    predict = _predict_settings(settings.predict, data.predict, chosen)
    about = _about(source, data, predict, options, fit, weights)
    plain = source == VALIDATION and data == settings and predict == settings.predict and not options

    free_name = partial(choose_name, about=about, wanted=name, own=own_name, plain=plain)
    # A name that does not work is refused before the work.
    free_name(kept.metrics)
    model = model.to(choose_device("auto"))
    result = _scored(fuse(model), scenes, card, predict, report, fitted_here=source == VALIDATION)
    return _keep(kept, replace(result, about=about, learned=learned), free_name)


def _evaluate_file(
    path: Path,
    data: Config,
    config: Config | str | Path,
    options: Mapping[str, object] | None,
    chosen: Mapping[str, object],
    fit: Fit | None,
    report: Callable[[str], None] | None,
) -> Evaluation:
    """Score an exported file on all data of a configuration."""
    network, card, weights = load_exported(path, options=options)
    scenes = _open_other(data, card, fit or Fit())
    predict = _predict_settings(PredictConfig(tile=card.tile, overlap=card.overlap), data.predict, chosen)
    source, name = _named(config)
    result = _scored(network, scenes, card, predict, report, fitted_here=False)
    return replace(result, name=name, about=_about(source, data, predict, options, fit, weights))


def _scored(
    model: Network,
    scenes: Sequence[Scene],
    card: ModelCard,
    settings: PredictConfig,
    report: Callable[[str], None] | None,
    *,
    fitted_here: bool,
) -> Evaluation:
    """Score classes and confidence, with pictures."""
    sample = PixelSample(len(card.classes))
    result = evaluate_scenes(model, scenes, card, settings, pictures=True, sample=sample, report=report)
    fitted_on = card.provenance.get(FITTED_ON, "")
    honest = calibration(sample.pixels(), card.temperature, fitted_on=fitted_on, fitted_here=fitted_here)
    return replace(result, calibration=honest)


def _about(
    source: str,
    data: Config,
    predict: PredictConfig,
    options: Mapping[str, object] | None,
    fit: Fit | None,
    weights: str,
) -> About:
    told = {**(options or {}), **(asdict(fit) if fit is not None and fit != Fit() else {})}
    digest = evaluation_digest(data, predict, told)
    return About(source, predict.model_dump(mode="json"), dict(options or {}), weights, digest)


def _keep(run: Run, result: Evaluation, free_name: Callable[[dict], str]) -> Evaluation:
    """Add an evaluation to the run under a free name, and return it with this name."""
    pictures = [scene.picture for scene in result.scenes if scene.picture is not None]
    with run.locked_metrics():
        metrics = run.metrics
        # Another evaluation may have taken the name meanwhile.
        result = replace(result, name=free_name(metrics))
        save_pictures(run.pictures(result.name), pictures, result.worst)
        if result.blocks is not None:
            save_blocks(run.blocks(result.name), result.blocks)
        # The newest stands last.
        others = {key: value for key, value in metrics.items() if key != result.name}
        run.write_metrics({**others, result.name: result.to_dict()})
    return result


def _named(config: Config | str | Path) -> tuple[str, str]:
    """Return where a configuration is, and what an evaluation on it is called."""
    if isinstance(config, Config):
        return "a Config", "other"
    return str(Path(config).resolve()), Path(config).stem


def _loaded(config: Config | str | Path, overrides: Sequence[str]) -> Config:
    if not isinstance(config, Config):
        return load_config(config, overrides)
    return override_config(config, overrides) if overrides else config


def _open_part(
    run: Run, settings: Config, card: ModelCard, part: str, overrides: Sequence[str]
) -> tuple[Config, list[Scene]]:
    """Open a part of the run's own data."""
    data = _loaded(settings, overrides)
    _require_classes(data, card)
    _, split = open_split(data, kept=run.split)
    scenes = getattr(split, part)
    if not scenes:
        raise ConfigError(
            f"{run.folder} kept no scenes for {part}. Name a configuration with scenes to score on.", code="PW613"
        )
    return data, scenes


def _open_other(config: Config, card: ModelCard, fit: Fit) -> list[Scene]:
    """Open other data than the run's, with the model's bands, and its nodata unless the configuration has one."""
    _require_classes(config, card)
    data, bands = config.data, list(card.bands)
    if data.bands is not None and data.bands != bands:
        raise ConfigError(
            f"[data].bands is {data.bands}, but the model was trained on the bands {bands}, in this order. Leave bands "
            "out, or give the same.",
            code="PW514",
        )
    changed = {"bands": bands, "nodata": card.nodata if data.nodata is None else data.nodata}
    _, scenes = open_scenes(data.model_copy(update=changed))
    if data.bands is None:
        for scene in scenes:
            require_image(scene.info, card, any_type=fit.units == "convert")
    fitting, doubts = list[Scene](), list[Problem]()
    for scene in scenes:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ContractWarning)
            fitting.append(_fitted_scene(scene, card, fit))
        doubts += [Problem(DataError(str(each.message)), (scene.info.path,)) for each in said]
    for paragraph in grouped(doubts):
        warnings.warn(paragraph, ContractWarning, stacklevel=3)
    return fitting


def _fitted_scene(scene: Scene, card: ModelCard, fit: Fit) -> Scene:
    """Return a scene in the model's units and, if asked for, at its resolution."""
    reader = fitted(scene.reader, card, fit)
    if reader is scene.reader:
        return scene
    assert isinstance(reader, ConvertedReader | ResampledReader)
    same = (reader.info.height, reader.info.width) == (scene.info.height, scene.info.width)
    labels = scene.labels if same else ResampledLabels(scene.labels, scene.info, reader.info)
    return Scene(scene.name, reader, labels)


def _require_classes(config: Config, card: ModelCard) -> None:
    if tuple(config.data.classes) != card.classes.names:
        raise ConfigError(
            f"The model knows the classes {', '.join(card.classes.names)}; the configuration has "
            f"{', '.join(config.data.classes)}. Give both the same classes in the same order.",
            code="PW514",
        )


def _predict_settings(run: PredictConfig, other: PredictConfig, chosen: Mapping[str, object]) -> PredictConfig:
    """Return the settings of tiles: those chosen now, else those in the other file, else the run's."""
    said = {key: getattr(other, key) for key in other.model_fields_set}
    said |= {key: value for key, value in chosen.items() if value is not None}
    joined = {**run.model_dump(), **said}
    if "tile" in said and "overlap" not in said and isinstance(joined["tile"], int):
        joined["overlap"] = max(0, min(joined["overlap"], joined["tile"] // 64 * 32))
    try:
        return PredictConfig.model_validate(joined)
    except ValidationError as error:
        reasons = " ".join(f"{'.'.join(map(str, each['loc'][:1]))} {each['msg']}." for each in error.errors()[:3])
        raise ConfigError(f"Tiles or scales are wrong: {reasons}".replace(" Value error,", ""), code="PW316") from None


def evaluate_scenes(
    model: Network,
    scenes: Sequence[Scene],
    card: ModelCard,
    settings: PredictConfig,
    *,
    pictures: bool = False,
    sample: PixelSample | None = None,
    report: Callable[[str], None] | None = None,
) -> Evaluation:
    """Predict and count, strip by strip; memory does not grow with the number or the height of scenes.

    Args:
        pictures: keep pictures of the scenes and of the worst tiles.
        sample: draws labelled pixels with their logits.
        report: called with a sentence per scene.

    Raises:
        DataError: a scene with other bands or units than the model's.
    """
    names = list(card.classes.names)
    worst, counter = WorstTiles(), BlockCounter(len(names))
    results: list[SceneResult] = []
    for scene in scenes:
        require_fitting(scene.info, scene.reader.bands, card)
    for number, scene in enumerate(scenes):
        if sample is not None:
            sample.begin(number)
        matrix = np.zeros((len(names), len(names)), np.int64)
        thumbnail = Thumbnail(scene.info.height, scene.info.width)
        for window, prediction in _strips(model, scene, card, settings, None if sample is None else sample.show):
            crop = scene.read(window)
            if sample is not None:
                sample.settle(window, crop.mask)
            matrix += counter.add(scene.name, window.top, crop.mask, prediction)
            if pictures:
                strip = Picture(scene.name, crop.values, crop.mask, prediction, None)
                thumbnail.add(window.top, strip)
                _rank_tiles(strip, window.top, names, worst)
        miou = scores(matrix, names).miou
        picture = thumbnail.picture(scene.name, miou) if pictures else None
        results.append(SceneResult(scene.name, scene.info.path, matrix, picture))
        if report:
            report(f"{scene.name}: mIoU {miou:.3f}" if miou is not None else f"{scene.name}: nothing labelled")
    total = sum((result.matrix for result in results), np.zeros((len(names), len(names)), np.int64))
    return Evaluation(scores(total, names), total, tuple(results), worst.ranked(), blocks=counter.blocks())


def _rank_tiles(strip: Picture, top: int, names: list[str], worst: WorstTiles) -> None:
    """Offer the tiles of a strip, but those with few labelled pixels, to the worst ones."""
    for left in range(0, strip.truth.shape[1], TILE):
        columns = np.s_[:, left : left + TILE]
        matrix = confusion_matrix(strip.truth[columns], strip.prediction[columns], len(names))
        miou = scores(matrix, names).miou
        if miou is not None and matrix.sum() >= TILE * TILE // 8 and worst.wants(miou):
            worst.add(strip.part(left, left + TILE, f"{strip.name}, row {top}, column {left}", miou))


def _strips(
    model: Network, scene: Scene, card: ModelCard, settings: PredictConfig, watch: Watch | None
) -> Iterator[tuple[Window, Integer[np.ndarray, "h w"]]]:
    """Predict a scene in strips of `TILE` rows; the last one may be lower."""
    height, width = scene.info.height, scene.info.width
    options = TileOptions(settings.tile, settings.overlap, settings.flips, tuple(settings.scales))
    waiting = np.empty((0, width), np.uint8)
    top = 0
    for piece in predict_strips(model, scene.reader, card, options, watch=watch):
        waiting = np.concatenate([waiting, piece.labels]) if len(waiting) else piece.labels
        while len(waiting) >= TILE or (len(waiting) and top + len(waiting) == height):
            yield Window(top, 0, min(TILE, len(waiting)), width), waiting[:TILE]
            top, waiting = top + len(waiting[:TILE]), waiting[TILE:]
