"""The commands about parcels: draw them, and score them against true ones."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pixelwise.commands.interruption import interruptible

if TYPE_CHECKING:
    from pixelwise.parcels.scores import ParcelScores

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("label_map", metavar="MAP", type=FILE)
@click.argument("output", type=FILE)
@click.option(
    "--minimum-area",
    type=float,
    default=0.0,
    show_default=True,
    help="Square metres; smaller parcels join the neighbour with the longest shared border.",
)
@click.option("--merge/--no-merge", default=True, help="Join smaller parcels, or leave them out, which leaves gaps.")
@click.option("--simplify", type=float, default=0.0, show_default=True, help="Metres; neighbours still share borders.")
@click.option(
    "--instances",
    nargs=2,
    metavar="INTERIOR BOUNDARY",
    help="Two classes: fields, and their boundaries, which become part of the fields.",
)
@click.option(
    "--core",
    type=float,
    help="With --instances: pixels; two fields that touch along less than twice this are parted.  [default: a fifth of "
    "the mean radius of the map's fields]",
)
@click.option("--class", "classes", multiple=True, help="Draw this class; give it several times.  [default: all]")
def polygonize(
    label_map: Path,
    output: Path,
    minimum_area: float,
    merge: bool,
    simplify: float,
    instances: tuple[str, str] | None,
    core: float | None,
    classes: tuple[str, ...],
) -> None:
    """Turn a map into polygons with class, area and confidence.

    OUTPUT ends in .gpkg, .parquet, .geojson, .fgb or .shp. Beside it comes a style for QGIS, NAME.qml.

    \b
    Example:
      pixelwise polygonize map.tif parcels.gpkg --minimum-area 500 --simplify 2
      pixelwise polygonize map.tif fields.gpkg --instances field boundary --class field
    """
    with interruptible("Nothing was written."):
        from pixelwise.commands.progress import shown_stages
        from pixelwise.parcels.polygonize import polygonize

        with shown_stages() as advance:
            made = polygonize(
                label_map,
                output,
                minimum_area=minimum_area,
                merge=merge,
                simplify=simplify,
                instances=instances,
                core=core,
                classes=list(classes) or None,
                advance=advance,
            )
    fate = "joined a neighbour" if merge else "left out"
    click.echo(f"{made.path}: {made.parcels:,} parcels, {made.removed:,} smaller ones {fate}.")
    for name, area in made.areas.items():
        click.echo(f"  {name:20}{area / 1e4:>14,.2f} ha")
    if made.tolerance < simplify:
        click.echo(f"  Simplified by {made.tolerance:g} m only; with more, parcels would have overlapped.")


@click.command("score-parcels")
@click.argument("parcels", type=FILE)
@click.argument("truth", type=FILE)
@click.option("--tolerance", type=float, required=True, help="How far apart boundaries may be, in metres.")
@click.option("--class", "classes", multiple=True, help="Score this class; give it several times.  [default: all]")
@click.option("--attribute", default="class", show_default=True, help="Column of PARCELS with their classes.")
@click.option("--truth-attribute", help="Column of TRUTH with the classes.  [default: all are of the one class scored]")
@click.option("--within", type=FILE, help="Raster or polygons: score what lies inside.  [default: around PARCELS]")
@click.option("--block", type=float, default=500.0, show_default=True, help="Side in metres of the blocks of ground.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def score_parcels(
    parcels: Path,
    truth: Path,
    tolerance: float,
    classes: tuple[str, ...],
    attribute: str,
    truth_attribute: str | None,
    within: Path | None,
    block: float,
    as_json: bool,
) -> None:
    """Score parcels against true ones.

    As objects (a pair matches if its intersection is more than half of its union), along their boundaries, and in area.
    The F1 of objects and the areas have a 95 % interval, from blocks of the ground that are drawn at random.

    \b
    Example:
      pixelwise score-parcels parcels.gpkg truth.gpkg --class field --tolerance 3 --within map.tif
    """
    from pixelwise.parcels.scores import score_parcels

    scores = score_parcels(
        parcels,
        truth,
        tolerance=tolerance,
        attribute=attribute,
        truth_attribute=truth_attribute,
        classes=list(classes) or None,
        within=within,
        block=block,
    )
    if as_json:
        click.echo(json.dumps(scores.to_dict(), indent=2))
        return
    _show(scores)


def _show(scores: "ParcelScores") -> None:
    def row(name: str, precision: float | None, recall: float | None, f1: float | None) -> None:
        click.echo(f"{name:24}{_share(precision):>11}{_share(recall):>8}{_share(f1):>8}")

    click.echo(f"{scores.parcels:,} parcels, {scores.truth:,} true ones, {scores.matched:,} match")
    click.echo(f"{'':24}{'precision':>11}{'recall':>8}{'F1':>8}")
    row("objects (IoU above 0.5)", scores.precision, scores.recall, scores.f1)
    if scores.f1_low is not None and scores.f1_high is not None:
        click.echo(f"{'':24}F1 {scores.f1_low:.3f} to {scores.f1_high:.3f}: 95 % interval of {scores.blocks:,} blocks")
    row(f"boundaries ({scores.tolerance:g} m)", scores.boundary_precision, scores.boundary_recall, scores.boundary_f1)
    click.echo(
        f"over-segmentation {_share(scores.over_segmentation)}, under-segmentation "
        f"{_share(scores.under_segmentation)}, {scores.missed:,} not touched by any"
    )
    click.echo(f"{'class':20}{'ha':>12}{'true ha':>12}{'error':>9}   95 % interval of {scores.blocks:,} blocks")
    for each in scores.areas:
        interval = "-" if each.low is None or each.high is None else f"{each.low:+.1%} to {each.high:+.1%}"
        error = "-" if each.error is None else f"{each.error:+.1%}"
        click.echo(f"{each.name:20}{each.area / 1e4:>12,.2f}{each.truth / 1e4:>12,.2f}{error:>9}   {interval}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
