"""Rasters, window by window: PNG, JPEG, TIFF, GeoTIFF, VRT and the other formats of `geo/drivers.py`."""

import itertools
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import rasterio
from affine import Affine
from jaxtyping import Bool, Float32, Shaped
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.rpc import RPC
from rasterio.windows import Window as RasterioWindow

from pixelwise.errors import ConfigError, DataError, PixelwiseError
from pixelwise.geo.drivers import IMAGE_SUFFIXES
from pixelwise.geo.handle_pool import POOL
from pixelwise.geo.opening import GDAL_ERRORS, open_raster, reason, room_for
from pixelwise.geo.orientation import UPRIGHT, Turn, turn_of
from pixelwise.geo.png import check_png_end
from pixelwise.geo.proj import check_proj
from pixelwise.source_name import absolute, is_local, local_path

__all__ = [
    "IMAGE_SUFFIXES",
    "RasterInfo",
    "RasterReader",
    "Readable",
    "Window",
    "clip_window",
    "describe",
    "holds_data",
    "normalize",
]


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: its first row and column, and its size."""

    top: int
    left: int
    height: int
    width: int


def clip_window(window: Window, height: int, width: int) -> tuple[Window, tuple[int, int], tuple[int, int]]:
    """Return the part of a window inside a raster, and how many rows and columns lie outside, before and after."""
    top, left = max(0, window.top), max(0, window.left)
    bottom, right = min(height, window.top + window.height), min(width, window.left + window.width)
    rows = (top - window.top, window.top + window.height - bottom)
    columns = (left - window.left, window.left + window.width - right)
    return Window(top, left, bottom - top, right - left), rows, columns


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """What the header of a raster says."""

    path: Path
    height: int
    width: int
    count: int
    """Number of bands, alpha included."""
    alpha: int | None
    """Number of the band that the file calls alpha, counted from 1."""
    dtype: str
    """Of the bands that are read; of the first one, where nothing says which."""
    nodata: float | None
    """Of the first band."""
    crs: CRS | None
    transform: Affine
    """Pixel (column, row) to ground; the identity where there is no georeference."""
    paletted: bool
    """The single band holds indices into a colour table."""
    masked: bool = False
    """A mask inside or beside the file, which is none of the bands, says which pixels hold data."""
    dtypes: tuple[str, ...] = ()
    """Of each band."""
    nodatas: tuple[float | None, ...] = ()
    """Of each band."""
    turn: Turn = UPRIGHT
    """From the file's rows and columns to the upright photo's, which height and width are those of."""
    lossy: bool = False
    """Compressed so that values change (JPEG)."""
    scales: tuple[float, ...] = ()
    """By which the file says that each band's values are to be multiplied; values are read as they are stored."""
    offsets: tuple[float, ...] = ()
    """What the file says that is then to be added."""
    gcps: tuple[GroundControlPoint, ...] = field(default=(), compare=False)
    """Ground control points, where the file has such instead of a transform."""
    gcps_crs: CRS | None = None
    """Their coordinate system."""
    rpcs: RPC | None = field(default=None, compare=False)
    """Rational polynomials from the ground to pixels, where the file has such."""

    @property
    def colour_bands(self) -> tuple[int, ...]:
        """All band numbers but alpha, counted from 1."""
        return self.data_bands(())

    def data_bands(self, listed: Sequence[int]) -> tuple[int, ...]:
        """All band numbers but alpha; a band that was listed is data, whatever the file calls it."""
        return tuple(band for band in range(1, self.count + 1) if band != self.alpha or band in listed)

    def nodata_of(self, bands: Sequence[int]) -> tuple[float | None, ...] | None:
        """The value without data of each of some bands; None if none has such a value."""
        each = tuple(self.nodatas[band - 1] for band in bands)
        return None if all(value is None for value in each) else each


@runtime_checkable
class Readable(Protocol):
    """What windows can be read from: a file, or an array."""

    @property
    def info(self) -> RasterInfo:
        """Size and the rest."""
        ...

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return a window's values, and which pixels hold data."""
        ...


def describe(path: str | Path) -> RasterInfo:
    """Read a raster's header. Height and width are those of the upright photo, where EXIF says how it was held.

    Raises:
        DataError: no such file, not a raster, one that may not be opened (`geo/drivers.py`) or is too large for the
            memory, several pages, pixels of no size, or a PNG that is cut off.
    """
    path = local_path(path)
    with open_raster(path) as source:
        try:
            return _header(path, source)
        except GDAL_ERRORS as error:
            if isinstance(error, PixelwiseError):
                raise
            raise DataError(f"{path} has a damaged header: {reason(error)}. Copy it again.", code="PW403") from None


def _header(path: Path, source: rasterio.DatasetReader) -> RasterInfo:
    if source.driver == "PNG" and is_local(path):
        check_png_end(path)
    if source.crs is not None or source.gcps[0] or not source.transform.is_identity:
        # Without its files PROJ would give another coordinate system, or none, in silence.
        check_proj()
    pages = len(source.subdatasets) if source.driver == "GTiff" else source.count if "GIF" in source.driver else 1
    if pages > 1:
        raise DataError(
            f"{path} holds {pages} pages, and a file is read as one image. Save each page as a file of its own "
            "(tiffsplit, or `magick scene.tif page-%d.tif`).",
            code="PW404",
        )
    placed = abs(source.transform.determinant)
    if source.crs is not None and not (0 < placed < math.inf):
        raise DataError(
            f"{path} says that its pixels have the size 0, so its transform places nothing. Georeference it again "
            "(gdal_edit.py -a_ullr), or take the georeference out (gdal_edit.py -unsetgt -a_srs '').",
            code="PW409",
        )
    flags = source.mask_flag_enums[0]
    alpha = [i for i, kind in enumerate(source.colorinterp, start=1) if kind == ColorInterp.alpha]
    turn = turn_of(path, source)
    height, width = (source.width, source.height) if turn.transposed else (source.height, source.width)
    points, points_crs = source.gcps
    stored = source.tags(ns="IMAGE_STRUCTURE")
    return RasterInfo(
        path=path,
        height=height,
        width=width,
        count=source.count,
        alpha=alpha[0] if alpha else None,
        dtype=source.dtypes[0],
        nodata=source.nodata,
        crs=source.crs,
        transform=source.transform,
        paletted=source.count == 1 and source.colorinterp[0] == ColorInterp.palette,
        masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        dtypes=tuple(source.dtypes),
        nodatas=tuple(source.nodatavals),
        turn=turn,
        lossy=source.driver == "JPEG"
        or stored.get("COMPRESSION", "").endswith("JPEG")
        or stored.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSY"),
        scales=tuple(source.scales),
        offsets=tuple(source.offsets),
        gcps=tuple(points),
        gcps_crs=points_crs,
        rpcs=source.rpcs,
    )


def holds_data(
    values: Shaped[np.ndarray, "C h w"], nodata: float | Sequence[float | None] | None
) -> Bool[np.ndarray, "h w"]:
    """Return False where a band is not finite, or is nodata.

    One value for all bands counts only where all bands have it, if it is 0 or the bands are of 8 bits: there it is an
    ordinary value of a single band.

    Args:
        nodata: one for all bands, or one for each.
    """
    valid = np.ones(values.shape[1:], bool)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    if nodata is None:
        return valid
    each = tuple(nodata) if isinstance(nodata, Sequence) else (nodata,) * len(values)
    first = each[0] if each else None
    if first is not None and all(value == first for value in each) and (first == 0 or values.dtype.itemsize == 1):
        return valid & ~(values == first).all(axis=0)
    for band, value in zip(values, each, strict=True):
        if value is not None and not np.isnan(value):
            valid &= band != value
    return valid


_owners = itertools.count()


class RasterReader:
    """A raster that any thread may read windows from. Its open files are those of `geo/handle_pool.py`."""

    def __init__(
        self, path: str | Path | RasterInfo, *, bands: Sequence[int] | None = None, nodata: float | None = None
    ) -> None:
        """Open a raster.

        Args:
            path: of the file; or its header, if that was read already.
            bands: numbers to read, counted from 1, also of a band that the file calls alpha; None: all but alpha.
            nodata: the raw value of pixels without data; None: as the file says of each band.

        Raises:
            DataError: no such file, not a raster, bands of several types or of complex numbers, or more bands than the
                memory holds.
            ConfigError: a band that the file does not have.
        """
        info = path if isinstance(path, RasterInfo) else describe(path)
        self.bands = tuple(bands) if bands is not None else info.colour_bands
        beyond = [band for band in self.bands if not 1 <= band <= info.count]
        if beyond:
            raise ConfigError(
                f"{info.path} has {info.count} bands, so there is no band {beyond[0]}. Fix [data].bands.", code="PW406"
            )
        self.info = replace(info, dtype=_common_type(info, self.bands))
        self.nodata = nodata if nodata is not None else info.nodata_of(self.bands)
        self._given = nodata
        self._alpha = None if info.alpha in self.bands else info.alpha
        _require_room(self.info, len(self.bands))
        self._owner = next(_owners)
        # A reader that nobody holds any more leaves no open files.
        weakref.finalize(self, POOL.abandon, self._owner).atexit = False

    def __reduce__(self) -> tuple[Callable[..., "RasterReader"], tuple[str | Path]]:
        # Open files do not travel to another process; it opens its own.
        return partial(RasterReader, bands=self.bands, nodata=self._given), (absolute(self.info.path),)

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return the raw values of a window inside the raster, and which pixels hold data.

        A pixel is without data where alpha or the file's mask is 0, where a band is not finite, or where `holds_data`
        finds nodata.

        Raises:
            DataError: the file is corrupt or truncated there.
        """
        info, turn = self.info, self.info.turn
        rows, columns = turn.stored(*astuple(window), of=(info.height, info.width))
        area = RasterioWindow.from_slices(rows, columns)
        # Together, where that is possible: GDAL decodes the bands of a block at once.
        together = self._alpha is not None and info.dtypes[self._alpha - 1] == info.dtype
        shown: list[np.ndarray] = []
        try:
            with POOL.lease(self._owner, self._open) as handle:
                values = handle.read([*self.bands, self._alpha] if together else list(self.bands), window=area)
                if self._alpha is not None and not together:
                    shown.append(handle.read(self._alpha, window=area))
                if info.masked:
                    shown.append(handle.read_masks(1, window=area))
        except GDAL_ERRORS as error:
            if isinstance(error, PixelwiseError):
                raise
            place = f"rows {rows[0]} to {rows[1]}"
            raise DataError(
                f"{info.path} cannot be read at {place}: {reason(error)}. "
                "The file is corrupt or truncated; copy it again, or move it out of the folder.",
                code="PW403",
            ) from None
        if together:
            values, shown = values[:-1], [*shown, values[-1]]
        valid = holds_data(values, self.nodata)
        for plane in shown:
            valid &= plane != 0
        return (values, valid) if turn == UPRIGHT else (turn.upright(values), turn.upright(valid))

    def colour_table(self) -> dict[int, tuple[int, int, int, int]]:
        """Return the red, green, blue and alpha of each index of a paletted raster."""
        with POOL.lease(self._owner, self._open) as handle:
            return handle.colormap(1)

    def close(self) -> None:
        """Close what is open; a later read opens the file again."""
        POOL.close(self._owner)

    def _open(self) -> rasterio.DatasetReader:
        handle, info = open_raster(self.info.path), self.info
        size = (handle.width, handle.height) if info.turn.transposed else (handle.height, handle.width)
        if (*size, handle.count, handle.dtypes) != (info.height, info.width, info.count, info.dtypes):
            handle.close()
            raise DataError(f"{info.path} is another image than when it was opened first. Start again.", code="PW410")
        return handle


def _common_type(info: RasterInfo, bands: Sequence[int]) -> str:
    kinds = {info.dtypes[band - 1]: band for band in reversed(bands)}
    if any("complex" in kind for kind in kinds):
        raise DataError(
            f"{info.path} holds complex numbers ({', '.join(sorted(kinds))}), whose imaginary part would be lost. "
            "Convert them, to amplitudes for example, or choose other bands with [data].bands.",
            code="PW404",
        )
    if len(kinds) > 1:
        named = " and ".join(f"{kind} (such as band {band})" for kind, band in sorted(kinds.items()))
        raise DataError(
            f"{info.path} has bands of several types, {named}. Convert them to one type (gdal_translate -ot), or "
            "choose bands of one type with [data].bands.",
            code="PW404",
        )
    return next(iter(kinds), info.dtype)


def _require_room(info: RasterInfo, bands: int) -> None:
    """See that a row of pixels and a tile fit the memory, with all bands that are read."""
    needed = max(512 * 512, info.width) * bands * np.dtype(info.dtype).itemsize
    room = room_for(needed)
    if room is not None:
        raise DataError(
            f"{info.path} says that it has {info.width}x{info.height} pixels; a tile with {bands} bands takes "
            f"{needed / 1e9:,.1f} GB, but {room / 1e9:,.1f} GB are free. List the bands that you need in [data].bands.",
            code="PW904",
        )


def normalize(
    values: Shaped[np.ndarray, "C h w"],
    valid: Bool[np.ndarray, "h w"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float32[np.ndarray, "C h w"]:
    """Bring raw values to mean 0 and standard deviation 1 per band; pixels without data become 0, the mean."""
    offset = np.asarray(mean, np.float32)[:, None, None]
    scale = (1 / np.asarray(std, np.float64)).astype(np.float32)[:, None, None]
    # To convert while subtracting would take a third longer.
    out = values.astype(np.float32)
    out -= offset
    out *= scale
    if not valid.all():
        out[:, ~valid] = 0
    return out
