"""A scene to a map, and what that will take: from what the user asks to a tiling of the scene."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from pixelwise.errors import ConfigError
from pixelwise.geo.polygon_labels import area_of_interest
from pixelwise.inference.augmented import output_stride
from pixelwise.inference.fitting import open_fitting
from pixelwise.inference.networks import ArrayNetwork, Network, arithmetic_of, device_of
from pixelwise.inference.options import TileOptions
from pixelwise.inference.segmentation import provenance
from pixelwise.inference.tile_grid import PIECE, plan_strips
from pixelwise.inference.tiling import Tiling
from pixelwise.mapping import ray_cluster
from pixelwise.mapping.capacity import fitting_streams, fitting_tile, free_memory, with_batch
from pixelwise.mapping.forecast import Forecast, forecast
from pixelwise.mapping.journal import read_settings
from pixelwise.mapping.options import MapOptions
from pixelwise.mapping.pieces import make_pieces
from pixelwise.mapping.write_map import SceneMap, cache_bytes, check_places, write_map
from pixelwise.runs.model_card import ModelCard
from pixelwise.threads import thread_count


def map_scene(
    model: Network,
    card: ModelCard,
    scene: str | Path,
    output: str | Path,
    tiles: TileOptions,
    options: MapOptions,
    *,
    model_hash: str,
    advance: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> SceneMap:
    """Map a scene of any size to a GeoTIFF; memory does not grow with it.

    The map has the scene's coordinate system and transform, nodata where the scene has none, the classes' names
    and colours, and provenance in its tags. It depends on nothing but the scene, the model and the options. What
    was killed or failed goes on when called again, with the same bytes in the end (`docs/scenes.md`).

    Args:
        advance: called with the share that is done, 0 to 1.
        say: called with what the user should know, such as that the work goes on where an earlier start ended.

    Raises:
        DataError: a scene that cannot be read, or other bands or units than the model's.
        ConfigError: an output that cannot be written, or a tile that does not work.
    """
    check_places(open_fitting(Path(scene), card, tiles.fit), output, card.classes, options)
    kept = read_settings(output)
    if tiles.tile is None and tiles.overlap is None and kept is not None and kept.get("model") == model_hash:
        # What was chosen for the memory there was.
        tiles = replace(tiles, tile=kept["tile"], overlap=kept["overlap"])
    tiling = _tiling(model, card, scene, tiles, options)
    make, batch, device = make_pieces, tiles.batch, device_of(model)
    if options.on == "ray":
        # Each worker finds its own batch.
        make, batch = partial(ray_cluster.make_pieces, batch=tiles.batch), 1
        device = ray_cluster.cluster_device()
    elif len(options.devices) > 1:
        # Each device finds its own batch; a core of the processor is one device's.
        if isinstance(model, ArrayNetwork):
            raise ConfigError("An exported file runs on one device. Name one, or map with the run.")
        from pixelwise.mapping import devices

        make = partial(devices.make_pieces, devices=options.devices, batch=tiles.batch)
        batch, tiling = 1, replace(tiling, streams=1)
        device = "+".join(sorted({each.type for each in options.devices}))
    info = tiling.reader.info
    if say and info.crs is None and not info.gcps and info.rpcs is None:
        say(f"{scene} has no coordinate system, so its map has none.")
    tags = {
        **provenance(card, model_hash),
        # Its name alone: folders, and what an address says behind its name, are nobody else's business.
        "PIXELWISE_SCENE": info.path.name.split("?")[0],
        "PIXELWISE_TILE": str(tiling.plan.tile),
        "PIXELWISE_OVERLAP": str(tiling.plan.overlap),
    }
    area = None if tiling.aoi is None else tiling.aoi.digest()
    # `pixelwise calibrate` may have changed it since the map was begun.
    temperature = card.temperature if options.confidence and card.temperature != 1 else None
    settings = {"model": model_hash, "area": area, "device": device, "temperature": temperature}
    return write_map(
        tiling, scene, output, options, tags=tags, settings=settings, batch=batch, make=make, advance=advance, say=say
    )


def forecast_scene(
    model: Network, card: ModelCard, scene: str | Path, tiles: TileOptions, options: MapOptions
) -> Forecast:
    """Tell what `map_scene` will take, at most, after trying one tile; arguments and errors are the same."""
    tiling = with_batch(_tiling(model, card, scene, tiles, options), tiles.batch)
    return forecast(tiling, options, cache=cache_bytes(tiling))


def _tiling(model: Network, card: ModelCard, scene: str | Path, tiles: TileOptions, options: MapOptions) -> Tiling:
    reader = open_fitting(Path(scene), card, tiles.fit)
    info, classes = reader.info, len(card.classes)
    tile, overlap = tiles.grid(card)
    inside = None if options.aoi is None else area_of_interest(options.aoi, info)
    stride, room = output_stride(model), _room(model)
    if tiles.tile is None:
        tile, overlap = fitting_tile(info, tile, overlap, stride, classes, room=room)
    plan = plan_strips(info.height, info.width, tile, overlap, stride, piece=PIECE)
    tiling = Tiling(model, reader, card, plan, tiles, aoi=inside)
    return replace(tiling, streams=fitting_streams(tiling, tiles.batch, cores=thread_count(), room=room))


def _room(model: Network) -> int | None:
    """Return the memory for pieces: of the machine, and of the GPU that they are made on, whichever has less."""
    found = [free_memory(), arithmetic_of(model).room(model)]
    return min((each for each in found if each is not None), default=None)
