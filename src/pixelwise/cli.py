"""The command line: parse, call, show. Everything heavy is imported inside a command, so that `--help` is light."""

import json
import shlex
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from pixelwise import __version__
from pixelwise.commands.interruption import interruptible
from pixelwise.commands.networks import analyze, models, prune
from pixelwise.commands.parcels import polygonize, score_parcels
from pixelwise.commands.predict import predict
from pixelwise.errors import OldNameWarning, PixelwiseError, out_of_memory

if TYPE_CHECKING:
    from pixelwise.data.scenes import Scene
    from pixelwise.evaluation.metrics import Scores

FILE = click.Path(path_type=Path)


def main() -> None:
    """Run the command; leave with 0, 1 for a mistake that the user can mend, 2 for usage, 130 for Ctrl-C."""
    try:
        with _warnings_in_one_line():
            commands.main(prog_name="pixelwise", standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except click.Abort:
        sys.exit(130)
    except PixelwiseError as problem:
        _say_error(str(problem))
        sys.exit(1)
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        _say_error(
            f"There is not enough memory ({(str(problem).splitlines() or ['none is left'])[0][:200]}). Take smaller "
            "tiles, crops or batches, or close other programs."
        )
        sys.exit(1)
    except OSError as problem:
        # The system's own refusals: a full disk, a folder without permission, a file that went away.
        if problem.filename is None and problem.strerror is None:
            raise
        _say_error(f"{problem.filename or 'The system'}: {problem.strerror}.")
        sys.exit(1)


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        # Ours are for users, whom the line of code would tell nothing.
        if issubclass(category, OldNameWarning):
            # With what is said before the work, so that the last line is the result; but JSON stays JSON.
            click.echo(f"Note: {message}", err="--json" in sys.argv)
        else:
            shown(message, category, *place)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _say_error(text: str) -> None:
    # A terminal breaks lines in the middle of words; a log keeps the paragraph on one line, to be found by grep.
    if sys.stderr.isatty():
        width = max(40, min(100, get_terminal_size().columns))
        text = textwrap.fill(f"Error: {text}", width, break_long_words=False, break_on_hyphens=False)
        click.secho(text, fg="red", err=True)
    else:
        click.echo(f"Error: {text}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pixelwise")
def commands() -> None:
    """A class for every pixel: train on images, score, map whole scenes, draw parcels.

    \b
    Example, from a configuration to land parcels:
      pixelwise check fields.toml
      pixelwise train fields.toml
      pixelwise evaluate runs/fields test.toml
      pixelwise predict runs/fields scene.tif map.tif
      pixelwise polygonize map.tif parcels.gpkg
    """


@commands.command()
@click.option("--output", type=FILE, default=Path("runs/demo"), show_default=True, help="Folder for everything made.")
@click.option("--examples", type=FILE, help="The folder examples/ of the repository, if it is not found by itself.")
@click.option("--fresh", is_flag=True, help="Begin anew: what an earlier demo left in the output folder is deleted.")
def demo(output: Path, examples: Path | None, fresh: bool) -> None:
    """Do the whole job on the example scenes.

    Check, train, score, map, draw parcels, report. A demo that was finished is shown again, one that was
    interrupted goes on.

    \b
    Example:
      pixelwise demo --output /tmp/demo
    """
    with interruptible("The same command goes on from the last saved step."):
        from pixelwise.commands.demo_job import demo
        from pixelwise.commands.progress import shown_training

        with shown_training() as training:
            demo(examples, output, fresh=fresh, say=click.echo, training=training)


OVERRIDES = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the configuration: train.steps=200; repeatable.",
)


@commands.command()
@click.argument("config", type=FILE)
@OVERRIDES
def check(config: Path, overrides: tuple[str, ...]) -> None:
    """Read every file of a configuration and say what is wrong.

    Counts the pixels of each class, too, as training would see them.

    \b
    Example:
      pixelwise check fields.toml
    """
    with interruptible("Nothing was written."):
        from pixelwise.commands.progress import shown_steps
        from pixelwise.config import load_config
        from pixelwise.data.check import require_usable, survey
        from pixelwise.data.footprints import resolution_note
        from pixelwise.data.split import open_split
        from pixelwise.labels import make_classes
        from pixelwise.training.model_check import check_model

        loaded = load_config(config, overrides)
        problems: list[str] = []
        classes = make_classes(loaded.data.classes, loaded.data.palette)
        parts: dict[str, list[Scene]] = {}
        try:
            _, split = open_split(loaded)
            parts = {"training": split.training, "validation": split.validation}
            parts |= {"test": split.test} if split.test else {}
        except PixelwiseError as problem:
            # The network is looked at all the same, so that one reading names every mistake.
            problems.append(str(problem))
        if (note := resolution_note([scene.info for scenes in parts.values() for scene in scenes])) is not None:
            click.echo(note)
        for name, scenes in parts.items():
            with shown_steps(f"Reading {name}", len(scenes)) as advance:
                found = survey(scenes, classes, advance=lambda _, advance=advance: advance())
            problems += found.problems
            notes = found.notes if name == "training" else ()
            click.echo(f"{name.capitalize()}: {len(scenes)} scenes")
            pixels = int(found.class_pixels.sum()) + found.ignored
            for label, count in [
                *zip(classes.names, found.class_pixels.tolist(), strict=True),
                ("(ignored)", found.ignored),
            ]:
                click.echo(f"  {label:20}{count / max(1, pixels):>9.2%}{count:>16,} pixels")
            if not scenes:
                continue
            try:
                # What training asks for; single problems are listed already.
                require_usable(replace(found, problems=()), classes, name)
            except PixelwiseError as problem:
                problems += [] if problems else [str(problem)]
            means, deviations = found.statistics.mean, found.statistics.std
            for band, mean, deviation in zip(scenes[0].reader.bands, means, deviations, strict=True):
                click.echo(f"  band {band:<15}  mean {mean:.6g}, standard deviation {deviation:.6g}")
            for note in notes:
                click.echo(f"Note: {note}")
        known = parts.get("training")
        problems += check_model(loaded, bands=len(known[0].reader.bands) if known else None)
        for problem in problems:
            _say_error(problem)
        if problems:
            sys.exit(1)
        click.echo("Every file can be read.")


@commands.command()
@click.argument("config", type=FILE, required=False)
@click.option("--resume", is_flag=True, help="Go on where an earlier run in the same folder stopped.")
@click.option("--run", "folder", type=FILE, help="The run's folder, instead of [run].folder or runs/NAME.")
@OVERRIDES
@click.option("--print-config", is_flag=True, help="Print every key with its default and its meaning, and leave.")
def train(
    config: Path | None, resume: bool, folder: Path | None, overrides: tuple[str, ...], print_config: bool
) -> None:
    """Train a network as a configuration says.

    \b
    Example:
      pixelwise train --print-config > fields.toml
      pixelwise train fields.toml
      pixelwise train fields.toml --set train.steps=200 --set model.name=segformer-b1
      pixelwise train fields.toml --resume
    """
    if print_config:
        from pixelwise.config import explain_config

        click.echo(explain_config())
        return
    if config is None:
        raise click.UsageError("Name a configuration, or ask for one with --print-config.")
    flags = [*(["--run", str(folder)] if folder else []), *(part for each in overrides for part in ("--set", each))]
    again = shlex.join([str(config), *flags])
    with interruptible(f"`pixelwise train {again} --resume` goes on from the last saved step."):
        from pixelwise.commands.progress import shown_training
        from pixelwise.config import RunConfig, load_config
        from pixelwise.training.train import train

        loaded = load_config(config, overrides)
        if folder is not None:
            loaded = loaded.model_copy(update={"run": RunConfig(folder=folder)})
        with shown_training() as report:
            run = train(loaded, resume=resume, report=report)
        click.echo(f"The run is in {run.folder}, its best model in {run.folder / 'model'}.")
        if loaded.data.validation or loaded.data.validation_images:
            _evaluate_and_report(run.folder)


def _evaluate_and_report(folder: Path) -> None:
    from pixelwise.errors import MissingExtraError
    from pixelwise.evaluation.evaluate import evaluate
    from pixelwise.report import write_report

    _show_scores(evaluate(folder).scores)
    try:
        click.echo(f"{write_report(folder)} shows curves, scores and the worst tiles.")
    except MissingExtraError as problem:
        # The run is complete without its page.
        click.echo(str(problem))


@commands.command()
@click.argument("run", type=FILE)
@click.argument("config", type=FILE, required=False)
@click.option(
    "--part",
    type=click.Choice(["training", "validation", "test"]),
    default="validation",
    show_default=True,
    help="Of the run's own data.",
)
@click.option("--name", help="What the evaluation is called in the run.  [default: as CONFIG; with a number if taken]")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="A network's option: output_stride=8; repeatable."
)
@click.option("--tile", type=int, help="Side of a tile in pixels, a multiple of 32.  [default: as CONFIG or RUN]")
@click.option("--overlap", type=int, help="Pixels that tiles share, a multiple of 32.  [default: as CONFIG or RUN]")
@click.option("--flips/--no-flips", default=None, help="Average with the mirrored image.  [default: as CONFIG or RUN]")
@click.option(
    "--scale", type=float, multiple=True, help="Average over zoomed copies; repeatable.  [default: as CONFIG or RUN]"
)
@OVERRIDES
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(
    run: Path,
    config: Path | None,
    part: str,
    name: str | None,
    options: tuple[str, ...],
    tile: int | None,
    overlap: int | None,
    flips: bool | None,
    scale: tuple[float, ...],
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score a run on a part of its own data, or on other data.

    CONFIG names the other data; all of it is scored. Scores are kept in the run's metrics.json.

    \b
    Example:
      pixelwise evaluate runs/fields
      pixelwise evaluate runs/fields --part test
      pixelwise evaluate runs/fields test.toml
      pixelwise evaluate runs/fields test.toml --option output_stride=8 --flips --scale 0.75 --scale 1 --scale 1.25
    """
    with interruptible("Nothing was written."):
        from pixelwise.config_table import parsed_options
        from pixelwise.evaluation.evaluate import evaluate
        from pixelwise.fast.allocator import keep_freed_memory

        keep_freed_memory()
        result = evaluate(
            run,
            config,
            part=part,
            name=name,
            options=parsed_options(options),
            tile=tile,
            overlap=overlap,
            flips=flips,
            scales=scale or None,
            overrides=overrides,
            report=None if as_json else click.echo,
        )
        note = result.warning()
        if note:
            click.echo(f"Note: {note}", err=True)
        if as_json:
            click.echo(json.dumps({"name": result.name, **result.to_dict()}, indent=2))
            return
        _show_scores(result.scores)
        click.echo(f"Kept as {result.name!r} in {run / 'metrics.json'}.")


def _show_scores(scores: "Scores") -> None:
    click.echo(f"{'class':20}{'IoU':>8}{'precision':>11}{'recall':>8}{'F1':>8}{'pixels':>14}")
    for each in scores.classes:
        parts = f"{_share(each.iou):>8}{_share(each.precision):>11}{_share(each.recall):>8}{_share(each.f1):>8}"
        click.echo(f"{each.name:20}{parts}{each.pixels:>14,}{'  (absent)' if each.absent else ''}")
    click.echo(
        f"mIoU {_share(scores.miou)}, pixel accuracy {_share(scores.pixel_accuracy)}, "
        f"mean accuracy {_share(scores.mean_accuracy)}, kappa {_share(scores.kappa)}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@commands.command()
@click.argument("run", type=FILE)
@click.option("--map", "label_map", type=FILE, help="The map whose parcels are drawn.  [default: RUN/map.tif]")
@click.option("--parcels", type=FILE, help="The parcels of that map.  [default: RUN/parcels.gpkg]")
@click.option("--truth", type=FILE, help="True parcels: draw them too, and score the parcels.")
@click.option("--tolerance", type=float, default=3.0, show_default=True, help="Metres, for the scores of boundaries.")
@click.option("--scene", type=FILE, help="The mapped scene, if it is not beside the map or among the run's images.")
def report(
    run: Path, label_map: Path | None, parcels: Path | None, truth: Path | None, tolerance: float, scene: Path | None
) -> None:
    """Write the page report.html of a run again.

    It shows curves, and of the newest evaluation the scores, the confusion matrix and the worst tiles.

    \b
    Example:
      pixelwise report runs/fields
      pixelwise report runs/fields --map county.tif --parcels county.gpkg --truth drawn.gpkg
    """
    from pixelwise.report import ParcelFiles, write_report

    files = ParcelFiles(label_map, parcels, truth, tolerance, scene)
    click.echo(f"{write_report(run, files)} is written.")


commands.add_command(models)
commands.add_command(analyze)
commands.add_command(prune)
commands.add_command(predict)
commands.add_command(polygonize)
commands.add_command(score_parcels)
