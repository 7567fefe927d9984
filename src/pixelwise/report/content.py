"""What the page shows, gathered from a run's folder alone: neither the model nor the data is opened."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from pixelwise.config import Config
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.geo.label_map import colourise, to_picture
from pixelwise.geo.raster import RasterReader, Window, describe, read_tags
from pixelwise.geo.vector import placed, read_polygons
from pixelwise.jobs.evaluate import Picture, load_pictures
from pixelwise.jobs.run_folder import open_finished_run
from pixelwise.labels import Classes

LONGEST = 1024
"""Side of the parcel map's picture, in pixels."""


@dataclass(frozen=True)
class ParcelMap:
    """A map's parcels over the scene they are of."""

    name: str
    picture: UInt8[np.ndarray, "H W 3"]
    outlines: list[tuple[str, list[Float64[np.ndarray, "n 2"]]]]
    """Class, and the rings of the polygon in pixels of the picture (column, row)."""
    areas: dict[str, list[float]]
    """Class -> square metres of each parcel."""


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
    scores: dict
    """As `metrics.Scores.to_dict` gives them."""
    matrix: Int64[np.ndarray, "K K"]
    scenes: list[Picture]
    worst: list[Picture]
    parcels: ParcelMap | None


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
    name = list(metrics)[-1] if list(metrics) != ["validation"] else "validation"
    others = [key for key in metrics if key != "validation"]
    name = others[-1] if others else name
    card = tomllib.loads((run.folder / "model" / "model.toml").read_text(encoding="utf-8"))
    classes = Classes(tuple(card["classes"]["names"]), tuple((r, g, b) for r, g, b in card["classes"]["palette"]))
    kept = run.folder / "evaluations" / f"{name}.npz"
    scenes, worst = load_pictures(kept) if kept.exists() else ([], [])
    return Content(
        folder=run.folder,
        config=config,
        classes=classes,
        card=card,
        log=run.log,
        evaluation=name,
        scores=metrics[name],
        matrix=np.array(metrics[name]["confusion"], np.int64),
        scenes=scenes,
        worst=worst,
        parcels=_parcel_map(run.folder / "map.tif", run.folder / "parcels.gpkg", classes),
    )


def _parcel_map(label_map: Path, parcels: Path, classes: Classes) -> ParcelMap | None:
    if not label_map.exists() or not parcels.exists():
        return None
    info = describe(label_map)
    step = -(-max(info.height, info.width) // LONGEST)
    scene = Path(read_tags(label_map).get("PIXELWISE_SCENE", ""))
    if scene.is_file():
        values, valid = RasterReader(scene).read(Window(0, 0, info.height, info.width))
        picture = to_picture(values, valid)[::step, ::step]
    else:
        values, _ = RasterReader(label_map).read(Window(0, 0, info.height, info.width))
        picture = colourise(values[0], classes)[::step, ::step]
    try:
        drawn, areas = read_polygons(parcels, attribute="class"), read_polygons(parcels, attribute="area_m2")
    except PixelwiseError:
        # A map without any parcel is no mistake of the report's.
        return None
    inverse = ~info.transform
    outlines, by_class = [], {name: [] for name in classes.names}
    for geometry, name, area in zip(drawn.geometries, drawn.values or (), areas.values or (), strict=True):
        rings = []
        for part in getattr(geometry, "geoms", [geometry]):
            for ring in (part.exterior, *part.interiors):
                rings.append(placed(inverse, np.asarray(ring.coords)[:, :2]) / step)
        outlines.append((str(name), rings))
        by_class.setdefault(str(name), []).append(float(str(area)))
    return ParcelMap(scene.name or label_map.name, picture, outlines, {k: v for k, v in by_class.items() if v})


def load_log_rows(content: Content, key: str) -> list[tuple[int, float]]:
    """Return (step, value) of the rows of the log that have a number under a key."""
    rows = [(row["step"], row.get(key)) for row in content.log]
    return [(step, float(value)) for step, value in rows if isinstance(value, int | float) and np.isfinite(value)]


def summary(content: Content) -> dict[str, str]:
    """Return what was trained on what, in short phrases."""
    data, train = content.config.data, content.config.train
    seconds = content.log[-1]["seconds"] if content.log else 0.0
    minutes = f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return {
        "Network": content.card["architecture"]["name"],
        "Trained on": f"{data.images.name}, with {data.labels.name}",
        "Steps": f"{train.steps:,} of {train.batch} crops of {train.crop} px, in {minutes}",
        "Bands": f"{', '.join(map(str, content.card['bands']))} ({content.card['dtype']})",
        "Seed": str(train.seed),
        "pixelwise": content.card.get("provenance", {}).get("pixelwise", ""),
        "Date": content.card.get("provenance", {}).get("date", ""),
    }


def config_text(content: Content) -> str:
    """Return the configuration of the run as JSON, for the footer."""
    return json.dumps(content.config.model_dump(mode="json", exclude_none=True), indent=1)
