"""The command that predicts: photos, scenes and folders of them.

Its function is long because it names each option of the command line.
"""

from pathlib import Path

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE, RESOLUTION, UNITS
from pixelwise.commands.weights import say_binding
from pixelwise.machine import share_cores


@click.command()
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
@click.argument("output", type=FILE)
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="A network's option: output_stride=8; repeatable."
)
@click.option("--tile", type=int, help="Side of a tile in pixels, a multiple of 32.  [default: as in training]")
@click.option("--overlap", type=int, help="Pixels that tiles share, a multiple of 32.  [default: as in training]")
@click.option(
    "--batch", type=int, help="Scenes: tiles that go together; changes no byte.  [default: by memory; CPU: 1]"
)
@click.option("--flips", is_flag=True, help="Average with the mirrored image.")
@click.option("--scale", type=float, multiple=True, help="Average over zoomed copies; give it several times.")
@click.option("--confidence", is_flag=True, help="Scenes: write NAME.confidence.tif beside the map.")
@click.option("--probabilities", is_flag=True, help="Scenes: write NAME.probabilities.tif, a band for each class.")
@click.option("--cog", is_flag=True, help="Scenes: confidence and probabilities cloud-optimised, as the map always is.")
@click.option("--aoi", type=FILE, help="Scenes: a file of polygons, the area of interest; elsewhere there is nodata.")
@UNITS
@RESOLUTION
@click.option("--on", type=click.Choice(["ray"]), help="Scenes: make the map on a Ray cluster.")
@click.option(
    "--as",
    "annotations",
    type=click.Choice(["coco", "labelme", "cvat", "label-studio"]),
    help="Write polygons to correct in a tool for annotations, instead of masks.",
)
@click.option(
    "--simplify", type=float, default=0.0, help="With --as: pixels by which outlines may change.  [default: 0]"
)
@click.option("--forecast", "only_forecast", is_flag=True, help="Scenes: print time, memory and size, and stop.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="'cpu', 'cuda', 'cuda:1', or several that share a scene: 'cuda:0,cuda:1'; auto: a GPU if there is one.",
)
def predict(
    model: Path,
    image: Path,
    output: Path,
    options: tuple[str, ...],
    tile: int | None,
    overlap: int | None,
    batch: int | None,
    flips: bool,
    scale: tuple[float, ...],
    confidence: bool,
    probabilities: bool,
    cog: bool,
    aoi: Path | None,
    units: str,
    resolution: str,
    on: str | None,
    annotations: str | None,
    simplify: float,
    only_forecast: bool,
    device: str,
) -> None:
    """Find the class of every pixel of a photo, scene or folder.

    MODEL is a run, a model folder, or a file that `pixelwise export` wrote. OUTPUT ends in .tif for a georeferenced
    map, written tile by tile, in .png for a picture in the colours of the classes, or is a folder, where each image
    gets what fits it. A map that was interrupted goes on when you give the same command again.

    \b
    Example:
      pixelwise predict runs/fields scene.tif map.tif
      pixelwise predict runs/fields scene.tif map.tif --aoi county.gpkg --cog --forecast
      pixelwise predict runs/street photo.jpg labels.png --option output_stride=8 --flips
      pixelwise predict runs/street photos results
      pixelwise predict runs/street photos drafts --as coco
    """
    share_cores()
    with interruptible("Finished pieces of a scene are kept; the same command goes on."):
        from pixelwise.commands.progress import shown_share
        from pixelwise.config_table import parsed_options
        from pixelwise.fast.allocator import keep_freed_memory
        from pixelwise.inference.options import Fit, TileOptions
        from pixelwise.mapping.map_scene import forecast_scene, map_scene
        from pixelwise.mapping.options import MapOptions
        from pixelwise.predictor import load, predict_annotations, predict_folder

        keep_freed_memory()
        devices = ()
        if "," in device:
            from pixelwise.device import choose_devices

            devices = choose_devices(device)
        predictor = load(model, device=str(devices[0]) if devices else device, options=parsed_options(options))
        say_binding(predictor.card.origins)
        tiles = TileOptions(tile, overlap, flips, scale or (1.0,), batch, Fit(units, resolution))
        wanted = MapOptions(confidence, probabilities, cog, aoi, on, devices if len(devices) > 1 else ())
        kind = "" if image.is_dir() else output.suffix.lower()
        if only_forecast and kind not in (".tif", ".tiff"):
            raise click.UsageError("A forecast is made for one scene whose map is a .tif.")
        if annotations is not None:
            if output.suffix:
                raise click.UsageError("Annotations are written into a folder. Let OUTPUT be one.")
            written = predict_annotations(
                predictor, image, output, tiles, annotations, simplify=simplify, report=click.echo
            )
            click.echo(f"{len(written)} files are written: {', '.join(map(str, written[:3]))}." if written else "Done.")
        elif kind in (".tif", ".tiff"):
            network, card, model_hash = predictor.model, predictor.card, predictor.model_hash
            if on is None:
                click.echo(f"{image}: {forecast_scene(network, card, image, tiles, wanted)}")
            if only_forecast:
                return
            with shown_share(f"Mapping {image.name}") as advance:
                made = map_scene(
                    network, card, image, output, tiles, wanted, model_hash=model_hash, advance=advance, say=click.echo
                )
            shares = ", ".join(f"{name} {share:.1%}" for name, share in made.shares.items())
            click.echo(f"{made.path}: {made.width}x{made.height} pixels in {made.seconds:.1f} s; {shares}.")
        elif kind:
            predictor.segment(
                image,
                tile=tile,
                overlap=overlap,
                flips=flips,
                scales=tiles.scales,
                units=units,
                resolution=resolution,
            ).save(output)
            click.echo(f"{output} is written.")
        else:
            written = predict_folder(predictor, image, output, tiles, wanted, report=click.echo)
            click.echo(f"{len(written)} files are in {output}.")
