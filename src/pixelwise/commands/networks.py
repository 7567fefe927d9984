"""The commands that look at networks: which there are, what they see, and how far a UNet++ can be cut."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pixelwise.hub.catalog import Row, Wanted


@click.command()
@click.option("--match", default="", help="Only names that hold this text.")
@click.option(
    "--max-parameters",
    type=click.FloatRange(min=0),
    metavar="M",
    help="Only networks of at most so many million parameters.",
)
@click.option("--max-gflop", type=click.FloatRange(min=0), metavar="G", help="Only networks of at most so many GFLOP.")
@click.option(
    "--max-ms",
    type=click.FloatRange(min=0),
    metavar="MS",
    help="Only networks whose label map takes at most so many milliseconds: here with --time, else as measured once.",
)
@click.option(
    "--fits",
    type=click.Choice(["predict", "train"]),
    is_flag=False,
    flag_value="predict",
    help="Only networks for whose images, or training steps, this machine has enough free memory.",
)
@click.option(
    "--memory",
    type=click.FloatRange(min=0),
    metavar="GB",
    help="With --fits: so much memory, not that of this machine.",
)
@click.option("--commercial", is_flag=True, help="Only networks with known weights that allow commercial use.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["name", "year", "parameters", "flops", "cio", "memory", "seconds", "score"]),
    help="Order of the rows; as grouped by family if not given.",
)
@click.option("--time", "timed", is_flag=True, help="Measure a label map of each network here (seconds per network).")
@click.option("--traffic", is_flag=True, help="Show the memory traffic of convolutions in place of memory and time.")
@click.option(
    "--size", default=512, type=click.IntRange(min=32), show_default=True, help="Side of the image in pixels."
)
@click.option("--classes", default=19, type=click.IntRange(min=1), show_default=True, help="Number of classes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def models(
    match: str,
    max_parameters: float | None,
    max_gflop: float | None,
    max_ms: float | None,
    fits: str | None,
    memory: float | None,
    commercial: bool,
    order: str | None,
    timed: bool,
    traffic: bool,
    size: int,
    classes: int,
    as_json: bool,
) -> None:
    """List the networks: size, memory, time, scores, licences.

    The names are those that [model].name takes. Parameters, FLOPs and memory are computed; a multiplication with its
    addition counts as two. Memory is what predicting one image takes at most in float32, and about what a training step
    of four takes. Times are milliseconds of a label map: those of docs/performance.md, or measured here with --time.
    Scores are mIoU in percent on ADE20K and Cityscapes (validation), as their authors published them. Weights are
    "free" if some that are known allow commercial use, else "bound".

    With --traffic, CIO is how many values all convolutions read and write (HarDNet's measure of memory traffic);
    MAC/CIO says how many multiply-adds each of them is worth: a low number means that the network waits for memory.

    \b
    Example:
      pixelwise models --fits train --commercial --sort score
      pixelwise models --max-ms 500
      pixelwise models --match unet --sort flops
    """
    from pixelwise.commands.progress import shown_steps
    from pixelwise.hub.catalog import Wanted, catalog, kept_costs, sort_rows, table_text

    if memory is not None and fits is None:
        raise click.UsageError("--memory needs --fits: it says how much there is to fit into.")
    names = [name for name in kept_costs() if match in name]
    if not names:
        raise click.UsageError(f"No network's name holds {match!r}. `pixelwise models` lists all.")
    if timed:
        from pixelwise.fast.allocator import keep_freed_memory

        keep_freed_memory()
    room = None if fits is None else _room(memory)
    with shown_steps("Measuring" if timed else "Counting", len(names)) as advance:
        rows = catalog(names, size=size, classes=classes, timed=timed, advance=advance)
    wanted = Wanted(
        most_parameters=None if max_parameters is None else max_parameters * 1e6,
        most_flops=None if max_gflop is None else max_gflop * 1e9,
        most_seconds=None if max_ms is None else max_ms / 1e3,
        memory=room,
        training=fits == "train",
        commercial=commercial,
    )
    shown = [row for row in rows if wanted.takes(row)]
    shown = sort_rows(shown, order) if order else shown
    if as_json:
        click.echo(json.dumps([row.to_dict() for row in shown], indent=2))
        return
    click.echo(table_text(shown, traffic=traffic) if shown else "No network is as wanted. Ask for less.")
    _say_how(rows, wanted, f"{size}x{size} pixels, 3 bands, {classes} classes", timed=timed)


def _room(memory: float | None) -> float:
    """Return the bytes that a network has to fit into."""
    from pixelwise.machine import free_memory

    room = free_memory() if memory is None else memory * 1e9
    if room is None:
        raise click.UsageError("The system does not say how much memory is free. Say it: --memory GB.")
    return room


def _say_how(rows: "list[Row]", wanted: "Wanted", image: str, *, timed: bool) -> None:
    """Say what the table does not: units, where times come from, and which filter left out what is not known."""
    click.echo(f"{image}. Names and licences of weights, sources of scores: --json and `pixelwise weights`.")
    if not timed and any(row.kept_seconds for row in rows):
        click.echo(
            "Times: 150 classes, a machine of two cores without a GPU (docs/performance.md). --time measures here."
        )
    if wanted.memory is not None:
        click.echo(f"Memory: {wanted.memory / 1e9:.1f} GB.")
    unknown = sum(row.time is None for row in rows)
    if wanted.most_seconds is not None and unknown:
        click.echo(f"Left out, since nobody measured their time yet: {unknown}. --time measures them.")
    click.echo(
        "Any of them takes another encoder: one of ours, or encoder = 'transformers:facebook/dinov2-base' or "
        "'timm:convnext_tiny' under [model.options] (docs/encoders.md). How to choose: docs/choose.md."
    )


@click.command()
@click.argument("networks", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--output", type=click.Path(path_type=Path), default=Path("analysis"), show_default=True, help="Folder.")
@click.option("--images", default=20, show_default=True, help="How many images to average over.")
@click.option("--size", default=512, show_default=True, help="Side of the images in pixels, a multiple of 32.")
def analyze(networks: tuple[str, ...], output: Path, images: int, size: int) -> None:
    """Draw what each stage sees, and count what each layer costs.

    A NETWORK is a run, which looks at its own scenes, or a name, which looks at noise with fresh weights. The picture
    has a row per network and a column per stage: the gradient of the stage's centre by the image (logarithmic), and
    the side of the square that holds 95 % of it. The table has parameters, operations, memory and traffic (CIO) of each
    layer.

    \b
    Example:
      pixelwise analyze runs/fields runs/fields-deeplab --output analysis
    """
    from pixelwise.evaluation.receptive_field import analyze

    for one in analyze(networks, output, images=images, size=size, report=click.echo):
        click.echo(f"{one.name}: {one.cio / 1e6:.0f} M values of CIO, {one.macs_over_cio:.1f} multiply-adds for each.")
    click.echo(f"{output / 'fields.png'} and {output / 'analysis.json'} are written.")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("output", required=False, type=click.Path(path_type=Path))
@click.option("--depth", type=click.IntRange(min=1), help="Number of levels that stay. With it, OUTPUT is written.")
def prune(run: Path, output: Path | None, depth: int | None) -> None:
    """Cut a trained UNet++ down to fewer levels.

    Without --depth, print what each depth scores on the run's validation scenes and what it costs. With it, write the
    smaller network as the model folder OUTPUT, which `pixelwise predict` takes.

    \b
    Example:
      pixelwise prune runs/cells
      pixelwise prune runs/cells runs/cells-depth2 --depth 2
    """
    from pixelwise.evaluation.pruned import depths, prune_run, table_text

    if (depth is None) != (output is None):
        raise click.UsageError("A pruned network needs both OUTPUT and --depth. Without both, all depths are scored.")
    if depth is None or output is None:
        click.echo(table_text(depths(run, report=lambda said: click.echo(said, err=True))))
        return
    prune_run(run, output, depth=depth)
    click.echo(f"{output} holds the network of depth {depth}.")
