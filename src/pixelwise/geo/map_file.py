"""A GeoTIFF with a scene's place on the ground, written piece by piece, checked, and made quick to view."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

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
        info: the scene's header, whose size and place on the ground (a transform, control points or RPCs) the file
            takes over.
        bands: what each band is.
        palette: colours of the values of the single band, which are then classes: smaller copies for viewers hold the
            most frequent one, and else the mean.
        cog: make it a cloud-optimised GeoTIFF in the end. One of classes always is.

    Raises:
        ConfigError: the disk is full.
    """
    # Classes lie beside as they are until they are compressed, once, with their smaller copies.
    plain = [path.with_name(f"{path.stem}.plain.tif{'.ovr' * level}") for level in range(len(_factors(info)) + 1)]
    with ExitStack() as stack:
        for each in plain:
            stack.callback(each.unlink, missing_ok=True)
        with _without_place():
            file = rasterio.open(
                path if palette is None else plain[0],
                "w",
                driver="GTiff",
                height=info.height,
                width=info.width,
                count=len(bands),
                dtype=dtype,
                **_place_of(info),
                nodata=nodata,
                tiled=True,
                blockxsize=block,
                blockysize=block,
                interleave="band",
                photometric="minisblack",
                compress="deflate" if palette is None else "none",
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
            if palette is None:
                complete = _finish_means(path, info, written.total, cog=cog)
            else:
                complete = _finish_classes(plain, path, written.total, nodata)
        except RasterioError:
            complete = False
    if not complete:
        raise _incomplete(name)


def _place_of(info: RasterInfo) -> dict[str, Any]:
    """Return where a scene is on the ground, as rasterio takes it."""
    rpcs = {} if info.rpcs is None else {"rpcs": info.rpcs}
    if info.gcps and info.crs is None:
        return {"gcps": list(info.gcps), "crs": info.gcps_crs, **rpcs}
    return {"crs": info.crs, "transform": info.transform, **rpcs}


def _finish_means(path: Path, info: RasterInfo, total: int, *, cog: bool) -> bool:
    """Add smaller copies that hold means; return whether the file is complete."""
    if _sum_of(path) != total:
        return False
    if factors := _factors(info):
        with _without_place(), rasterio.open(path, "r+") as file:
            file.build_overviews(factors, Resampling.average)
    if cog:
        with replacing(path) as temporary:
            _write_cog(path, temporary)
    return _sum_of(path) == total and _overviews_complete(path, info)


def _finish_classes(plain: Sequence[Path], path: Path, total: int, nodata: int) -> bool:
    """Compress classes and smaller copies of them into one file; return whether it is complete.

    Args:
        plain: the classes as they are, and where the copies go: GDAL looks for them under these names.
    """
    totals = [total, *(_write_half(larger, smaller, nodata) for larger, smaller in pairwise(plain))]
    # What users set for scenes in object storage would keep GDAL from looking beside the file.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE"):
        _write_cog(plain[0], path)
    return [_sum_of(path, level) for level in (None, *range(len(plain) - 1))] == totals


def _write_cog(source: Path, path: Path) -> None:
    """Compress a raster, with the smaller copies that it has."""
    with _without_place():
        copy(
            source,
            path,
            driver="COG",
            blocksize=BLOCK,
            compress="deflate",
            num_threads="all_cpus",
            bigtiff="if_safer",
        )


def _write_half(larger: Path, smaller: Path, nodata: int) -> int:
    """Write a copy of half the size of a raster of classes; return the sum of its values."""
    total = 0
    with _without_place(), rasterio.open(larger) as source:
        height, width = -(-source.height // 2), -(-source.width // 2)
        file = rasterio.open(
            smaller,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=1,
            dtype=source.dtypes[0],
            nodata=nodata,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            bigtiff="if_safer",
        )
        with file:
            for top, left in product(range(0, height, BLOCK), range(0, width, CHECKED // 2)):
                bottom, right = min(top + BLOCK, height), min(left + CHECKED // 2, width)
                rows, columns = (2 * top, min(2 * bottom, source.height)), (2 * left, min(2 * right, source.width))
                half = most_frequent(source.read(1, window=RasterioWindow.from_slices(rows, columns)), nodata)
                file.write(half, 1, window=RasterioWindow.from_slices((top, bottom), (left, right)))
                total += int(half.sum(dtype=np.int64))
    return total


def most_frequent(values: Integer[np.ndarray, "H W"], nodata: int) -> Integer[np.ndarray, "h w"]:
    """Return the most frequent value of each square of 2 x 2 pixels; of equally frequent ones, the first by rows.

    A pixel without data counts only in squares that hold nothing else. At an odd edge squares are cut off.
    """
    height, width = values.shape
    values = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=nodata)
    a, b, c, d = (np.ascontiguousarray(values[row::2, column::2]) for row, column in product((0, 1), repeat=2))
    result = d
    for value in (c, b, a):
        result = np.where(value != nodata, value, result)
    # Of four values, the first that comes twice is the most frequent, or as frequent as any.
    for value, twice in ((c, c == d), (b, (b == c) | (b == d)), (a, (a == b) | (a == c) | (a == d))):
        result = np.where(twice & (value != nodata), value, result)
    return result


def read_tags(path: str | Path) -> dict[str, str]:
    """Return the free tags of a map, or of any raster.

    Raises:
        DataError: no such file, or not a raster.
    """
    describe(path)
    with _without_place(), rasterio.open(path) as file:
        return dict(file.tags())


def _incomplete(name: Path) -> ConfigError:
    return ConfigError(
        f"{name} could not be written completely. Is the disk full? Make room, or write elsewhere.", code="PW803"
    )


def _sum_of(path: Path, level: int | None = None) -> int:
    """Return the sum of a raster's values, or of those of one of its smaller copies."""
    with _without_place(), rasterio.open(path, overview_level=level) as file:
        total = 0
        for band in file.indexes:
            for top, left in product(range(0, file.height, BLOCK), range(0, file.width, CHECKED)):
                rows, columns = (top, min(top + BLOCK, file.height)), (left, min(left + CHECKED, file.width))
                area = RasterioWindow.from_slices(rows, columns)
                total += int(file.read(band, window=area).sum(dtype=np.int64))
        return total


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
