"""The command that predicts: photos, scenes and folders of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixelwise.commands.interruption import interruptible
from pixelwise.commands.parameters import FILE, RESOLUTION, UNITS, described, describing
from pixelwise.commands.weights import say_binding
from pixelwise.machine import share_cores

if TYPE_CHECKING:
    import torch

    from pixelwise.inference.options import TileOptions
    from pixelwise.mapping.options import MapOptions
    from pixelwise.predictor import Predictor

MAPS = (".tif", ".tiff")
"""Endings of maps; other outputs are pictures."""


@click.command()
@click.argument("model", type=FILE)
@click.argument("image", type=FILE)
@click.argument("output", type=FILE)
@describing
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

    MODEL is a run, a model folder, or a file that `pixelwise export` wrote; an ONNX file of others needs --classes,
    --mean and --std, in the units of the image. OUTPUT ends in .tif for a georeferenced map, written tile by tile, in
    .png for a picture in the colours of the classes, or is a folder, where each image gets what fits it. A map that was
    interrupted goes on when you give the same command again.

    \b
    Example:
      pixelwise predict runs/fields scene.tif map.tif
      pixelwise predict runs/fields scene.tif map.tif --aoi county.gpkg --cog --forecast
      pixelwise predict runs/street photo.jpg labels.png --option output_stride=8 --flips
      pixelwise predict runs/street photos results
      pixelwise predict runs/street photos drafts --as coco
      pixelwise predict theirs.onnx photo.jpg labels.png --classes a,b --mean 124,116,104 --std 58,57,57
    """
    share_cores()
    with interruptible("Finished pieces of a scene are kept; the same command goes on."):
        from pixelwise.inference.options import Fit, TileOptions
        from pixelwise.mapping.options import MapOptions

        kind, several = _kind(image, output, only_forecast, annotations), _several(device)
        tiles = TileOptions(tile, overlap, flips, scale or (1.0,), batch, Fit(units, resolution))
        wanted = MapOptions(confidence, probabilities, cog, aoi, on, several if len(several) > 1 else ())
        predictor = _loaded(model, str(several[0]) if several else device, described(options))
        if annotations is not None:
            _draw(predictor, image, output, tiles, annotations, simplify)
        elif kind in MAPS:
            _map(predictor, image, output, tiles, wanted, only_forecast)
        elif kind:
            _picture(predictor, image, output, tiles)
        else:
            _folder(predictor, image, output, tiles, wanted)


def _kind(image: Path, output: Path, only_forecast: bool, annotations: str | None) -> str:
    """Return the ending of the output; empty where it is a folder, as it is for a folder of images."""
    kind = "" if image.is_dir() else output.suffix.lower()
    if only_forecast and kind not in MAPS:
        raise click.UsageError("A forecast is made for one scene whose map is a .tif.")
    if annotations is not None and output.suffix:
        raise click.UsageError("Annotations are written into a folder. Let OUTPUT be one.")
    return kind


def _several(device: str) -> "tuple[torch.device, ...]":
    """Return the devices that share a scene, if several are named."""
    if "," not in device:
        return ()
    from pixelwise.device import choose_devices

    return choose_devices(device)


def _loaded(model: Path, device: str, options: dict[str, Any]) -> "Predictor":
    from pixelwise.fast.allocator import keep_freed_memory
    from pixelwise.predictor import load

    keep_freed_memory()
    predictor = load(model, device=device, options=options)
    say_binding(predictor.card.origins)
    return predictor


def _map(
    predictor: "Predictor",
    scene: Path,
    output: Path,
    tiles: "TileOptions",
    wanted: "MapOptions",
    only_forecast: bool,
) -> None:
    """Say what a map will take, and make it."""
    from pixelwise.commands.progress import shown_share
    from pixelwise.mapping.map_scene import forecast_scene, map_scene

    network, card, model_hash = predictor.model, predictor.card, predictor.model_hash
    if wanted.on is None:
        click.echo(f"{scene}: {forecast_scene(network, card, scene, tiles, wanted)}")
    if only_forecast:
        return
    with shown_share(f"Mapping {scene.name}") as advance:
        made = map_scene(
            network, card, scene, output, tiles, wanted, model_hash=model_hash, advance=advance, say=click.echo
        )
    shares = ", ".join(f"{name} {share:.1%}" for name, share in made.shares.items())
    click.echo(f"{made.path}: {made.width}x{made.height} pixels in {made.seconds:.1f} s; {shares}.")


def _picture(predictor: "Predictor", image: Path, output: Path, tiles: "TileOptions") -> None:
    predictor.segment(
        image,
        tile=tiles.tile,
        overlap=tiles.overlap,
        flips=tiles.flips,
        scales=tiles.scales,
        units=tiles.fit.units,
        resolution=tiles.fit.resolution,
    ).save(output)
    click.echo(f"{output} is written.")


def _folder(predictor: "Predictor", images: Path, output: Path, tiles: "TileOptions", wanted: "MapOptions") -> None:
    from pixelwise.predictor import predict_folder

    written = predict_folder(predictor, images, output, tiles, wanted, report=click.echo)
    click.echo(f"{len(written)} files are in {output}.")


def _draw(
    predictor: "Predictor", images: Path, output: Path, tiles: "TileOptions", annotations: str, simplify: float
) -> None:
    """Write annotations."""
    from pixelwise.predictor import predict_annotations

    written = predict_annotations(predictor, images, output, tiles, annotations, simplify=simplify, report=click.echo)
    click.echo(f"{len(written)} files are written: {', '.join(map(str, written[:3]))}." if written else "Done.")
