"""Prediction: a photo to a `Segmentation`, a scene of any size to a GeoTIFF."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from pixelwise import __version__
from pixelwise.config import LARGEST_SCALE
from pixelwise.device import choose_device
from pixelwise.errors import ConfigError, DataError
from pixelwise.fast.fuse import fuse
from pixelwise.geo.colours import ImageReader
from pixelwise.geo.label_map import label_nodata, to_picture
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.inference.images import ArrayReader, open_array, open_file
from pixelwise.inference.segmentation import Segmentation
from pixelwise.inference.tiling import predict_strips
from pixelwise.labels import Classes
from pixelwise.machine import free_memory
from pixelwise.mapping import map_scene as scenes
from pixelwise.models import Segmenter
from pixelwise.runs.model_folder import ModelCard, load_model

PIXEL_BYTES = 16
"""Of memory for a pixel of a `Segmentation`, besides the image: classes, confidence, a picture, and their parts."""

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
        reader = self.open(image)
        _require_memory(reader.info)
        tile, overlap = self.grid(tile, overlap, scales)
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
            info=None if isinstance(reader, ArrayReader) else info,
            tags={**self.tags, "PIXELWISE_DATE": datetime.now(UTC).isoformat(timespec="seconds")},
        )

    map_scene = scenes.map_scene
    forecast = scenes.forecast_scene

    def open(self, image: Picture) -> ImageReader | ArrayReader:
        """Open an image for reading.

        Raises:
            DataError: it cannot be read, or has other bands or units than the model's.
        """
        card = self.card
        return open_file(Path(image), card) if isinstance(image, str | Path) else open_array(image, card)

    def grid(self, tile: int | None, overlap: int | None, scales: Sequence[float]) -> tuple[int, int]:
        """Return a tile and an overlap that can be; None: as in training's evaluation.

        Raises:
            ConfigError: they cannot be, or a scale cannot.
        """
        tile = self.card.tile if tile is None else tile
        overlap = min(self.card.overlap, tile // 64 * 32) if overlap is None else overlap
        if tile < 64 or tile % 32 or overlap % 32 or not 0 <= overlap <= tile // 2:
            raise ConfigError(
                f"A tile of {tile} pixels with an overlap of {overlap} cannot be: both are multiples of 32, the "
                "tile is at least 64, the overlap at most half of it."
            )
        if not scales or not all(0 < scale <= LARGEST_SCALE for scale in scales):
            raise ConfigError(
                f"The scales {list(scales)} are not possible: give one or more numbers above 0 and up to "
                f"{LARGEST_SCALE}; 1 is the image's own size."
            )
        return tile, overlap


def _require_memory(info: RasterInfo) -> None:
    """See that a whole image, its classes and its picture fit the memory.

    Raises:
        DataError: they do not.
    """
    needed = info.height * info.width * (2 * info.count * np.dtype(info.dtype).itemsize + PIXEL_BYTES)
    room = free_memory()
    if room is not None and needed > room:
        raise DataError(
            f"{info.path} has {info.width}x{info.height} pixels, for which {needed / 1e9:,.1f} GB are needed and "
            f"{room / 1e9:,.1f} GB are free. Map it piece by piece, with an output that ends in .tif."
        )


def load(folder: str | Path, *, device: str = "auto", options: Mapping[str, object] | None = None) -> Predictor:
    """Load a run's best model, or a model folder, for prediction.

    Args:
        device: 'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one.
        options: the paper's options for inference, such as ``{"output_stride": 8}``; others are the model's.

    Raises:
        WeightsError: no model there, a damaged one, or options that the weights do not fit.
        ConfigError: a device that this machine does not have, or an option that the network does not have.
    """
    model, card, model_hash = load_model(folder, options=options)
    return Predictor(model.to(choose_device(device)), card, model_hash)
