"""Label maps on disk and on the screen: GeoTIFFs written strip by strip, palette PNGs, overlays."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Bool, Float32, Integer, Shaped, UInt8
from PIL import Image

from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, replacing
from pixelwise.geo.categories import categories_path, write_categories
from pixelwise.geo.map_file import writing_map
from pixelwise.geo.outputs import (
    CLASSES_TAG,
    PRODUCT_TAG,
    check_products,
    is_product,
    keep_inputs,
    save_picture,
    side_files,
)
from pixelwise.geo.qgis import forget_styles
from pixelwise.geo.raster import RasterInfo
from pixelwise.geo.stored_blocks import files_of
from pixelwise.labels import Classes

SHARE_NODATA = CONFIDENCE_NODATA = 255
"""Of maps of probabilities."""


def label_nodata(classes: int) -> int:
    """Return the value of pixels without data in a label map on disk: the largest of its type.

    Up to 255 classes that is 255 in uint8; from 256 on, where a class needs 255 itself, 65535 in uint16.
    """
    return 255 if classes <= 255 else 65535


def confidence_path(path: str | Path) -> Path:
    """Return where the confidence of a label map is: beside it, since a palette and a grey band exclude each other."""
    path = Path(path)
    return path.with_name(f"{path.stem}.confidence.tif")


def stored_labels(
    labels: Integer[np.ndarray, "n W"], valid: Bool[np.ndarray, "n W"], classes: int
) -> Integer[np.ndarray, "n W"]:
    """Return labels as they are on disk: uint8 or uint16, nodata where ``valid`` is False."""
    nodata = label_nodata(classes)
    dtype = np.uint8 if nodata == 255 else np.uint16
    return np.where(valid, labels.astype(dtype), dtype(nodata))


def stored_share(share: Float32[np.ndarray, "*K n W"], valid: Bool[np.ndarray, "n W"]) -> UInt8[np.ndarray, "*K n W"]:
    """Return a probability as it is on disk: 0 to 254 for 0 to 1, and 255 where ``valid`` is False."""
    return np.where(valid, np.rint(share * 254), SHARE_NODATA).astype(np.uint8)


def probabilities_path(path: str | Path) -> Path:
    """Return where the probabilities of all classes are: beside the label map."""
    path = Path(path)
    return path.with_name(f"{path.stem}.probabilities.tif")


def check_outputs(path: Path, beside: Sequence[Path], inputs: Sequence[str | Path], what: str = "scene") -> None:
    """See that a map and the rasters beside it take nothing from anybody.

    Args:
        inputs: the files that are read, as `keep_inputs` takes them.

    Raises:
        ConfigError: an output is an input, or somebody else's.
    """
    older = [each for each in (confidence_path(path), probabilities_path(path)) if is_product(each)]
    written = [each for raster in (path, *beside, *older) for each in (raster, *side_files(raster))]
    keep_inputs(written, inputs, what)
    check_products(path, beside)


class LabelMapWriter:
    """Writes a label map, and its confidence if wanted, in pieces of any order, each pixel once; memory does not grow.

    Used in a ``with`` block. The files get their names when the block ends well, and what belonged to an older map of
    that name (its confidence, overviews, statistics) goes; else nothing is left of the new ones.
    """

    def __init__(
        self,
        path: str | Path,
        info: RasterInfo,
        classes: Classes,
        *,
        tags: dict[str, str],
        confidence: bool = False,
        cog: bool = False,
        scratch: Path | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            info: the scene's header, whose size, coordinate system and transform the map takes over.
            tags: provenance, kept in the file.
            cog: write shares as cloud-optimised GeoTIFFs too; the map of classes always is one.
            scratch: a folder on the same disk where files grow until they get their names; None: beside them.

        Raises:
            ConfigError: another suffix than .tif, an output that the scene is read from or that is somebody else's, or
                a folder that cannot be written.
        """
        self.path, self.info, self.classes, self.tags = Path(path), info, classes, tags
        self.nodata, self.cog, self.scratch = label_nodata(len(classes)), cog, scratch
        self.paths = [self.path, confidence_path(self.path)] if confidence else [self.path]
        if self.path.suffix.lower() not in (".tif", ".tiff"):
            raise ConfigError(f"{path}: a scene's map is a GeoTIFF. Let the name end in .tif.", code="PW804")
        check_outputs(self.path, self.paths[1:], files_of(info.path))
        ensure_folder(self.path.parent)

    def __enter__(self) -> "LabelMapWriter":
        dtype = "uint8" if self.nodata == 255 else "uint16"
        with ExitStack() as stack:
            stack.push(self._forget_older)
            temporary = [stack.enter_context(replacing(self.path, scratch=self.scratch))]
            stack.push(self._describe)
            temporary += [stack.enter_context(replacing(path, scratch=self.scratch)) for path in self.paths[1:]]
            labels = writing_map(
                temporary[0],
                self.path,
                self.info,
                dtype,
                self.nodata,
                bands=["class"],
                tags={**self.tags, CLASSES_TAG: json.dumps(self.classes.names)},
                palette=self.classes.palette,
                cog=self.cog,
            )
            self._labels = stack.enter_context(labels)
            self._confidence = None
            if len(temporary) > 1:
                confidence = writing_map(
                    temporary[1],
                    self.paths[1],
                    self.info,
                    "uint8",
                    SHARE_NODATA,
                    bands=["confidence of the class, 0 to 254 for 0 to 1"],
                    tags={**self.tags, PRODUCT_TAG: "confidence"},
                    cog=self.cog,
                )
                self._confidence = stack.enter_context(confidence)
            self._stack = stack.pop_all()
        return self

    def write(
        self,
        top: int,
        labels: Integer[np.ndarray, "n W"],
        confidence: Float32[np.ndarray, "n W"] | None,
        valid: Bool[np.ndarray, "n W"],
    ) -> None:
        """Write full-width rows; where ``valid`` is False, nodata. ``confidence`` is None if none is written."""
        stored = None
        if self._confidence is not None:
            assert confidence is not None
            stored = stored_share(confidence, valid)
        self.write_stored(top, stored_labels(labels, valid, len(self.classes)), stored)

    def write_stored(
        self,
        top: int,
        labels: Integer[np.ndarray, "n m"],
        confidence: UInt8[np.ndarray, "n m"] | None,
        *,
        left: int = 0,
    ) -> None:
        """Write a rectangle of what `stored_labels` and `stored_share` gave."""
        self._labels.write(labels[None], top, left)
        if self._confidence is not None:
            assert confidence is not None
            self._confidence.write(confidence[None], top, left)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _describe(self, kind: type[BaseException] | None, *_: object) -> None:
        # The map gets its name last: where it is, all is.
        if kind is None:
            write_categories(self.path, self.classes)

    def _forget_older(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        for path in self.paths:
            for part in side_files(path):
                if part != categories_path(self.path):
                    part.unlink(missing_ok=True)
        if self._confidence is None:
            forget_product(confidence_path(self.path))


def forget_product(path: Path) -> None:
    """Remove a raster beside an older map, with its style and side files, if it is from here; else leave it alone."""
    if is_product(path):
        for each in (path, *side_files(path)):
            each.unlink(missing_ok=True)
        forget_styles(path)


def write_palette_png(path: str | Path, labels: Integer[np.ndarray, "H W"], classes: Classes) -> None:
    """Write labels as a PNG whose palette is that of the classes; indices beyond them are black.

    It is 16-bit grey instead from 257 classes on, or where a label is above 255, such as the nodata of 256 classes.

    Raises:
        ConfigError: a folder that cannot be written.
    """
    if len(classes) > 256 or labels.max(initial=0) > 255:
        picture = Image.fromarray(labels.astype(np.uint16))
    else:
        picture = Image.fromarray(labels.astype(np.uint8))
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        # Pillow stores as few bits per pixel as the palette needs, which would turn nodata into a class.
        colours = [*classes.palette, *[(0, 0, 0)] * (256 - len(classes))]
        picture.putpalette([channel for colour in colours for channel in colour])
    save_picture(picture, path)


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
        usable = np.isfinite(bands)
        if valid is not None and valid.any():
            usable &= valid
        bands = np.stack([_stretched(band, band[use]) for band, use in zip(bands, usable, strict=True)])
    return np.moveaxis(np.broadcast_to(bands, (3, *bands.shape[1:])), 0, -1).copy()


def _stretched(band: Shaped[np.ndarray, "H W"], pixels: Shaped[np.ndarray, " n"]) -> UInt8[np.ndarray, "H W"]:
    if len(pixels) == 0:
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(pixels.astype(np.float64), (2, 98))
    scaled = (band - low) / ((high - low) or 1) * 255
    return np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)
