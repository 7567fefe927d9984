"""The whole job on the example scenes, step by step."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pixelwise.config import Config, RunConfig, as_places, load_config
from pixelwise.data.scenes import open_scenes
from pixelwise.errors import ConfigError
from pixelwise.evaluation.evaluate import evaluate
from pixelwise.geo.raster import describe
from pixelwise.parcels.polygonize import polygonize
from pixelwise.predictor import load
from pixelwise.report import ParcelFiles, write_report
from pixelwise.runs.run_folder import holds_run, open_run
from pixelwise.training.boundary_losses import with_boundary_losses
from pixelwise.training.train import train

if TYPE_CHECKING:
    from pixelwise.training.train import Progress

SMALLEST_PARCEL = 500.0
"""Square metres; what is smaller is noise at 1 m per pixel."""
SIMPLIFIED = 2.0
"""Metres: twice a pixel, which takes the staircases away."""


def demo(
    examples: Path | None,
    output: Path,
    *,
    fresh: bool,
    say: Callable[[str], None],
    training: Callable[["Progress | str"], None],
) -> None:
    """Check, train, score, map, draw parcels and report, on scenes that travel with the repository.

    A finished run in ``output`` is used again, one that was interrupted goes on.

    Args:
        examples: the folder of fields.toml; None: found beside the package.
        output: the run's folder; the map, the parcels and the report are put there too.
        fresh: delete an earlier demo in ``output`` first.
        say: called with each line.
        training: called as `train` calls its ``report``.

    Raises:
        ConfigError: no examples, or an output folder that cannot be used.
    """
    begun = time.monotonic()
    examples = _find_examples(examples)
    config = load_config(examples / "fields.toml").model_copy(update={"run": RunConfig(folder=output)})
    test = load_config(examples / "fields_test.toml")
    if fresh:
        _forget(output)

    say(f"1. The data, {examples}")
    for name, part in (("to learn from", config), ("to be tested on, from other places", test)):
        _, scenes = open_scenes(part.data)
        info = scenes[0].info
        say(f"   {len(scenes)} scenes {name}, {info.width}x{info.height} pixels, {info.count} bands")

    say(f"2. Training {config.model.name} for {config.train.steps} steps")
    if _finished(with_boundary_losses(config, lambda text: None)):
        say(f"   The finished run in {output} is used again. To begin anew, add --fresh (make demo DEMO=--fresh).")
    else:
        train(config, resume=holds_run(output), report=training)

    say("3. Scores on the test scenes")
    scores = evaluate(output, examples / "fields_test.toml").scores
    say(f"   mIoU {scores.miou or 0:.3f}, {scores.pixel_accuracy or 0:.1%} of the pixels right")
    for each in scores.classes:
        say(f"   {each.name:12} IoU {'absent' if each.iou is None else f'{each.iou:.3f}'}")

    scene = sorted(as_places(test.data.images)[0].glob("*.tif"))[-1]
    info = describe(scene)
    say(f"4. Map of {scene.name}, {info.width}x{info.height} pixels")
    load(output).map_scene(scene, output / "map.tif", confidence=True)

    say("5. Parcels")
    polygonize(
        output / "map.tif",
        output / "parcels.gpkg",
        minimum_area=SMALLEST_PARCEL,
        simplify=SIMPLIFIED,
        instances=("field", "boundary"),
        classes=["field"],
    )

    say("6. Report")
    write_report(output, ParcelFiles(scene=scene))

    say(f"\nDone in {time.monotonic() - begun:.0f} s. Look at:")
    for path, what in (
        (output / "report.html", "curves, scores, the worst tiles, the parcel map; open it in a browser"),
        (output / "map.tif", "a class for every pixel of one test scene, georeferenced"),
        (output / "parcels.gpkg", "its fields as polygons, with areas"),
        (output / "metrics.json", "all scores"),
        (output / "model", "the trained model: pixelwise predict takes this folder"),
    ):
        say(f"   {path!s:32} {_size(path):>8}  {what}")


def _find_examples(given: Path | None) -> Path:
    places = [given] if given is not None else [Path(__file__).parents[2] / "examples", Path("examples")]
    for place in places:
        if (place / "fields.toml").exists():
            return place.resolve()
    raise ConfigError(
        f"There are no example scenes (no fields.toml in {' or '.join(map(str, places))}). They travel with the "
        "repository and not with the installed package: clone it, and name its examples folder with --examples."
    )


def _finished(config: Config) -> bool:
    """Find or make the run in the output folder, and tell whether it has come to its end."""
    try:
        run = open_run(config, resume=holds_run(config.run.folder or Path()))
    except ConfigError as problem:
        raise ConfigError(
            f"{problem} With --fresh (make demo DEMO=--fresh) the demo deletes an earlier one and begins anew."
        ) from None
    log = run.log
    return bool(log) and log[-1]["step"] >= config.train.steps and (run.folder / "model" / "model.toml").exists()


def _forget(output: Path) -> None:
    # Only a folder that is a run is deleted: --output may name anything.
    if not output.exists():
        return
    if not (output / "config.toml").exists() or not (output / "log.jsonl").exists():
        raise ConfigError(f"{output} holds no earlier demo, so --fresh does not delete it. Choose another --output.")
    shutil.rmtree(output)


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files)
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
