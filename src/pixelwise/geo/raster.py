"""Rasters, window by window: PNG, JPEG, TIFF, GeoTIFF, VRT and all else that GDAL reads."""

import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.rpc import RPC
from rasterio.windows import Window as RasterioWindow

from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.png import check_png_end
from pixelwise.geo.proj import check_proj
from pixelwise.source_name import absolute, gdal_name, is_local

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".vrt", ".jp2", ".bmp", ".webp")


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


@dataclass(frozen=True)
class RasterInfo:
    """What the header of a raster says."""

    path: Path
    height: int
    width: int
    count: int
    """Number of bands, alpha included."""
    alpha: int | None
    """Number of the alpha band, counted from 1."""
    dtype: str
    nodata: float | None
    crs: CRS | None
    transform: Affine
    """Pixel (column, row) to ground; the identity where there is no georeference."""
    paletted: bool
    """The single band holds indices into a colour table."""
    masked: bool = False
    """A mask inside or beside the file, which is none of the bands, says which pixels hold data."""
    gcps: tuple[GroundControlPoint, ...] = field(default=(), compare=False)
    """Ground control points, where the file has such instead of a transform."""
    gcps_crs: CRS | None = None
    """Their coordinate system."""
    rpcs: RPC | None = field(default=None, compare=False)
    """Rational polynomials from the ground to pixels, where the file has such."""

    @property
    def colour_bands(self) -> tuple[int, ...]:
        """All band numbers but alpha, counted from 1."""
        return tuple(band for band in range(1, self.count + 1) if band != self.alpha)


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
    """Read a raster's header. Rows and columns are as stored: a JPEG's EXIF orientation turns nothing.

    Raises:
        DataError: no such file, not a raster, or a PNG that is cut off.
    """
    with _open(Path(path)) as source:
        if source.driver == "PNG":
            check_png_end(Path(path))
        if source.crs is not None or source.gcps[0] or not source.transform.is_identity:
            # Without its files PROJ would give another coordinate system, or none, in silence.
            check_proj()
        flags = source.mask_flag_enums[0]
        alpha = [i for i, kind in enumerate(source.colorinterp, start=1) if kind == ColorInterp.alpha]
        return RasterInfo(
            path=Path(path),
            height=source.height,
            width=source.width,
            count=source.count,
            alpha=alpha[0] if alpha else None,
            dtype=source.dtypes[0],
            nodata=source.nodata,
            crs=source.crs,
            transform=source.transform,
            paletted=source.count == 1 and source.colorinterp[0] == ColorInterp.palette,
            masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
            gcps=tuple(source.gcps[0]),
            gcps_crs=source.gcps[1],
            rpcs=source.rpcs,
        )


def holds_data(values: Shaped[np.ndarray, "C h w"], nodata: float | None) -> Bool[np.ndarray, "h w"]:
    """Return False where a band is not finite, or is nodata (where all bands are, if nodata is 0)."""
    valid = np.ones(values.shape[1:], bool)
    if values.dtype.kind == "f":
        valid &= np.isfinite(values).all(axis=0)
    if nodata is not None and not np.isnan(nodata):
        empty = values == nodata
        # 0 is an ordinary dark value of one band; only where all bands hold it is it the absence of data.
        valid &= ~(empty.all(axis=0) if nodata == 0 else empty.any(axis=0))
    return valid


class RasterReader:
    """A raster that any thread may read windows from; each thread has a handle of its own."""

    def __init__(self, path: str | Path, *, bands: Sequence[int] | None = None, nodata: float | None = None) -> None:
        """Open a raster.

        Args:
            bands: numbers to read, counted from 1; None: all but alpha.
            nodata: the raw value of pixels without data; None: as the file says.

        Raises:
            DataError: no such file, or not a raster.
            ConfigError: a band that the file does not have.
        """
        self.info = describe(path)
        self.bands = tuple(bands) if bands is not None else self.info.colour_bands
        self.nodata = nodata if nodata is not None else self.info.nodata
        self._handles = threading.local()
        beyond = [band for band in self.bands if not 1 <= band <= self.info.count]
        if beyond:
            raise ConfigError(
                f"{path} has {self.info.count} bands, so there is no band {beyond[0]}. Mend [data].bands."
            )

    def __reduce__(self) -> tuple[Callable[..., "RasterReader"], tuple[str | Path]]:
        # Open files do not travel to another process; it opens its own.
        return partial(RasterReader, bands=self.bands, nodata=self.nodata), (absolute(self.info.path),)

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return the raw values of a window inside the raster, and which pixels hold data.

        A pixel is without data where alpha or the file's mask is 0, where a band is not finite, or where a band is
        nodata (where all bands are, if nodata is 0).

        Raises:
            DataError: the file is corrupt or truncated there.
        """
        alpha = self.info.alpha
        wanted = [*self.bands, alpha] if alpha else list(self.bands)
        rows, columns = (window.top, window.top + window.height), (window.left, window.left + window.width)
        area = RasterioWindow.from_slices(rows, columns)
        try:
            values = self._handle().read(wanted, window=area)
            mask = self._handle().read_masks(1, window=area) if self.info.masked else None
        except RasterioError as error:
            place = f"rows {window.top} to {window.top + window.height}"
            raise DataError(
                f"{self.info.path} cannot be read at {place}: {_reason(error)}. "
                "The file is corrupt or truncated; copy it again, or move it out of the folder."
            ) from None
        values, shown = (values[:-1], values[-1]) if alpha else (values, None)
        valid = holds_data(values, self.nodata)
        for plane in (shown, mask):
            if plane is not None:
                valid &= plane != 0
        return values, valid

    def colour_table(self) -> dict[int, tuple[int, int, int, int]]:
        """Return the red, green, blue and alpha of each index of a paletted raster."""
        return self._handle().colormap(1)

    def close(self) -> None:
        """Close this thread's handle."""
        handle = getattr(self._handles, "source", None)
        if handle is not None:
            handle.close()
            del self._handles.source

    def _handle(self) -> rasterio.DatasetReader:
        if not hasattr(self._handles, "source"):
            self._handles.source = _open(self.info.path)
        return self._handles.source


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


def _open(path: Path) -> rasterio.DatasetReader:
    name = gdal_name(path)
    if is_local(path) and not Path(name).exists():
        raise DataError(f"There is no file {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(name)
    except RasterioError as error:
        raise DataError(
            f"{path} cannot be opened as an image: {_reason(error)}. It is corrupt, or not an image."
        ) from None


def _reason(error: BaseException) -> str:
    # rasterio hides GDAL's own words one cause further down.
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().rstrip(".").splitlines()[-1] if str(error).strip() else type(error).__name__
