"""A scene to a map, and what that will take: from what the user asks to a tiling of the scene."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from pixelwise.errors import ConfigError
from pixelwise.geo.polygon_labels import area_of_interest
from pixelwise.geo.raster import Readable
from pixelwise.inference.tile_grid import PIECE, plan_strips
from pixelwise.inference.tiling import Tiling, output_stride
from pixelwise.labels import Classes
from pixelwise.mapping import ray_cluster as cluster
from pixelwise.mapping.assemble import Products
from pixelwise.mapping.capacity import Forecast, fitting_streams, fitting_tile, forecast, free_memory, with_batch
from pixelwise.mapping.journal import read_settings
from pixelwise.mapping.pieces import make_pieces
from pixelwise.mapping.write_map import SceneMap, cache_bytes, check_places, write_map
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard


@runtime_checkable
class Trained(Protocol):
    """What is asked of a predictor, whose methods these functions are."""

    model: Segmenter
    card: ModelCard
    model_hash: str

    @property
    def classes(self) -> Classes:
        """Names and colours of the classes."""
        ...

    @property
    def tags(self) -> dict[str, str]:
        """Provenance."""
        ...

    def open(self, image: Path) -> Readable:
        """Open an image, after seeing that the model can take it."""
        ...

    def grid(self, tile: int | None, overlap: int | None, scales: Sequence[float]) -> tuple[int, int]:
        """Return a tile and an overlap that can be."""
        ...


def map_scene(
    predictor: Trained,
    scene: str | Path,
    output: str | Path,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    confidence: bool = False,
    probabilities: bool = False,
    cog: bool = False,
    area: str | Path | None = None,
    on: str | None = None,
    advance: Callable[[float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> SceneMap:
    """Map a scene of any size to a GeoTIFF; memory does not grow with it.

    The map has the scene's coordinate system and transform, nodata where the scene has none, the classes' names
    and colours, and provenance in its tags. It depends on nothing but the scene, the model and the options; what
    was killed or failed goes on when called again, with the same bytes in the end (`docs/scenes.md`).

    Args:
        tile, overlap: in multiples of 32 pixels; None: as in training's evaluation.
        batch: how many tiles go through the network together; None: on a GPU as many as there is memory for, on a CPU
            one, with one for each thread at the same time (`fitting_streams`).
        flips, scales: as in `segment`.
        confidence: write NAME.confidence.tif beside the map.
        probabilities: write NAME.probabilities.tif, a band for each class.
        cog: write confidence and probabilities as cloud-optimised GeoTIFFs too; the map of classes always is one.
        area: a file of polygons; elsewhere the map has nodata, and nothing is computed.
        on: 'ray' for the machines of a Ray cluster; None: this machine.
        advance: called with the share that is done, 0 to 1.
        say: called with what the user should know, such as that an earlier start is gone on with.

    Raises:
        DataError: a scene that cannot be read, or other bands or units than the model's.
        ConfigError: an output that cannot be written, or a tile or a scale that cannot be.
    """
    products = Products(confidence, probabilities, cog)
    check_places(predictor.open(Path(scene)), output, predictor.classes, products, area)
    kept = read_settings(output)
    if tile is None and overlap is None and kept is not None and kept.get("model") == predictor.model_hash:
        # What was chosen for the memory there was.
        tile, overlap = kept["tile"], kept["overlap"]
    tiling = _tiling(predictor, scene, tile, overlap, batch, flips, scales, area)
    plan, device = tiling.plan, next(predictor.model.parameters()).device.type
    make, together = make_pieces, batch
    if on == "ray":
        # Each worker finds its own.
        make, together = partial(cluster.make_pieces, batch=batch), 1
        device = cluster.cluster_device()
    elif on is not None:
        raise ConfigError(f"A map cannot be made on {on!r}. Leave it out for this machine, or take 'ray'.")
    info = tiling.reader.info
    if say and info.crs is None and not info.gcps and info.rpcs is None:
        say(f"{scene} has no coordinate system, so its map has none.")
    tags = {
        **predictor.tags,
        # Its name alone: folders, and what an address says behind its name, are nobody else's business.
        "PIXELWISE_SCENE": tiling.reader.info.path.name.split("?")[0],
        "PIXELWISE_TILE": str(plan.tile),
        "PIXELWISE_OVERLAP": str(plan.overlap),
    }
    return write_map(
        tiling,
        scene,
        output,
        products,
        tags=tags,
        settings={"model": predictor.model_hash, "area": tiling.area and tiling.area.digest(), "device": device},
        batch=together,
        make=make,
        advance=advance,
        say=say,
    )


def forecast_scene(
    predictor: Trained,
    scene: str | Path,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int | None = None,
    flips: bool = False,
    scales: Sequence[float] = (1.0,),
    confidence: bool = False,
    probabilities: bool = False,
    area: str | Path | None = None,
) -> Forecast:
    """Tell what `map_scene` will take, at most, after trying one tile; arguments and errors are the same."""
    tiling = with_batch(_tiling(predictor, scene, tile, overlap, batch, flips, scales, area), batch)
    return forecast(tiling, confidence=confidence, probabilities=probabilities, cache=cache_bytes(tiling))


def _tiling(
    predictor: Trained,
    scene: str | Path,
    tile: int | None,
    overlap: int | None,
    batch: int | None,
    flips: bool,
    scales: Sequence[float],
    area: str | Path | None,
) -> Tiling:
    if batch is not None and batch < 1:
        raise ConfigError(f"A batch of {batch} tiles cannot be: give 1 or more.")
    reader = predictor.open(Path(scene))
    chosen = tile is not None
    tile, overlap = predictor.grid(tile, overlap, scales)
    inside = None if area is None else area_of_interest(area, reader.info)
    stride = output_stride(predictor.model)
    room = free_memory(torch.device("cpu"))
    if not chosen:
        tile, overlap = fitting_tile(reader.info, tile, overlap, stride, len(predictor.classes), room=room)
    plan = plan_strips(reader.info.height, reader.info.width, tile, overlap, stride, piece=PIECE)
    tiling = Tiling(predictor.model, reader, predictor.card, plan, flips, tuple(scales), area=inside)
    return replace(tiling, streams=fitting_streams(tiling, batch, cores=torch.get_num_threads(), room=room))
