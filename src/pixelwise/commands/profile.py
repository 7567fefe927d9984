"""The command that says where time and memory go."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import described, describing
from pixelwise.machine import share_cores

if TYPE_CHECKING:
    from pixelwise.profiling.measure import Profile

PATH = click.Path(path_type=Path)
PLAIN_WIDTH = 160
"""Columns of the table where there is no terminal."""


@click.command()
@click.argument("model", type=PATH)
@click.argument("image", type=PATH, required=False)
@click.option(
    "--layers", default=20, show_default=True, type=click.IntRange(min=0), help="The slowest so many are shown."
)
@click.option("--json", "json_file", type=PATH, metavar="FILE", help="Write all figures, of all layers.")
@click.option("--trace", "trace_file", type=PATH, metavar="FILE", help="Write a trace for ui.perfetto.dev or Chrome.")
@click.option("--tile", type=int, help="Side of a tile in pixels, a multiple of 32.  [default: as in training]")
@click.option("--overlap", type=int, help="Pixels that tiles share, a multiple of 32.  [default: as in training]")
@click.option("--whole", is_flag=True, help="Map all of a large scene, not only 4 x 4 tiles in its middle.")
@click.option(
    "--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Runs of the network on a tile."
)
@describing
@click.option(
    "--device", default="auto", show_default=True, help="'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one."
)
def profile(
    model: Path,
    image: Path | None,
    layers: int,
    json_file: Path | None,
    trace_file: Path | None,
    tile: int | None,
    overlap: int | None,
    whole: bool,
    repeats: int,
    options: tuple[str, ...],
    device: str,
) -> None:
    """Tell where time and memory go, by stage and by layer.

    Stages lead from the image to its map; layers are those of the network. MODEL is a run, a model folder, or a file
    that `pixelwise export` wrote. IMAGE is a photo or a scene; without one, noise of four tiles is mapped. Tiles go one
    after the other here, so that times add up; `pixelwise predict` has a tile on each core.

    \b
    Example:
      pixelwise profile runs/fields
      pixelwise profile runs/fields scene.tif --layers 40 --trace trace.json
      pixelwise profile fields.onnx scene.tif --json profile.json
    """
    share_cores()
    with interruptible("Nothing is written."):
        from pixelwise.fast.allocator import keep_freed_memory
        from pixelwise.profiling.measure import profile as measured
        from pixelwise.profiling.measure import require_replaceable, write_profile

        if json_file is not None and json_file == trace_file:
            raise click.UsageError("--json and --trace name the same file. Give each a name of its own.")
        for path in filter(None, (json_file, trace_file)):
            require_replaceable(path)
        keep_freed_memory()
        found = measured(
            model,
            image,
            device=device,
            options=described(options),
            tile=tile,
            overlap=overlap,
            whole=whole,
            repeats=repeats,
        )
        _show(found, layers)
        for path, told in ((json_file, found.to_dict), (trace_file, found.trace)):
            if path is not None:
                write_profile(told(), path)
                click.echo(f"{path} is written.")


def _show(found: "Profile", count: int) -> None:
    console = Console(highlight=False)
    plain = not console.is_terminal
    if plain:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print(
        f"{found.model} with {found.runtime} on {found.device}, {found.threads} threads; processor: {found.processor}.",
        markup=False,
    )
    console.print(
        f"{found.image}: {found.width} x {found.height} pixels, {found.tiles} tiles of {found.tile[1]} x "
        f"{found.tile[0]}, in {found.wall_seconds:.3f} s.",
        markup=False,
    )
    console.print(_stages(found, plain))
    if count:
        console.print()
        console.print(_layers(found, count, plain))
    alone, watched = found.network.seconds, found.network.watched_seconds
    console.print(
        f"A tile takes the network {1e3 * alone:.1f} ms, and {1e3 * watched:.1f} ms with the clocks of the layers.",
        markup=False,
    )


def _table(plain: bool, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False) if plain else Table()
    for column in columns:
        table.add_column(column, justify="right" if column in ("ms", "share", "calls", "MiB", "peak MiB") else "left")
    return table


def _stages(found: "Profile", plain: bool) -> Table:
    from pixelwise.profiling.timeline import STAGES

    table = _table(plain, "stage", "ms", "share", "calls", "peak MiB", "what")
    for each in found.stages:
        peak = f"{each.peak_bytes / 2**20:,.0f}" if each.peak_bytes else "-"
        table.add_row(*_time(each.seconds, found.wall_seconds, each.name), str(each.calls), peak, STAGES[each.name])
    table.add_row(*_time(found.rest_seconds, found.wall_seconds, "rest"), "", "", "what no stage has")
    return table


def _layers(found: "Profile", count: int, plain: bool) -> Table:
    table = _table(plain, "layer", "what", "ms", "share", "calls", "MiB")
    total = sum(layer.seconds for layer in found.layers)
    for layer in found.layers[:count]:
        size = "-" if layer.output_bytes is None else f"{layer.output_bytes / 2**20:.2f}"
        name, taken, share = _time(layer.seconds, total, layer.name)
        table.add_row(name, layer.kind, taken, share, str(layer.calls), size)
    others = found.layers[count:]
    if others:
        name, taken, share = _time(sum(layer.seconds for layer in others), total, f"{len(others)} others")
        table.add_row(name, "", taken, share, "", "")
    return table


def _time(seconds: float, total: float, name: str) -> tuple[str, str, str]:
    return name, f"{1e3 * seconds:.2f}", f"{seconds / total:.1%}" if total else "-"
