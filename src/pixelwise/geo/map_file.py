"""A GeoTIFF with a scene's place on the ground, written piece by piece, checked, and made quick to view."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import rasterio
from jaxtyping import Integer
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetWriter
from rasterio.shutil import copy
from rasterio.windows import Window as RasterioWindow

from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.geo.raster import RasterInfo, describe

BLOCK = 512
"""Side in pixels of the blocks of a map."""
CHECKED = 8 * BLOCK
"""Columns that are read at once when a file is checked."""
WRITTEN_PER_SECOND = 20e6
"""Pixels of a band that are compressed, checked and made smaller in a second by one core, about; for forecasts."""


@dataclass
class MapFile:
    """A raster being written: how many of its values are, and their sum."""

    file: DatasetWriter
    name: Path
    written: int = 0
    total: int = 0

    def write(self, values: Integer[np.ndarray, "B n w"], top: int, left: int = 0) -> None:
        """Write a piece; each pixel once, in any order.

        Raises:
            ConfigError: the disk is full.
        """
        rows, columns = values.shape[1:]
        try:
            self.file.write(values, window=RasterioWindow.from_slices((top, top + rows), (left, left + columns)))
        except RasterioError:
            raise _incomplete(self.name) from None
        self.written += values.size
        self.total += int(values.sum(dtype=np.int64))


@contextmanager
def writing_map(
    path: Path,
    name: Path,
    info: RasterInfo,
    dtype: str,
    nodata: int,
    *,
    bands: Sequence[str],
    tags: dict[str, str],
    palette: Sequence[tuple[int, int, int]] | None = None,
    block: int = BLOCK,
    cog: bool = False,
) -> Iterator[MapFile]:
    """Open a raster for writing; when the block ends well, read it again, since GDAL says nothing of a full disk.

    Args:
        name: what the file is called in messages.
        info: the scene's header, whose size, coordinate system and transform the file takes over.
        bands: what each band is.
        palette: colours of the values of the single band, which are then classes: smaller copies for viewers hold the
            most frequent one, and else the mean.
        cog: rearrange it as a cloud-optimised GeoTIFF in the end.

    Raises:
        ConfigError: the disk is full.
    """
    with _without_place():
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=info.height,
            width=info.width,
            count=len(bands),
            dtype=dtype,
            crs=info.crs,
            transform=info.transform,
            nodata=nodata,
            tiled=True,
            blockxsize=block,
            blockysize=block,
            interleave="band",
            photometric="minisblack",
            compress="deflate",
            # Blocks are written in their order all the same.
            num_threads="all_cpus",
            bigtiff="if_safer",
        )
    with file:
        file.update_tags(**tags)
        for band, description in enumerate(bands, start=1):
            file.set_band_description(band, description)
        if palette is not None:
            file.write_colormap(1, {i: (*colour, 255) for i, colour in enumerate(palette)})
            file.colorinterp = [ColorInterp.palette]
        written = MapFile(file, name)
        yield written
    assert written.written == info.height * info.width * len(bands), "each pixel is written once"
    try:
        complete = _sum_of(path) == written.total
        if complete:
            _add_overviews(path, info, Resampling.average if palette is None else Resampling.mode)
            if cog:
                _make_cog(path)
            complete = _sum_of(path) == written.total and _overviews_complete(path, info)
    except RasterioError:
        complete = False
    if not complete:
        raise _incomplete(name)


def read_tags(path: str | Path) -> dict[str, str]:
    """Return the free tags of a map, or of any raster.

    Raises:
        DataError: no such file, or not a raster.
    """
    describe(path)
    with _without_place(), rasterio.open(path) as file:
        return dict(file.tags())


def _incomplete(name: Path) -> ConfigError:
    return ConfigError(f"{name} could not be written completely. Is the disk full? Make room, or write elsewhere.")


def _sum_of(path: Path) -> int:
    with _without_place(), rasterio.open(path) as file:
        total = 0
        for band in file.indexes:
            for top, left in product(range(0, file.height, BLOCK), range(0, file.width, CHECKED)):
                rows, columns = (top, min(top + BLOCK, file.height)), (left, min(left + CHECKED, file.width))
                area = RasterioWindow.from_slices(rows, columns)
                total += int(file.read(band, window=area).sum(dtype=np.int64))
        return total


def _add_overviews(path: Path, info: RasterInfo, resampling: Resampling) -> None:
    """Put copies of half the size, a quarter and so on into a raster, down to one block; viewers show those."""
    if factors := _factors(info):
        with _without_place(), rasterio.open(path, "r+") as file:
            file.build_overviews(factors, resampling)


def _make_cog(path: Path) -> None:
    with replacing(path) as temporary, _without_place():
        copy(path, temporary, driver="COG", blocksize=BLOCK, compress="deflate", bigtiff="if_safer")


def _overviews_complete(path: Path, info: RasterInfo) -> bool:
    """Return whether every block of the smaller copies lies within the file."""
    factors, size = _factors(info), path.stat().st_size
    with _without_place(), rasterio.open(path) as file:
        if any(len(file.overviews(band)) != len(factors) for band in file.indexes):
            return False
        for level, factor in enumerate(factors):
            with rasterio.open(path, overview_level=level) as smaller:
                block, _ = smaller.block_shapes[0]
            down, across = (side // -(factor * block) * -1 for side in (info.height, info.width))
            for band, x, y in product(file.indexes, range(across), range(down)):
                start, length = (
                    file.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=band, ovr=level)
                    for what in ("OFFSET", "SIZE")
                )
                if start is None or length is None or int(start) + int(length) > size:
                    return False
    return True


def _factors(info: RasterInfo) -> list[int]:
    return [1 << i for i in range(1, 32) if max(info.height, info.width) > BLOCK << (i - 1)]


@contextmanager
def _without_place() -> Iterator[None]:
    """Open rasters that have no place on the ground without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
