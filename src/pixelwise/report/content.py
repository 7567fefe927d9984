"""What the page shows. It comes from a run's folder alone: neither the model nor the data is opened."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tomli_w
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open

from pixelwise.config import Config, as_places
from pixelwise.data.split_lists import lists_any
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.evaluation.names import VALIDATION
from pixelwise.evaluation.pictures import Picture, load_pictures
from pixelwise.files import file_digest
from pixelwise.geo.raster import IMAGE_SUFFIXES
from pixelwise.labels import Classes
from pixelwise.report.parcel_map import ParcelFiles, ParcelMap, parcel_map
from pixelwise.runs.model_card import ModelCard, read_card
from pixelwise.runs.run_folder import open_finished_run

LARGEST = 1e30
"""Curves leave out larger numbers of the log, and those that are not finite."""


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    folder: Path
    config: Config
    classes: Classes
    card: ModelCard
    log: list[dict]
    evaluation: str
    """Name of the evaluation that is shown."""
    apart: bool
    """No scene of the evaluation has the name of a training image."""
    scores: dict
    """As `Scores.to_dict` gives them."""
    matrix: Int64[np.ndarray, "K K"]
    scenes: list[Picture]
    worst: list[Picture]
    parcels: ParcelMap | None
    weights: dict[str, str]
    """Size and hash of the weights, in words."""
    calibrations: dict[str, dict] = field(default_factory=dict)
    """By name of the evaluation, as `Calibration.to_dict` gives them; first that of the one that is shown."""
    unscored_test: bool = False
    """The run keeps a test part that was not scored yet."""


def gather(folder: str | Path, files: ParcelFiles | None = None) -> Content:
    """Read a run's folder.

    The page shows the newest evaluation on other data or, without one, that on the run's own validation part.

    Args:
        files: the map and the parcels to draw.

    Raises:
        ConfigError: no run there, or one that was never evaluated; or parcels without a map, or a map without parcels.
        DataError: a map or parcels that were named and do not work.
    """
    run, config = open_finished_run(folder)
    metrics = run.metrics
    if not metrics:
        raise ConfigError(
            f"{folder} has no scores to report yet. Run `pixelwise evaluate {folder}` first.", code="PW613"
        )
    others = [key for key, kept in metrics.items() if key not in ("training", VALIDATION) and _of_other_data(kept)]
    name = others[-1] if others else VALIDATION if VALIDATION in metrics else [*metrics][-1]
    card, _ = read_card(run.folder / "model")
    classes = card.classes
    matrix = np.array(metrics[name]["confusion"], np.int64)
    if len(matrix) != len(classes):
        raise ConfigError(
            f"{run.folder / 'metrics.json'} is damaged: {name!r} has scores of {len(matrix)} classes, and the model "
            f"knows {len(classes)}. Remove it; `pixelwise evaluate {run.folder}` writes a new one.",
            code="PW615",
        )
    kept = run.pictures(name)
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
        parcels=parcel_map(run.folder, files or ParcelFiles(), config, classes),
        weights=_about_weights(run.folder / "model" / "model.safetensors"),
        calibrations=_calibrations(metrics, name),
        unscored_test="test" not in map(_data_of, metrics.values()) and lists_any(run.split, "test"),
    )


def _calibrations(metrics: dict, shown: str) -> dict[str, dict]:
    """Return the calibrations of the shown evaluation, of those of the test part, and of the validation part."""
    names = [shown, *(key for key, kept in metrics.items() if _data_of(kept) == "test"), VALIDATION]
    return {
        name: metrics[name]["calibration"]
        for name in dict.fromkeys(names)
        if name in metrics and metrics[name].get("calibration", {}).get("pixels")
    }


def _data_of(kept: dict) -> str | None:
    return kept.get("about", {}).get("data")


def _of_other_data(kept: dict) -> bool:
    return _data_of(kept) != VALIDATION


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
            # The running means and counters of batch norm are no parameters.
            kept = ("running_mean", "running_var", "num_batches_tracked")
            names = [name for name in file.keys() if not name.endswith(kept)]  # noqa: SIM118 - not a dict
            count = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        digest = file_digest(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({error}). Restore the folder or train again.", code="PW510") from None
    return {"Parameters": f"{count:,}", "Weights": f"{path.parent.name}/{path.name}, SHA-256 {digest}"}


def load_log_rows(content: Content, key: str) -> list[tuple[int, float]]:
    """Return (step, value) of the rows of the log whose value of a key is a number up to `LARGEST`."""
    rows = [(row.get("step"), row.get(key)) for row in content.log]
    return [
        (step, float(value))
        for step, value in rows
        if isinstance(step, int) and isinstance(value, int | float) and abs(value) <= LARGEST
    ]


def summary(content: Content) -> dict[str, str]:
    """Return what was trained on what, in short phrases; an unknown one is empty."""
    data, train = content.config.data, content.config.train
    card = content.card
    steps = [step for step, _ in load_log_rows(content, "step")]
    spent = [seconds for _, seconds in load_log_rows(content, "seconds")]
    side = train.crop_size
    done = max(steps, default=train.steps)
    planned = f" of the {train.steps:,} planned" if done < train.steps else ""
    return {
        "Network": card.architecture.name,
        "Parameters": content.weights.get("Parameters", ""),
        "Images": ", ".join(map(str, as_places(data.images))),
        "Labels": ", ".join(map(str, data.label_places)),
        "Bands": f"{', '.join(map(str, card.bands))} ({card.dtype})",
        "Training": f"{done:,} steps{planned}, {train.batch_size} crops of {side} × {side} pixels each",
        "Time": _duration(spent[-1]) if spent else "",
        "Seed": str(train.seed),
        "Descends from": _descent(card),
        "Date": card.provenance.get("date", ""),
        "pixelwise": card.provenance.get("pixelwise", ""),
        "Weights": content.weights.get("Weights", ""),
    }


def _descent(card: ModelCard) -> str:
    """Return the weights that the network began with, and those of its teacher; nothing if the model does not say."""
    if card.origins is None:
        return ""
    return ", ".join(f"{origin.name} ({origin.licence})" for origin in card.origins) or "fresh weights"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def config_text(content: Content) -> str:
    """Return the configuration of the run as TOML, for the foot of the page."""
    return tomli_w.dumps(content.config.model_dump(mode="json", exclude_none=True, exclude={"tune"}))
