"""Label maps on disk and on the screen: GeoTIFFs written strip by strip, palette PNGs, overlays."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
from jaxtyping import Bool, Float32, Integer, Shaped, UInt8
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, replacing
from pixelwise.geo.raster import RasterInfo
from pixelwise.labels import Classes

BLOCK = 512
CLASSES_TAG = "PIXELWISE_CLASSES"
CONFIDENCE_NODATA = 255


def label_nodata(classes: int) -> int:
    """Return the value of pixels without data in a label map on disk: the largest of its type.

    Up to 255 classes that is 255 in uint8; from 256 on, where a class needs 255 itself, 65535 in uint16.
    """
    return 255 if classes <= 255 else 65535


def confidence_path(path: str | Path) -> Path:
    """Return where the confidence of a label map is: beside it, since a palette and a grey band exclude each other."""
    path = Path(path)
    return path.with_name(f"{path.stem}.confidence.tif")


class LabelMapWriter:
    """Writes a label map, and its confidence if wanted, in strips from top to bottom; the block cache bounds memory.

    Used in a ``with`` block. The files get their names when the block ends well; else nothing is left of them.
    """

    def __init__(
        self, path: str | Path, info: RasterInfo, classes: Classes, *, tags: dict[str, str], confidence: bool = False
    ) -> None:
        """Prepare to write.

        Args:
            info: the scene's header, whose size, coordinate system and transform the map takes over.
            tags: provenance, kept in the file.

        Raises:
            ConfigError: another suffix than .tif, the scene itself as the output, or a folder that cannot be written.
        """
        self.path, self.info, self.classes, self.tags = Path(path), info, classes, tags
        self.nodata = label_nodata(len(classes))
        self.paths = [self.path, confidence_path(self.path)] if confidence else [self.path]
        if self.path.suffix.lower() not in (".tif", ".tiff"):
            raise ConfigError(f"{path}: a scene's map is a GeoTIFF. Let the name end in .tif.")
        for written in self.paths:
            if written.resolve() == info.path.resolve():
                raise ConfigError(f"{written} is the scene itself. Choose another output, so that the scene is kept.")
            if written.is_dir():
                raise ConfigError(f"{written} is a folder, and no file can take its name. Choose another output.")
        ensure_folder(self.path.parent)

    def __enter__(self) -> "LabelMapWriter":
        self._stack = ExitStack()
        temporary = [self._stack.enter_context(replacing(path)) for path in self.paths]
        dtype = "uint8" if self.nodata == 255 else "uint16"
        self._labels = self._create(temporary[0], dtype, self.nodata)
        self._labels.update_tags(**self.tags, **{CLASSES_TAG: json.dumps(self.classes.names)})
        self._labels.set_band_description(1, "class")
        if dtype == "uint8":
            self._labels.write_colormap(1, {i: (*colour, 255) for i, colour in enumerate(self.classes.palette)})
            self._labels.colorinterp = [ColorInterp.palette]
        self._confidence = None
        if len(temporary) > 1:
            self._confidence = self._create(temporary[1], "uint8", CONFIDENCE_NODATA)
            self._confidence.set_band_description(1, "confidence of the class, 0 to 254 for 0 to 1")
            self._confidence.update_tags(**self.tags)
        return self

    def write(
        self,
        top: int,
        labels: Integer[np.ndarray, "n W"],
        confidence: Float32[np.ndarray, "n W"] | None,
        valid: Bool[np.ndarray, "n W"],
    ) -> None:
        """Write full-width rows; where ``valid`` is False, nodata. ``confidence`` may be None if none is written."""
        area = RasterioWindow.from_slices((top, top + len(labels)), (0, self.info.width))
        written = np.where(valid, labels, self.nodata).astype(self._labels.dtypes[0])
        self._labels.write(written, 1, window=area)
        if self._confidence is not None:
            assert confidence is not None
            grey = np.where(valid, np.rint(confidence * 254), CONFIDENCE_NODATA).astype(np.uint8)
            self._confidence.write(grey, 1, window=area)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._labels.close()
        if self._confidence is not None:
            self._confidence.close()
        self._stack.__exit__(kind, error, trace)

    def _create(self, path: Path, dtype: str, nodata: int):
        return rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=self.info.height,
            width=self.info.width,
            count=1,
            dtype=dtype,
            crs=self.info.crs,
            transform=self.info.transform,
            nodata=nodata,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            compress="deflate",
            predictor=1,
            bigtiff="if_safer",
        )


def write_palette_png(path: str | Path, labels: Integer[np.ndarray, "H W"], classes: Classes) -> None:
    """Write labels as a PNG whose palette is that of the classes (16-bit grey from 257 classes on)."""
    if len(classes) > 256:
        picture = Image.fromarray(labels.astype(np.uint16))
    else:
        picture = Image.fromarray(labels.astype(np.uint8)).convert("L")
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([channel for colour in classes.palette for channel in colour])
    with replacing(path) as temporary:
        picture.save(temporary)


def colourise(labels: Integer[np.ndarray, "H W"], classes: Classes) -> UInt8[np.ndarray, "H W 3"]:
    """Return labels in their colours; what is no class is black."""
    table = np.zeros((max(len(classes) + 1, 257), 3), np.uint8)
    table[: len(classes)] = classes.palette
    known = (labels >= 0) & (labels < len(classes))
    return table[np.where(known, labels, len(classes))] * known[..., None].astype(np.uint8)


def overlay(
    picture: UInt8[np.ndarray, "H W 3"],
    labels: Integer[np.ndarray, "H W"],
    classes: Classes,
    *,
    opacity: float = 0.5,
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay the colours of the labels over a picture; what is no class shows the picture alone."""
    known = ((labels >= 0) & (labels < len(classes)))[..., None]
    mixed = picture * (1 - opacity) + colourise(labels, classes) * opacity
    return np.where(known, np.rint(mixed), picture).astype(np.uint8)


def to_picture(
    values: Shaped[np.ndarray, "C H W"], valid: Bool[np.ndarray, "H W"] | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the first three bands (or one band as grey) as 8-bit colours.

    uint8 is taken as it is; all else is stretched from the 2nd to the 98th percentile of valid pixels of each band.
    """
    bands = np.asarray(values[:3] if len(values) >= 3 else values[:1])
    if bands.dtype != np.uint8:
        pixels = bands[:, valid] if valid is not None and valid.any() else bands.reshape(len(bands), -1)
        with np.errstate(invalid="ignore"):
            low, high = np.nanpercentile(pixels.astype(np.float64), (2, 98), axis=1)
            span = np.where(high > low, high - low, 1)
            scaled = (bands - low[:, None, None]) / span[:, None, None] * 255
        bands = np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)
    return np.moveaxis(np.broadcast_to(bands, (3, *bands.shape[1:])), 0, -1).copy()
