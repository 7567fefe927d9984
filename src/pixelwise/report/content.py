"""What the page shows, gathered from a run's folder alone: neither the model nor the data is opened."""

import math
import tomllib
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import tomli_w
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8
from safetensors import SafetensorError, safe_open

from pixelwise.config import Config
from pixelwise.errors import ConfigError, PixelwiseError, WeightsError
from pixelwise.files import file_digest
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.geo.map_file import read_tags
from pixelwise.geo.raster import IMAGE_SUFFIXES, RasterReader, Window, describe
from pixelwise.geo.vector import placed, read_polygons
from pixelwise.jobs.evaluate import Picture, load_pictures
from pixelwise.jobs.evaluation_names import VALIDATION
from pixelwise.jobs.run_folder import open_finished_run
from pixelwise.labels import Classes

LONGEST = 1024
"""Side of the parcel map's picture, in pixels."""
LARGEST = 1e30
"""Numbers of the log beyond this, and those that are not finite, are in no curve."""
ROWS = 512
"""Rows of a scene that are read at once for its picture."""


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


def gather(folder: str | Path) -> Content:
    """Read a run's folder.

    The newest evaluation on other data is shown or, without one, that on the run's own validation part.

    Raises:
        ConfigError: no run there, or one that was never evaluated.
    """
    run, config = open_finished_run(folder)
    metrics = run.metrics
    if not metrics:
        raise ConfigError(f"{folder} has no scores to report yet. Run `pixelwise evaluate {folder}` first.")
    others = [key for key, kept in metrics.items() if key != VALIDATION and _of_other_data(kept)]
    name = others[-1] if others else VALIDATION if VALIDATION in metrics else [*metrics][-1]
    card, classes = _card(run.folder / "model" / "model.toml")
    matrix = _matrix(metrics[name], len(classes), run.folder / "metrics.json")
    kept = run.folder / "evaluations" / f"{name}.npz"
    scenes, worst = _pictures(kept)
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
        parcels=_parcel_map(run.folder / "map.tif", run.folder / "parcels.gpkg", classes),
        weights=_about_weights(run.folder / "model" / "model.safetensors"),
    )


def _card(path: Path) -> tuple[dict, Classes]:
    try:
        card = tomllib.loads(path.read_text(encoding="utf-8"))
        names, palette = card["classes"]["names"], card["classes"]["palette"]
        classes = Classes(tuple(names), tuple((int(r), int(g), int(b)) for r, g, b in palette))
        # What the page shows of it besides.
        shown = (card["architecture"]["name"], [*card["bands"]], card["dtype"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is damaged or missing ({type(error).__name__}: {error}). Restore it, or train again."
        ) from None
    if (
        None in shown
        or len(classes.names) != len(classes.palette)
        or not all(0 <= part < 256 for c in classes.palette for part in c)
    ):
        raise WeightsError(f"{path} is damaged: its colours do not fit its classes. Restore it, or train again.")
    return card, classes


def _matrix(entry: dict, classes: int, path: Path) -> Int64[np.ndarray, "K K"]:
    try:
        matrix = np.array(entry["confusion"], np.int64)
    except (ValueError, KeyError, TypeError, OverflowError):
        matrix = np.zeros((0, 0), np.int64)
    if matrix.shape != (classes, classes):
        raise ConfigError(f"{path} is damaged. Run `pixelwise evaluate {path.parent}` again, which makes it anew.")
    return matrix


def _pictures(kept: Path) -> tuple[list[Picture], list[Picture]]:
    if not kept.exists():
        return [], []
    try:
        return load_pictures(kept)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"{kept} is damaged ({type(error).__name__}: {error}). Run `pixelwise evaluate` again, which makes it anew."
        ) from None


def _of_other_data(kept: dict) -> bool:
    return kept.get("about", {}).get("data") != VALIDATION


def _apart(config: Config, scenes: dict) -> bool:
    folder = config.data.images
    if not scenes or not folder.is_dir():
        return False
    learned = {path.stem for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    return bool(learned) and not learned & set(scenes)


def _about_weights(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    # Running means and counters of batch norm are kept beside the weights, and are none.
    kept = ("running_mean", "running_var", "num_batches_tracked")
    try:
        with safe_open(path, "numpy") as file:
            names = [*file.keys()]
            count = sum(math.prod(file.get_slice(name).get_shape()) for name in names if not name.endswith(kept))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({error}). Restore it, or train again.") from None
    digest = file_digest(path)
    return {"Parameters": f"{count:,}", "Weights": f"{path.parent.name}/{path.name}, SHA-256 {digest}"}


def _parcel_map(label_map: Path, parcels: Path, classes: Classes) -> ParcelMap | None:
    if not label_map.exists() or not parcels.exists():
        return None
    info = describe(label_map)
    step = -(-max(info.height, info.width) // LONGEST)
    try:
        drawn = [read_polygons(parcels, attribute=column) for column in ("class", "area_m2", "confidence")]
    except PixelwiseError:
        # A map without any parcel is no mistake of the report's, nor are other people's polygons.
        return None
    scene = Path(read_tags(label_map).get("PIXELWISE_SCENE", ""))
    picture = _picture_of(scene, (info.height, info.width), step)
    if picture is None:
        picture = colourise(_thinned(RasterReader(label_map), step)[0][0], classes)
    inverse = ~info.transform
    found = []
    for geometry, *values in zip(drawn[0].geometries, *(each.values or () for each in drawn), strict=True):
        rings = []
        for part in getattr(geometry, "geoms", [geometry]):
            for ring in (part.exterior, *part.interiors):
                rings.append(placed(inverse, np.asarray(ring.coords)[:, :2]) / step)
        name, area, confidence = values
        found.append(
            DrawnParcel(str(name), rings, float(str(area)), None if confidence is None else float(str(confidence)))
        )
    return ParcelMap(scene.name or label_map.name, picture, found)


def _picture_of(scene: Path, size: tuple[int, int], step: int) -> UInt8[np.ndarray, "H W 3"] | None:
    """Return None where the scene is gone, or is no longer the one that was mapped."""
    if not scene.is_file():
        return None
    try:
        reader = RasterReader(scene)
        if (reader.info.height, reader.info.width) != size:
            return None
        return to_picture(*_thinned(reader, step))
    except PixelwiseError:
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
        "Images": str(data.images),
        "Labels": str(data.labels),
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
