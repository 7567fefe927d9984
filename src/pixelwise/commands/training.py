"""The commands of a run: train it, score it, and write its page."""

import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.calibrate import show_calibration
from pixelwise.commands.doctor import stop_on_errors
from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import ACCEPT_LICENCE, FILE, OVERRIDES, RESOLUTION, UNITS, described, describing
from pixelwise.commands.weights import say_binding
from pixelwise.machine import share_cores

if TYPE_CHECKING:
    from pixelwise.evaluation.evaluate import Evaluation


@click.command()
@click.argument("config", type=FILE, required=False)
@click.option("--resume", is_flag=True, help="Go on where an earlier run in the same folder stopped.")
@click.option("--run", "folder", type=FILE, help="The run's folder, instead of [run].folder or runs/NAME.")
@click.option("--no-check", is_flag=True, help="Do not look for mistakes in the data first.")
@OVERRIDES
@ACCEPT_LICENCE
@click.option("--on", "where", type=click.Choice(["ray"]), help="Train on the machines of a Ray cluster.")
@click.option("--processes", type=click.IntRange(1), help="With --on ray: how many processes train, one for each GPU.")
@click.option("--print-config", is_flag=True, help="Print every key with its default and meaning, and exit.")
def train(
    config: Path | None,
    resume: bool,
    folder: Path | None,
    no_check: bool,
    overrides: tuple[str, ...],
    accepted: tuple[str, ...],
    where: str | None,
    processes: int | None,
    print_config: bool,
) -> None:
    """Train a network as a configuration says.

    The data is checked first, as `pixelwise check` does, and errors stop the training.

    \b
    Example:
      pixelwise train --print-config > fields.toml
      pixelwise train fields.toml
      pixelwise train fields.toml --set train.steps=200 --set model.name=segformer-b1
      pixelwise train fields.toml --resume
      torchrun --nproc-per-node 4 -m pixelwise train fields.toml
      pixelwise train fields.toml --on ray --processes 4
    """
    if print_config:
        from pixelwise.config import explain_config

        click.echo(explain_config())
        return
    if config is None:
        raise click.UsageError("Name a configuration, or ask for one with --print-config.")
    if processes is not None and where is None:
        raise click.UsageError(
            f"--processes goes with --on ray. Here: torchrun --nproc-per-node {processes} -m pixelwise train CONFIG"
        )
    flags = [*(["--run", str(folder)] if folder else []), *(part for each in overrides for part in ("--set", each))]
    flags += [part for each in accepted for part in ("--accept-licence", each)]
    flags += [*(["--on", where] if where else []), *(["--processes", str(processes)] if processes else [])]
    again = shlex.join([str(config), *flags])
    with interruptible(f"`pixelwise train {again} --resume` goes on from the last saved step."):
        from pixelwise.commands.progress import shown_download, shown_training
        from pixelwise.config import load_config
        from pixelwise.data.split_lists import lists_any
        from pixelwise.hub.download import NotKeptError
        from pixelwise.processes import is_first
        from pixelwise.runs.model_card import read_origins
        from pixelwise.training.first_weights import first_weights
        from pixelwise.training.joining import first_alone, joined, launched, restarted
        from pixelwise.training.trackers import send_report
        from pixelwise.training.train import train

        loaded = load_config(config, overrides)
        if folder is not None:
            loaded = loaded.model_copy(update={"run": loaded.run.model_copy(update={"folder": folder})})
        if accepted:
            model = loaded.model.model_copy(update={"accept_licence": [*loaded.model.accept_licence, *accepted]})
            loaded = loaded.model_copy(update={"model": model})
        if where is not None and launched():
            raise click.UsageError("--on ray starts its own processes. Leave torchrun out.")
        resume = resume or (restarted() and loaded.run.folder is not None and loaded.run.folder.is_dir())
        with joined(loaded):
            with first_alone() as first:
                if first and not resume:
                    # A name or a licence that does not work is said at once; nothing is fetched yet.
                    with suppress(NotKeptError):
                        first_weights(loaded.model, offline=True)
                    if not no_check:
                        # A run that goes on has seen its data.
                        stop_on_errors(config, loaded)
                    # Training finds them kept; here a bar shows how they come.
                    with shown_download() as advance:
                        first_weights(loaded.model, advance=advance)
            if not is_first():
                train(loaded, resume=resume)
                return
            with shown_training() as report:
                if where == "ray":
                    from pixelwise.training.ray_training import train_on_ray

                    run = train_on_ray(loaded, processes=processes or 1, resume=resume, report=report)
                else:
                    run = train(loaded, resume=resume, report=report)
        click.echo(f"The run is in {run.folder}, its best model in {run.folder / 'model'}.")
        say_binding(read_origins(run.folder))
        if lists_any(run.split, "validation"):
            _evaluate_and_report(run.folder)
            send_report(run.folder, loaded, click.echo)


def _evaluate_and_report(folder: Path) -> None:
    from pixelwise.errors import MissingExtraError
    from pixelwise.evaluation.evaluate import evaluate
    from pixelwise.report import write_report

    _show_scores(evaluate(folder))
    try:
        click.echo(f"{write_report(folder)} shows curves, scores and the worst tiles.")
    except MissingExtraError as problem:
        # The run is complete without its page.
        click.echo(str(problem))


@click.command()
@click.argument("run", type=FILE)
@click.argument("config", type=FILE, required=False)
@click.option(
    "--part",
    type=click.Choice(["training", "validation", "test"]),
    default="validation",
    show_default=True,
    help="Which part of the run's own data to score.",
)
@click.option(
    "--name", help="Name of the evaluation in the run.  [default: that of CONFIG or the part; with a number if taken]"
)
@describing
@click.option("--tile", type=int, help="Side of a tile in pixels, a multiple of 32.  [default: as CONFIG or RUN]")
@click.option("--overlap", type=int, help="Pixels that tiles share, a multiple of 32.  [default: as CONFIG or RUN]")
@click.option("--flips/--no-flips", default=None, help="Average with the mirrored image.  [default: as CONFIG or RUN]")
@click.option(
    "--scale", type=float, multiple=True, help="Average over zoomed copies; repeatable.  [default: as CONFIG or RUN]"
)
@UNITS
@RESOLUTION
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
    units: str,
    resolution: str,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score a run, or an exported file, on labelled images.

    They are a part of the run's own data; or those that CONFIG names, and all of them. Scores are kept in the run's
    metrics.json. RUN can be a file that `pixelwise export` wrote: it needs CONFIG, and its scores are printed alone.

    \b
    Example:
      pixelwise evaluate runs/fields
      pixelwise evaluate runs/fields --part test
      pixelwise evaluate runs/fields test.toml
      pixelwise evaluate fields.onnx test.toml
      pixelwise evaluate theirs.onnx test.toml --classes a,b --mean 124,116,104 --std 58,57,57
      pixelwise evaluate runs/fields test.toml --option output_stride=8 --flips --scale 0.75 --scale 1 --scale 1.25
    """
    share_cores()
    with interruptible("Nothing was written."):
        from pixelwise.evaluation.evaluate import evaluate
        from pixelwise.fast.allocator import keep_freed_memory
        from pixelwise.inference.options import Fit

        keep_freed_memory()
        result = evaluate(
            run,
            config,
            part=part,
            name=name,
            options=described(options),
            tile=tile,
            overlap=overlap,
            flips=flips,
            scales=scale or None,
            overrides=overrides,
            fit=Fit(units, resolution),
            report=None if as_json else click.echo,
        )
        note = result.warning()
        if note:
            click.echo(f"Note: {note}", err=True)
        if as_json:
            click.echo(json.dumps({"name": result.name, **result.to_dict()}, indent=2))
            return
        _show_scores(result)
        if run.is_dir():
            click.echo(f"Kept as {result.name!r} in {run / 'metrics.json'}.")


def _show_scores(result: "Evaluation") -> None:
    scores = result.scores
    click.echo(f"{'class':20}{'IoU':>8}{'precision':>11}{'recall':>8}{'F1':>8}{'pixels':>14}")
    for each in scores.classes:
        parts = f"{_share(each.iou):>8}{_share(each.precision):>11}{_share(each.recall):>8}{_share(each.f1):>8}"
        click.echo(f"{each.name:20}{parts}{each.pixels:>14,}{'  (absent)' if each.absent else ''}")
    click.echo(
        f"mIoU {_share(scores.miou)}, pixel accuracy {_share(scores.pixel_accuracy)}, "
        f"mean accuracy {_share(scores.mean_accuracy)}, kappa {_share(scores.kappa)}"
    )
    if result.calibration is not None:
        show_calibration(result.calibration)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show_live(run: Path, port: int | None) -> None:
    from pixelwise.report.live_server import live_server

    with live_server(run, port) as server:
        click.echo(f"{server.address} follows {run}, for this machine alone. Ctrl-C ends the page, not the run.")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


@click.command()
@click.argument("run", type=FILE)
@click.option("--map", "label_map", type=FILE, help="The map to draw parcels over.  [default: RUN/map.tif]")
@click.option("--parcels", type=FILE, help="The parcels of that map.  [default: RUN/parcels.gpkg]")
@click.option("--truth", type=FILE, help="True parcels: they are drawn too, and the parcels are scored.")
@click.option("--tolerance", type=float, default=3.0, show_default=True, help="Metres, for the scores of boundaries.")
@click.option("--scene", type=FILE, help="The mapped scene, if it is not beside the map or among the run's images.")
@click.option("--live", is_flag=True, help="Show a page that follows the run, until Ctrl-C; nothing is written.")
@click.option("--port", type=click.IntRange(0, 65535), help="Of the page that --live shows.  [default: 6010 or above]")
def report(
    run: Path,
    label_map: Path | None,
    parcels: Path | None,
    truth: Path | None,
    tolerance: float,
    scene: Path | None,
    live: bool,
    port: int | None,
) -> None:
    """Write a run's page report.html again, or follow training.

    The page shows the curves of the training, and the scores, the confusion matrix and the worst tiles of the newest
    evaluation. With --live it shows the curves, samples, warnings and the time left of a run while it trains.

    \b
    Example:
      pixelwise report runs/fields
      pixelwise report runs/fields --map county.tif --parcels county.gpkg --truth drawn.gpkg
      pixelwise report --live runs/fields
    """
    if port is not None and not live:
        raise click.UsageError("--port goes with --live.")
    if live:
        if label_map or parcels or truth or scene:
            raise click.UsageError("--live shows a run that trains. Leave --map, --parcels, --truth and --scene out.")
        _show_live(run, port)
        return
    from pixelwise.report import ParcelFiles, write_report

    files = ParcelFiles(label_map, parcels, truth, tolerance, scene)
    click.echo(f"{write_report(run, files)} is written.")
