"""The commands that look at networks: which there are, what they see, and how far a UNet++ can be cut."""

import json
from pathlib import Path

import click


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
    "--sort",
    "order",
    type=click.Choice(["name", "year", "parameters", "flops", "cio", "seconds", "score"]),
    help="Order of the rows; as grouped by family if not given.",
)
@click.option("--time", "timed", is_flag=True, help="Measure a label map of each network here (seconds per network).")
@click.option(
    "--size", default=512, type=click.IntRange(min=32), show_default=True, help="Side of the image in pixels."
)
@click.option("--classes", default=19, type=click.IntRange(min=1), show_default=True, help="Number of classes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def models(
    match: str,
    max_parameters: float | None,
    max_gflop: float | None,
    order: str | None,
    timed: bool,
    size: int,
    classes: int,
    as_json: bool,
) -> None:
    """List the networks: origin, size, cost and published scores.

    The names are those that [model].name takes. Parameters and FLOPs are computed, with all that training needs; a
    multiplication with its addition counts as two. CIO is how many values all convolutions read and write (HarDNet's
    measure of memory traffic); MAC/CIO says how many multiply-adds each of them is worth: a low number means that the
    network waits for memory. Scores are mIoU in percent on ADE20K and Cityscapes (validation).

    \b
    Example:
      pixelwise models --match unet --sort flops
    """
    from pixelwise.commands.progress import shown_steps
    from pixelwise.hub.catalog import catalog, kept_costs, sort_rows, table_text

    if order == "seconds" and not timed:
        raise click.UsageError("--sort seconds needs --time.")
    names = [name for name in kept_costs() if match in name]
    if not names:
        raise click.UsageError(f"No network's name holds {match!r}. `pixelwise models` lists all.")
    if timed:
        from pixelwise.fast.allocator import keep_freed_memory

        keep_freed_memory()
    with shown_steps("Measuring" if timed else "Counting", len(names)) as advance:
        rows = catalog(names, size=size, classes=classes, timed=timed, advance=advance)
    rows = [row for row in rows if max_parameters is None or row.parameters <= max_parameters * 1e6]
    rows = [row for row in rows if max_gflop is None or row.flops <= max_gflop * 1e9]
    rows = sort_rows(rows, order) if order else rows
    if as_json:
        click.echo(json.dumps([row.to_dict() for row in rows], indent=2))
        return
    click.echo(table_text(rows))
    click.echo(f"{size}x{size} pixels, 3 bands, {classes} classes. Licences of weights and sources of scores: --json.")
    click.echo(
        "Any of them takes another encoder: one of ours, or encoder = 'transformers:facebook/dinov2-base' or "
        "'timm:convnext_tiny' under [model.options] (docs/encoders.md)."
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
