"""Prediction: a photo to a `Segmentation`, a scene of any size to a GeoTIFF."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from PIL import Image

from pixelwise import __version__
from pixelwise.errors import ConfigError, DataError
from pixelwise.files import file_digest
from pixelwise.geo.label_map import label_nodata, to_picture
from pixelwise.geo.raster import RasterReader, Window, describe, holds_data
from pixelwise.geo.tiles import plan_strips
from pixelwise.geo.vector import area_of_interest
from pixelwise.jobs import cluster
from pixelwise.jobs.capacity import Forecast, fitting_tile, forecast, free_memory, with_batch
from pixelwise.jobs.journal import read_settings
from pixelwise.jobs.model_folder import ModelCard, load_model
from pixelwise.jobs.scene_map import Products, SceneMap, cache_bytes, check_places, write_map
from pixelwise.jobs.segmentation import Segmentation, info_of_array
from pixelwise.jobs.tiling import Tiling, output_stride, predict_strips
from pixelwise.labels import Classes
from pixelwise.models import Segmenter, fuse

Picture = str | Path | Image.Image | np.ndarray


class Predictor:
    """A trained network with its normalisation: takes raw units, answers with classes."""

    def __init__(self, model: Segmenter, card: ModelCard, model_hash: str) -> None:
        self.model = fuse(model)
        self.card = card
        self.model_hash = model_hash

    @property
    def classes(self) -> Classes:
        """Names and colours of the classes."""
        return self.card.classes

    @property
    def tags(self) -> dict[str, str]:
        """Provenance, for the files that are written; without a date, so that the same work gives the same bytes."""
        return {
            "PIXELWISE_VERSION": __version__,
            "PIXELWISE_MODEL": self.model_hash,
            "PIXELWISE_NETWORK": self.card.architecture.name,
        }

    def segment(
        self,
        image: Picture,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        flips: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> Segmentation:
        """Find the class of every pixel of an image that fits in memory.

        Args:
            image: a path, a PIL image, or an array [H,W] or [H,W,C], in the raw units of the training images.
            tile, overlap: sliding window, in multiples of 32 pixels; None: as in training's evaluation.
            flips: average with the mirrored image (left and right).
            scales: average over zoomed copies.

        Raises:
            DataError: a file that cannot be read, or other bands or units than the model's.
            ConfigError: a tile or a scale that cannot be.
        """
        reader = _open(image, self.card)
        tile, overlap = _grid(self.card, tile, overlap, scales)
        valid, labels, confidence = [], [], []
        for strip in predict_strips(
            self.model, reader, self.card, tile=tile, overlap=overlap, flips=flips, scales=scales, confidence=True
        ):
            assert strip.confidence is not None
            valid.append(strip.valid)
            labels.append(strip.labels)
            confidence.append(strip.confidence)
        valid, labels = np.concatenate(valid), np.concatenate(labels)
        info = reader.info
        values, _ = reader.read(Window(0, 0, info.height, info.width))
        empty = label_nodata(len(self.classes))
        labels = labels.astype(np.uint16) if empty > np.iinfo(labels.dtype).max and not valid.all() else labels
        return Segmentation(
            labels=np.where(valid, labels, np.asarray(empty, labels.dtype)) if not valid.all() else labels,
            confidence=np.where(valid, np.concatenate(confidence), np.float32(0)),
            valid=valid,
            classes=self.classes,
            picture=to_picture(values, valid),
            info=info if isinstance(reader, RasterReader) else None,
            tags={**self.tags, "PIXELWISE_DATE": datetime.now(UTC).isoformat(timespec="seconds")},
        )

    def map_scene(
        self,
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
        """Map a scene of any size to a GeoTIFF; memory does not grow with its height.

        The map has the scene's coordinate system and transform, nodata where the scene has none, the classes' names
        and colours, and provenance in its tags. It depends on nothing but the scene, the model and the options; what
        was killed or failed goes on when called again, with the same bytes in the end (`docs/scenes.md`).

        Args:
            tile, overlap: in multiples of 32 pixels; None: as in training's evaluation.
            batch: how many tiles the network may get at once; None: as many as there is memory for.
            flips, scales: as in `segment`.
            confidence: write NAME.confidence.tif beside the map.
            probabilities: write NAME.probabilities.tif, a band for each class.
            cog: write cloud-optimised GeoTIFFs.
            area: a file of polygons; elsewhere the map has nodata, and nothing is computed.
            on: 'ray' for the machines of a Ray cluster; None: this machine.
            advance: called with the share that is done, 0 to 1.
            say: called with what the user should know, such as that an earlier start is gone on with.

        Raises:
            DataError: a scene that cannot be read, or other bands or units than the model's.
            ConfigError: an output that cannot be written, or a tile or a scale that cannot be.
        """
        products = Products(confidence, probabilities, cog)
        check_places(_open_file(Path(scene), self.card), output, self.classes, products)
        kept = read_settings(output)
        if tile is None and overlap is None and kept is not None and kept.get("model") == self.model_hash:
            # What was chosen for the memory there was.
            tile, overlap = cast("tuple[int, int]", (kept["tile"], kept["overlap"]))
        tiling = self._tiling(scene, tile, overlap, batch, flips, scales, area)
        plan, device = tiling.plan, next(self.model.parameters()).device.type
        strips = None
        if on == "ray":
            strips = partial(cluster.make_strips, tiling, batch=batch)
            device = cluster.cluster_device()
        elif on is not None:
            raise ConfigError(f"A map cannot be made on {on!r}. Leave it out for this machine, or take 'ray'.")
        tags = {
            **self.tags,
            "PIXELWISE_SCENE": str(tiling.reader.info.path.resolve()),
            "PIXELWISE_TILE": str(plan.tile),
            "PIXELWISE_OVERLAP": str(plan.overlap),
        }
        return write_map(
            tiling,
            scene,
            output,
            products,
            tags=tags,
            settings={"model": self.model_hash, "area": None if area is None else file_digest(area), "device": device},
            batch=batch,
            strips=strips,
            advance=advance,
            say=say,
        )

    def forecast(
        self,
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
        tiling = with_batch(self._tiling(scene, tile, overlap, batch, flips, scales, area), batch)
        return forecast(tiling, confidence=confidence, probabilities=probabilities, cache=cache_bytes(tiling))

    def _tiling(
        self,
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
        reader = _open_file(Path(scene), self.card)
        chosen = tile is not None
        tile, overlap = _grid(self.card, tile, overlap, scales)
        inside = None if area is None else area_of_interest(area, reader.info)
        stride = output_stride(self.model)
        if not chosen:
            room = free_memory(torch.device("cpu"))
            tile, overlap = fitting_tile(reader.info, tile, overlap, stride, len(self.classes), room=room)
        plan = plan_strips(reader.info.height, reader.info.width, tile, overlap, stride)
        return Tiling(self.model, reader, self.card, plan, flips, tuple(scales), area=inside)


class ArrayReader:
    """An array that is read like a raster."""

    def __init__(self, values: Shaped[np.ndarray, "C H W"], valid: Bool[np.ndarray, "H W"]) -> None:
        self.values = values
        self.valid = valid
        self.info = info_of_array(values, Path("image"))

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return a window's values, and which pixels hold data."""
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return self.values[:, rows, columns], self.valid[rows, columns]


def _open(image: Picture, card: ModelCard) -> RasterReader | ArrayReader:
    return _open_file(Path(image), card) if isinstance(image, str | Path) else _open_array(image, card)


def _open_file(path: Path, card: ModelCard) -> RasterReader:
    info, wanted = describe(path), len(card.bands)
    first = card.bands == tuple(range(1, wanted + 1))
    counts = {wanted if card.file_bands is None else card.file_bands, *([wanted] if first else [])}
    if len(info.colour_bands) not in counts or not set(card.bands) <= set(info.colour_bands):
        numbers = ", ".join(map(str, card.bands))
        source = f"band {numbers}" if wanted == 1 else f"bands {numbers}"
        raise DataError(
            f"{path} has {_count(len(info.colour_bands))} besides alpha, but the model takes {wanted} ({source} of its "
            f"training images, which had {card.file_bands or wanted}). Give an image with the same bands in the same "
            "order."
        )
    if _units(info.dtype) != _units(card.dtype):
        raise DataError(
            f"{path} holds {info.dtype} values, but the model was trained on {card.dtype}. Their units differ; convert "
            f"the image to {card.dtype} in the units of the training images."
        )
    return RasterReader(path, bands=card.bands, nodata=card.nodata)


def _count(bands: int) -> str:
    return f"{bands} band" if bands == 1 else f"{bands} bands"


def _units(dtype: str) -> str:
    # 8-bit values, wider integers and floats come from different scales; int16 and uint16 need not.
    kind = np.dtype(dtype)
    return "float" if kind.kind == "f" else "8 bit" if kind.itemsize == 1 else "integer"


def _open_array(image: Image.Image | np.ndarray, card: ModelCard) -> ArrayReader:
    wanted = len(card.bands)
    values = np.asarray(image)
    shape = list(values.shape)
    values = values[..., None] if values.ndim == 2 else values
    alpha = isinstance(image, Image.Image) and image.mode in ("RGBA", "LA")
    if values.ndim != 3 or values.shape[-1] != wanted + alpha or 0 in values.shape or values.dtype.kind not in "buif":
        raise DataError(
            f"The image is {values.dtype} of the shape {shape}, but the model takes numbers of the shape [height, "
            f"width, {wanted}]{' or [height, width]' if wanted == 1 else ''}. Give the same bands in the same order as "
            "in training."
        )
    bands = np.moveaxis(values[..., :wanted], -1, 0)
    valid = holds_data(bands, card.nodata)
    return ArrayReader(bands, valid & (values[..., wanted] != 0) if alpha else valid)


def _grid(card: ModelCard, tile: int | None, overlap: int | None, scales: Sequence[float]) -> tuple[int, int]:
    tile = card.tile if tile is None else tile
    overlap = min(card.overlap, tile // 64 * 32) if overlap is None else overlap
    if tile < 64 or tile % 32 or overlap % 32 or not 0 <= overlap <= tile // 2:
        raise ConfigError(
            f"A tile of {tile} pixels with an overlap of {overlap} cannot be: both are multiples of 32, the tile is at "
            "least 64, the overlap at most half of it."
        )
    if not scales or min(scales) <= 0:
        raise ConfigError(
            f"The scales {list(scales)} cannot be: give one or more numbers above 0; 1 is the image's size."
        )
    return tile, overlap


def load(folder: str | Path, *, device: str = "auto") -> Predictor:
    """Load a run's best model, or a model folder, for prediction.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one.

    Raises:
        WeightsError: no model there, or a damaged one.
        ConfigError: a device that this machine does not have.
    """
    model, card, model_hash = load_model(folder)
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return Predictor(model.to(where), card, model_hash)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"The device {where!r} cannot be used: {reason}. Use 'auto' or 'cpu'.") from None
