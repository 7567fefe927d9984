"""An image that was sent, answered at once: its classes, and pictures of them."""

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float32, Integer, UInt8
from PIL import Image
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.warp import transform_geom

from pixelwise.errors import PixelwiseError
from pixelwise.geo.drivers import IMAGE_SUFFIXES
from pixelwise.geo.label_map import label_nodata, overlay, stored_labels, to_picture
from pixelwise.geo.raster import RasterInfo, Readable, Window, describe
from pixelwise.inference.fitting import fitted, open_fitting
from pixelwise.inference.images import open_array
from pixelwise.inference.options import Fit, TileOptions
from pixelwise.inference.tiling import predict_strips
from pixelwise.labels import Classes
from pixelwise.serve.job import listed_classes
from pixelwise.serve.options import Limits
from pixelwise.serve.refusals import too_large
from pixelwise.serve.shelf import Loaded
from pixelwise.serve.warned import notes_kept
from pixelwise.serve.workers import Patience

QUICK = 1
"""How hard PNGs are compressed, of 9: the network should have the time."""


@dataclass(frozen=True)
class Answer:
    """The classes of an image's pixels."""

    labels: Integer[np.ndarray, "H W"]
    """As `pixelwise predict` stores them: 255, or 65535 from 256 classes on, where there is no data."""
    confidence: Float32[np.ndarray, "H W"] | None
    """Softmax probability of the label, 0 to 1; 0 where there is no data."""
    valid: Bool[np.ndarray, "H W"]
    picture: UInt8[np.ndarray, "H W 3"] | None
    """The image as it is shown, if asked for."""
    place: tuple[CRS, Affine] | None = None
    """On the ground; None where it has none."""
    notes: tuple[str, ...] = ()


def safe_suffix(name: str) -> str:
    """Return the suffix under which a file that was sent is kept; a mosaic, which names other files, gets none."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in IMAGE_SUFFIXES and suffix != ".vrt" else ""


@dataclass(frozen=True)
class Sent:
    """A file that was sent, as it lies on disk."""

    path: Path
    name: str
    """As its sender calls it."""
    info: RasterInfo


def received(file: BinaryIO, name: str, folder: Path, limits: Limits) -> Sent:
    """Write a file that was sent, and look at its header. Nothing of it is decoded.

    Raises:
        Refusal: 413 for too many pixels.
        DataError: no image.
    """
    path, shown = folder / f"image{safe_suffix(name)}", name[:100] or "The image"
    with path.open("wb") as out:
        shutil.copyfileobj(file, out, 1 << 20)
    with named(path, shown):
        info = describe(path)
    require_pixels(info.width, info.height, limits.pixels)
    return Sent(path, shown, info)


def segment_file(
    model: Loaded, sent: Sent, patience: Patience, *, confidence: bool, picture: bool, units: str = "refuse"
) -> Answer:
    """Segment a file that was sent.

    Raises:
        DataError: a damaged file, or one that the model does not take.
    """
    path, info = sent.path, sent.info
    with notes_kept() as notes, named(path, sent.name):
        reader = open_fitting(path, model.predictor.card, Fit(units))
        made = _segmented(model, reader, patience, confidence=confidence)
        shown = None
        if picture:
            values, valid = reader.read(Window(0, 0, info.height, info.width))
            shown = to_picture(values, valid)
        said = tuple(note.replace(str(path), sent.name) for note in notes)
        place = None if info.crs is None else (info.crs, info.transform)
        return Answer(*made, shown, place, said)


@contextmanager
def named(path: Path, name: str) -> Iterator[None]:
    """Let errors about a file call it as its sender does."""
    try:
        yield
    except PixelwiseError as problem:
        raise type(problem)(str(problem).replace(str(path), name)) from None


def segment_array(model: Loaded, image: np.ndarray, patience: Patience) -> Answer:
    """Segment an image [H,W,C] in raw units.

    Raises:
        DataError: other bands or units than the model's.
    """
    with notes_kept():
        card = model.predictor.card
        reader = fitted(open_array(image, card), card, Fit())
        return Answer(*_segmented(model, reader, patience, confidence=True), None)


def _segmented(model: Loaded, reader: Readable, patience: Patience, *, confidence: bool) -> tuple[Any, Any, Any]:
    predictor = model.predictor
    card = predictor.card
    found = predict_strips(
        predictor.model,
        reader,
        card,
        TileOptions(),
        confidence=confidence,
        advance=lambda share: patience.check(),
        stride=model.stride,
    )
    strips = list(found)
    labels = np.concatenate([strip.labels for strip in strips])
    valid = np.concatenate([strip.valid for strip in strips])
    shares = None
    if confidence:
        shares = np.concatenate([strip.confidence for strip in strips if strip.confidence is not None])
        shares = np.where(valid, shares, np.float32(0))
    return stored_labels(labels, valid, len(card.classes)), shares, valid


def require_pixels(width: int, height: int, most: int) -> None:
    """Check the size that a header names.

    Raises:
        Refusal: 413.
    """
    if width * height > most:
        said = f"The image has {width}x{height} pixels"
        raise too_large(said, f"{most:,}", "Send it as a job (POST /jobs), or a smaller one.")


def class_shares(answer: Answer, classes: Classes) -> list[dict[str, Any]]:
    """Return name, colour, pixels and share of each class; shares are of the pixels with data."""
    counts = np.bincount(answer.labels[answer.valid].ravel(), minlength=len(classes))[: len(classes)].tolist()
    total = max(1, sum(counts))
    return [
        {**each, "pixels": count, "share": count / total}
        for each, count in zip(listed_classes(classes), counts, strict=True)
    ]


def labels_png(labels: Integer[np.ndarray, "H W"], classes: Classes, *, clear: bool = True) -> bytes:
    """Return labels as a PNG in the colours of the classes; from 257 classes on as 16-bit grey.

    Args:
        clear: what holds no data is transparent.
    """
    if labels.dtype != np.uint8:
        return png(Image.fromarray(labels.astype(np.uint16)))
    picture = Image.fromarray(labels)
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    colours = [*classes.palette, *[(0, 0, 0)] * (256 - len(classes))]
    picture.putpalette([channel for colour in colours for channel in colour])
    return png(picture, transparency=label_nodata(len(classes))) if clear else png(picture)


def overlay_png(answer: Answer, classes: Classes) -> bytes:
    """Return the image under the colours of its classes."""
    assert answer.picture is not None
    labels = np.where(answer.valid, answer.labels.astype(np.int32), -1)
    return png(Image.fromarray(overlay(answer.picture, labels, classes)))


def confidence_png(answer: Answer) -> bytes:
    """Return the confidence as grey, 0 to 255."""
    assert answer.confidence is not None
    return png(Image.fromarray(np.rint(answer.confidence * 255).astype(np.uint8)))


def png(picture: Image.Image, transparency: int | None = None) -> bytes:
    """Return a picture as PNG."""
    out = io.BytesIO()
    options = {} if transparency is None else {"transparency": transparency}
    picture.save(out, "PNG", compress_level=QUICK, **options)
    return out.getvalue()


def base64_of(content: bytes) -> str:
    """Return bytes as JSON holds them."""
    return base64.b64encode(content).decode()


def outlines(answer: Answer, classes: Classes) -> dict[str, Any]:
    """Return the connected pieces of each class as GeoJSON.

    They are in degrees (RFC 7946) where the image has a place on the ground; else in pixels, x to the right and y down.
    """
    features, listed = [], listed_classes(classes)
    crs, transform = answer.place or (None, Affine.identity())
    for shape, value in shapes(answer.labels, mask=answer.valid, transform=transform):
        index = int(value)
        properties = {
            "class": classes.names[index],
            "class_id": index,
            "color": listed[index]["color"],
        }
        geometry = shape if crs is None else transform_geom(crs, "EPSG:4326", shape, precision=7)
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "coordinates": "pixels" if crs is None else "degrees", "features": features}
