"""A map made stage by stage: what `pixelwise predict` does, with one tile after the other, so that stages do not mix.

The real work reads ahead, and has a tile on each core. Here nothing happens at the same time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from jaxtyping import Bool, Float32, Shaped

from pixelwise.geo.raster import RasterInfo, Readable, Window
from pixelwise.inference.augmented import output_stride
from pixelwise.inference.fitting import open_fitting
from pixelwise.inference.networks import Network, arithmetic_of
from pixelwise.inference.options import TileOptions
from pixelwise.inference.sampled_logits import Watch
from pixelwise.inference.segmentation import provenance
from pixelwise.inference.tile_grid import PIECE, Place, plan_strips
from pixelwise.inference.tiling import DecodedTile, Piece, ReadTile, TileSum, Tiling, read_tile
from pixelwise.mapping.options import MapOptions
from pixelwise.mapping.pieces import make_pieces
from pixelwise.mapping.write_map import SceneMap, write_map
from pixelwise.profiling.timeline import Timeline
from pixelwise.runs.model_card import ModelCard

ACROSS = 4
"""Tiles in a row and in a column that are made of a larger scene."""
WHOLE_FILE = 1 << 28
"""Bytes of a file without blocks that is read whole."""


class TimedReader:
    """Reads the bytes of a window first, then its pixels, so that the disk and the decoder have times of their own."""

    def __init__(self, reader: Readable, timeline: Timeline) -> None:
        self.reader, self.timeline = reader, timeline
        self.seen: set[tuple[int, int]] = set()

    @property
    def info(self) -> RasterInfo:
        """The header of the image."""
        return self.reader.info

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return a window's values, and which pixels hold data."""
        self.timeline.switch("read")
        self._read_bytes(window)
        self.timeline.switch("decode")
        found = self.reader.read(window)
        self.timeline.switch("normalise")
        return found

    def _read_bytes(self, window: Window) -> None:
        path = self.info.path
        if not path.is_file():
            return
        with rasterio.open(path) as source:
            tiff = source.driver == "GTiff"
            parts = list(_stored(source, window)) if tiff else [(0, min(path.stat().st_size, WHOLE_FILE))]
        with path.open("rb", buffering=0) as file:
            for start, length in parts:
                if (start, length) not in self.seen:
                    file.seek(start)
                    file.read(length)
                    self.seen.add((start, length))


def _stored(source: rasterio.DatasetReader, window: Window) -> Iterator[tuple[int, int]]:
    """Give where the blocks of a window lie in a TIFF: offset and length."""
    height, width = source.block_shapes[0]
    bands = source.indexes if source.profile.get("interleave") == "band" else source.indexes[:1]
    for band in bands:
        for row in range(window.top // height, -(-(window.top + window.height) // height)):
            for column in range(window.left // width, -(-(window.left + window.width) // width)):
                place = f"{column}_{row}"
                start, length = (
                    source.get_tag_item(f"BLOCK_{what}_{place}", "TIFF", bidx=band) for what in ("OFFSET", "SIZE")
                )
                if start is not None and length is not None:
                    yield int(start), int(length)


@dataclass(frozen=True)
class Cut:
    """A part of an image, read like an image."""

    reader: Readable
    window: Window

    @property
    def info(self) -> RasterInfo:
        """The header, as the part's own would be."""
        window, info = self.window, self.reader.info
        moved = info.transform @ Affine.translation(window.left, window.top)
        return replace(info, height=window.height, width=window.width, transform=moved)

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return a window's values, and which pixels hold data."""
        own = self.window
        return self.reader.read(Window(own.top + window.top, own.left + window.left, window.height, window.width))


@dataclass(frozen=True)
class TimedTiling(Tiling):
    """A tiling that does one thing at a time, and says which."""

    timeline: Timeline = field(default_factory=Timeline)

    def decoded(self, tiles: Iterable[Window]) -> Iterator[DecodedTile]:
        """Read tiles and run the network on them, each when it is asked for."""
        for window in tiles:
            yield from self._decode([read_tile(self.reader, window, self.card)])

    def _decode(self, tiles: list[ReadTile]) -> list[DecodedTile]:
        found = super()._decode(tiles)
        self.timeline.switch("blend")
        return found

    def logits(self, images: Float32[np.ndarray, "B C H W"]) -> Any:
        """Run the network on normalised images; return [B,K,h,w]."""
        self.timeline.switch("network")
        found = super().logits(images)
        arithmetic_of(self.model).finished(self.model)
        self.timeline.switch("decide")
        return found

    def finish(
        self,
        place: Place,
        sums: Mapping[int, TileSum],
        *,
        confidence: bool = False,
        cells: bool = False,
        watch: Watch | None = None,
    ) -> Piece:
        """Blend, upsample and decide."""
        self.timeline.switch("decide")
        made = super().finish(place, sums, confidence=confidence, cells=cells, watch=watch)
        self.timeline.switch("write")
        return made

    def whole(self, *, confidence: bool = False, cells: bool = False, watch: Watch | None = None) -> Piece:
        """Predict a small image in one piece."""
        made = super().whole(confidence=confidence, cells=cells, watch=watch)
        self.timeline.switch("write")
        return made


def timed_map(
    model: Network,
    card: ModelCard,
    image: Path,
    output: Path,
    tiles: TileOptions,
    *,
    model_hash: str,
    whole: bool = False,
) -> tuple[Timeline, Tiling, SceneMap]:
    """Map an image to a GeoTIFF as `pixelwise.mapping.map_scene` does, one tile after the other.

    Returns:
        the stages; the tiling, without a clock; and the map.

    Args:
        whole: all of a large scene, not only up to `ACROSS` tiles across and down in its middle.

    Raises:
        DataError: an image that cannot be read, or other bands or units than the model's.
        ConfigError: a tile that does not work.
    """
    timeline = Timeline()
    timeline.switch("open")
    reader: Readable = open_fitting(image, card, tiles.fit)
    tile, overlap = tiles.grid(card)
    if not whole:
        reader = _middle(reader, tile + (ACROSS - 1) * (tile - overlap))
    info = reader.info
    plan = plan_strips(info.height, info.width, tile, overlap, output_stride(model), piece=PIECE)
    timed = TimedTiling(model, TimedReader(reader, timeline), card, plan, tiles, timeline=timeline)
    tags, settings = provenance(card, model_hash), {"model": model_hash, "area": None, "device": "profile"}
    options = MapOptions()
    made = write_map(timed, image, output, options, tags=tags, settings=settings, batch=1, make=make_pieces)
    timeline.switch("")
    return timeline, Tiling(model, reader, card, plan, tiles), made


def _middle(reader: Readable, side: int) -> Readable:
    height, width = reader.info.height, reader.info.width
    if height <= side and width <= side:
        return reader
    rows, columns = min(height, side), min(width, side)
    return Cut(reader, Window((height - rows) // 2, (width - columns) // 2, rows, columns))


def synthetic_image(path: Path, card: ModelCard, side: Sequence[int]) -> None:
    """Write noise in the model's units, coarse and fine, as a GeoTIFF of compressed blocks."""
    rng, (height, width) = np.random.default_rng(0), side
    count, dtype = card.file_bands or len(card.bands), np.dtype(card.dtype)
    coarse = np.kron(rng.standard_normal((count, -(-height // 32), -(-width // 32))), np.ones((1, 32, 32)))
    drawn = coarse[:, :height, :width] + 0.2 * rng.standard_normal((count, height, width))
    mean, std = (np.resize(np.asarray(values), count)[:, None, None] for values in (card.mean, card.std))
    values = drawn * std + mean
    if dtype.kind in "iu":
        values = np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max)
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    shape = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype.name}
    with rasterio.open(path, "w", **shape, **blocks, photometric="minisblack") as target:
        target.write(values.astype(dtype))
