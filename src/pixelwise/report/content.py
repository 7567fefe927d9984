"""What the page shows, gathered from a run's folder alone: neither the model nor the data is opened."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tomli_w
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError, safe_open

from pixelwise.config import Config, as_places
from pixelwise.errors import ConfigError, PixelwiseError, WeightsError
from pixelwise.evaluation.evaluate import Picture, load_pictures
from pixelwise.evaluation.names import VALIDATION
from pixelwise.files import file_digest
from pixelwise.geo.coordinates import placed, transformed
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.geo.map_file import read_tags
from pixelwise.geo.raster import IMAGE_SUFFIXES, RasterInfo, RasterReader, Window, describe
from pixelwise.geo.vector import read_polygons
from pixelwise.labels import Classes
from pixelwise.optional import optional_module
from pixelwise.parcels.scores import ParcelScores, score_parcels
from pixelwise.runs.model_folder import read_card
from pixelwise.runs.run_folder import open_finished_run

LONGEST = 1024
"""Side of the parcel map's picture, in pixels."""
LARGEST = 1e30
"""Numbers of the log beyond this, and those that are not finite, are in no curve."""
ROWS = 512
"""Rows of a scene that are read at once for its picture."""


_Colour = Annotated[int, Field(ge=0, le=255)]


@dataclass(frozen=True)
class DrawnParcel:
    """A parcel, with its outline in pixels of a picture."""

    class_name: str
    rings: list[Float64[np.ndarray, "n 2"]]
    """(column, row) of the outer ring and of the holes."""
    area: float
    """In square metres."""
    confidence: float | None
    """Mean over its pixels, 0 to 1; None where the map kept none."""


@dataclass(frozen=True)
class ParcelMap:
    """A map's parcels over the scene they are of."""

    name: str
    picture: UInt8[np.ndarray, "H W 3"]
    parcels: list[DrawnParcel]
    truth: list[list[Float64[np.ndarray, "n 2"]]] = field(default_factory=list)
    """The rings of each true parcel, where a file of them was given."""
    scores: ParcelScores | None = None
    """Of the parcels against the true ones."""


@dataclass(frozen=True)
class ParcelFiles:
    """Which map and parcels the page shows; None: those of the run's folder, as the demo leaves them."""

    label_map: Path | None = None
    parcels: Path | None = None
    truth: Path | None = None
    """True parcels, with which the others are compared."""
    tolerance: float = 3.0
    """How far apart boundaries may be, in metres."""
    scene: Path | None = None
    """The image under the parcels; None: the one that the map names, beside it or among the run's images."""


class _ClassTable(BaseModel):
    names: list[str]
    palette: list[tuple[_Colour, _Colour, _Colour]]


class _Named(BaseModel):
    name: str


class _Card(BaseModel):
    """What the page shows of ``model.toml``."""

    architecture: _Named
    classes: _ClassTable
    bands: list[int]
    dtype: str
    provenance: dict[str, str] = {}


@dataclass(frozen=True)
class Content:
    """All that a page is made of."""

    folder: Path
    config: Config
    classes: Classes
    card: dict
    log: list[dict]
    evaluation: str
    """Name of the evaluation that is shown."""
    apart: bool
    """No scene of the evaluation has the name of a training image."""
    scores: dict
    """As `metrics.Scores.to_dict` gives them."""
    matrix: Int64[np.ndarray, "K K"]
    scenes: list[Picture]
    worst: list[Picture]
    parcels: ParcelMap | None
    weights: dict[str, str]
    """Size and hash of the weights, in words."""


def gather(folder: str | Path, files: ParcelFiles | None = None) -> Content:
    """Read a run's folder.

    The newest evaluation on other data is shown or, without one, that on the run's own validation part.

    Args:
        files: the map and the parcels to draw.

    Raises:
        ConfigError: no run there, or one that was never evaluated; or parcels without a map, or a map without parcels.
        DataError: a map or parcels that were named and cannot be read.
    """
    run, config = open_finished_run(folder)
    metrics = run.metrics
    if not metrics:
        raise ConfigError(f"{folder} has no scores to report yet. Run `pixelwise evaluate {folder}` first.")
    others = [key for key, kept in metrics.items() if key not in ("training", VALIDATION) and _of_other_data(kept)]
    name = others[-1] if others else VALIDATION if VALIDATION in metrics else [*metrics][-1]
    card = read_card(run.folder / "model")
    classes = _shown_by(card, run.folder / "model" / "model.toml")
    matrix = _matrix(metrics[name], len(classes), run.folder / "metrics.json")
    kept = run.folder / "evaluations" / f"{name}.npz"
    scenes, worst = load_pictures(kept) if kept.exists() else ([], [])
    return Content(
        folder=run.folder,
        config=config,
        classes=classes,
        card=card,
        log=run.log,
        evaluation=name,
        apart=_apart(config, metrics[name].get("scenes", {})),
        scores=metrics[name],
        matrix=matrix,
        scenes=scenes,
        worst=worst,
        parcels=_parcel_map(run.folder, files or ParcelFiles(), config, classes),
        weights=_about_weights(run.folder / "model" / "model.safetensors"),
    )


def _shown_by(card: dict, path: Path) -> Classes:
    """Return the classes of a model's card, after a look at all of it that the page shows."""
    try:
        shown = _Card.model_validate(card)
    except ValidationError as error:
        where, reason = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
        raise WeightsError(f"{path} is damaged ({where}: {reason}). Restore the folder or train again.") from None
    names, palette = shown.classes.names, shown.classes.palette
    if len(names) != len(palette):
        raise WeightsError(f"{path} is damaged: {len(names)} names of classes, {len(palette)} colours. Restore it.")
    return Classes(tuple(names), tuple((r, g, b) for r, g, b in palette))


def _matrix(entry: dict, classes: int, path: Path) -> Int64[np.ndarray, "K K"]:
    try:
        matrix = np.array(entry["confusion"], np.int64)
    except (ValueError, KeyError, TypeError, OverflowError):
        matrix = np.zeros((0, 0), np.int64)
    if matrix.shape != (classes, classes):
        raise ConfigError(f"{path} is damaged. Run `pixelwise evaluate {path.parent}` again, which makes it anew.")
    return matrix


def _of_other_data(kept: dict) -> bool:
    return kept.get("about", {}).get("data") != VALIDATION


def _apart(config: Config, scenes: dict) -> bool:
    folders = [folder for folder in as_places(config.data.images) if folder.is_dir()]
    if not scenes or not folders:
        return False
    learned = {path.stem for folder in folders for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    return bool(learned) and not learned & set(scenes)


def _about_weights(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        with safe_open(path, framework="np") as file:
            # Running means and counters of batch norm are kept beside the weights, and are none.
            kept = ("running_mean", "running_var", "num_batches_tracked")
            names = [name for name in file.keys() if not name.endswith(kept)]  # noqa: SIM118 - it is no dict
            count = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        digest = file_digest(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({error}). Restore the folder or train again.") from None
    return {"Parameters": f"{count:,}", "Weights": f"{path.parent.name}/{path.name}, SHA-256 {digest}"}


def _parcel_map(run: Path, files: ParcelFiles, config: Config, classes: Classes) -> ParcelMap | None:
    if files.label_map is None and files.parcels is None and files.truth is None:
        label_map, parcels = run / "map.tif", run / "parcels.gpkg"
        if not label_map.exists() or not parcels.exists():
            return None
        try:
            return _drawn(label_map, parcels, files, config, classes)
        except PixelwiseError:
            # A map without any parcel is no mistake of the report's, nor are other people's polygons.
            return None
    if files.label_map is None or files.parcels is None:
        raise ConfigError("Parcels are drawn over their map. Give both, --map and --parcels.")
    return _drawn(files.label_map, files.parcels, files, config, classes)


def _drawn(label_map: Path, parcels: Path, files: ParcelFiles, config: Config, classes: Classes) -> ParcelMap:
    info = describe(label_map)
    step = -(-max(info.height, info.width) // LONGEST)
    drawn = [read_polygons(parcels, attribute=column) for column in ("class", "area_m2", "confidence")]
    named = read_tags(label_map).get("PIXELWISE_SCENE", "")
    picture = _picture_of(info, named, files, config, step)
    if picture is None:
        picture = colourise(_thinned(RasterReader(label_map), step)[0][0], classes)
    found, names = [], set()
    for geometry, *values in zip(drawn[0].geometries, *(each.values or () for each in drawn), strict=True):
        name, area, confidence = values
        names.add(str(name))
        sure = None if confidence is None else float(str(confidence))
        found.append(DrawnParcel(str(name), _rings(geometry, info, step), float(str(area)), sure))
    truth, scores = [], None
    if files.truth is not None:
        true = read_polygons(files.truth, named=("--truth", ""))
        crs = info.crs
        assert crs is not None, "parcels have a place, and so has their map"
        moved = optional_module("shapely").transform(true.geometries, lambda xy: transformed(true.crs, crs, xy))
        truth = [_rings(geometry, info, step) for geometry in moved]
        if len(names) == 1:
            scores = score_parcels(
                parcels, files.truth, tolerance=files.tolerance, classes=sorted(names), within=label_map
            )
    return ParcelMap(Path(named).name or label_map.name, picture, found, truth, scores)


def _rings(geometry: Any, info: RasterInfo, step: int) -> list[Float64[np.ndarray, "n 2"]]:
    """Return the outer rings and the holes of a polygon in pixels of the picture."""
    parts = getattr(geometry, "geoms", [geometry])
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    return [placed(~info.transform, np.asarray(ring.coords)[:, :2]) / step for ring in rings]


def _picture_of(
    info: RasterInfo, named: str, files: ParcelFiles, config: Config, step: int
) -> UInt8[np.ndarray, "H W 3"] | None:
    """Return None where the scene is not found, or is no longer the one that was mapped."""
    # A map names its scene without a folder.
    folders = [info.path.parent, config.data.images, config.data.validation_images]
    places = [folder / named for folder in folders if folder is not None and named]
    for scene in [files.scene] if files.scene is not None else places:
        if scene.is_file():
            try:
                reader = RasterReader(scene)
                if (reader.info.height, reader.info.width) == (info.height, info.width):
                    return to_picture(*_thinned(reader, step))
            except PixelwiseError:
                continue
    return None


def _thinned(reader: RasterReader, step: int) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
    """Return every ``step``-th pixel, read strip by strip, so that a large scene is never held whole."""
    height, width = reader.info.height, reader.info.width
    parts = []
    for top in range(0, height, ROWS):
        values, valid = reader.read(Window(top, 0, min(ROWS, height - top), width))
        first = -top % step
        parts.append((values[:, first::step, ::step].copy(), valid[first::step, ::step].copy()))
    reader.close()
    values, valid = (np.concatenate(part, axis=-2) for part in zip(*parts, strict=True))
    return values, valid


def load_log_rows(content: Content, key: str) -> list[tuple[int, float]]:
    """Return (step, value) of the rows of the log that have a number under a key; `LARGEST` is the limit."""
    rows = [(row.get("step"), row.get(key)) for row in content.log]
    return [
        (step, float(value))
        for step, value in rows
        if isinstance(step, int) and isinstance(value, int | float) and abs(value) <= LARGEST
    ]


def summary(content: Content) -> dict[str, str]:
    """Return what was trained on what, in short phrases; what is not known is empty."""
    data, train = content.config.data, content.config.train
    provenance = content.card.get("provenance", {})
    steps = [step for step, _ in load_log_rows(content, "step")]
    spent = [seconds for _, seconds in load_log_rows(content, "seconds")]
    side = train.crop_size
    done = max(steps, default=train.steps)
    planned = f" of the {train.steps:,} planned" if done < train.steps else ""
    return {
        "Network": content.card["architecture"]["name"],
        "Parameters": content.weights.get("Parameters", ""),
        "Images": ", ".join(map(str, as_places(data.images))),
        "Labels": ", ".join(map(str, as_places(data.labels))),
        "Bands": f"{', '.join(map(str, content.card['bands']))} ({content.card['dtype']})",
        "Training": f"{done:,} steps{planned}, {train.batch_size} crops of {side} × {side} pixels each",
        "Time": _duration(spent[-1]) if spent else "",
        "Seed": str(train.seed),
        "Date": provenance.get("date", ""),
        "pixelwise": provenance.get("pixelwise", ""),
        "Weights": content.weights.get("Weights", ""),
    }


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def config_text(content: Content) -> str:
    """Return the configuration of the run as TOML, for the foot of the page."""
    return tomli_w.dumps(content.config.model_dump(mode="json", exclude_none=True))
