"""Corrected labels on disk: images, masks, and a configuration that trains on them from the model that was served.

A folder for each model holds ``images/NAME``, ``masks/NAME.png`` and ``records/NAME.json``; ``MODEL.toml`` lies beside.
"""

import io
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
import tomli_w
from jaxtyping import UInt8, UInt16
from PIL import Image

from pixelwise.files import ensure_folder, read_checked, replacing, with_checksum
from pixelwise.geo.label_map import label_nodata
from pixelwise.geo.opening import open_raster
from pixelwise.geo.raster import describe
from pixelwise.serve.answer import named, require_pixels
from pixelwise.serve.job import listed_classes
from pixelwise.serve.options import Limits
from pixelwise.serve.preview import read_window
from pixelwise.serve.refusals import Refusal
from pixelwise.serve.shelf import ServedModel

STEPS = 500
"""Of a training that goes on from a model."""
JUDGED = 5
"""From so many corrections on, some are kept for validation."""


@dataclass(frozen=True)
class Correction:
    """An image with a mask."""

    id: str
    model: str
    version: str
    image: str
    """Name of its file."""
    width: int
    height: int
    pixels: int
    """That were corrected."""
    classes: list[str]
    """To which they were."""
    date: str
    configuration: str
    """Name of the file that trains on it."""

    def shown(self) -> dict[str, Any]:
        """Return what a client is told: no folder."""
        return {**asdict(self), "command": f"pixelwise train {self.configuration}"}


def save_file(
    folder: Path, model: ServedModel, image: BinaryIO, suffix: str, mask: bytes, limits: Limits
) -> Correction:
    """Keep an image that was sent, as it is.

    Raises:
        DataError, Refusal: no image, or a mask that does not fit it.
    """

    def write(path: Path) -> tuple[int, int]:
        with path.open("wb") as out:
            shutil.copyfileobj(image, out, 1 << 20)
        with named(path, "The image"):
            info = describe(path)
        require_pixels(info.width, info.height, limits.pixels)
        return info.height, info.width

    return _save(folder, model, suffix, write, mask)


def save_window(
    folder: Path, model: ServedModel, scene: Path, window: tuple[int, int, int, int], mask: bytes, limits: Limits
) -> Correction:
    """Keep a part (top, left, height, width) of a scene, with all bands and its place on the ground."""
    require_pixels(window[3], window[2], limits.pixels)

    def write(path: Path) -> tuple[int, int]:
        info = describe(scene)
        bands = tuple(range(1, info.count + 1))
        values = read_window(scene, bands, window, (window[2], window[3]))
        place = {"crs": info.crs, "transform": info.transform @ rasterio.Affine.translation(window[1], window[0])}
        with open_raster(scene) as source:
            colours = source.colorinterp
        shape = {"count": len(bands), "height": window[2], "width": window[3], "dtype": info.dtype}
        kept = place if info.crs is not None else {}
        options = {"driver": "GTiff", "compress": "deflate", "nodata": info.nodata}
        with rasterio.open(path, "w", **options, **shape, **kept) as out:
            # Before the first pixels, as part of the file; later GDAL would write them into another one beside it.
            out.colorinterp = colours
            out.write(values)
        return window[2], window[3]

    return _save(folder, model, ".tif", write, mask)


def _save(
    folder: Path, model: ServedModel, suffix: str, write: Callable[[Path], tuple[int, int]], mask: bytes
) -> Correction:
    base = ensure_folder(folder / model.name)
    stamp = datetime.now(UTC)
    name = f"{stamp:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    image = base / "images" / f"{name}{suffix}"
    with replacing(image) as temporary:
        height, width = write(temporary)
        labels = read_mask(mask, height, width, len(model.card.classes))
        with replacing(base / "masks" / f"{name}.png") as out:
            Image.fromarray(labels).save(out, "PNG")
    configuration = write_configuration(base, model)
    names = model.card.classes.names
    corrected = labels[labels != label_nodata(len(names))]
    present = [names[i] for i in np.unique(corrected).tolist()]
    date = stamp.isoformat(timespec="seconds")
    made = Correction(
        id=name,
        model=model.name,
        version=model.version,
        image=image.name,
        width=width,
        height=height,
        pixels=corrected.size,
        classes=present,
        date=date,
        configuration=configuration.name,
    )
    with replacing(base / "records" / f"{name}.json") as out:
        out.write_text(json.dumps(asdict(made), indent=1), encoding="utf-8")
    return made


def read_mask(
    content: bytes, height: int, width: int, classes: int
) -> UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"]:
    """Return the class numbers in a PNG; where nothing was corrected 255, or 65535 from 256 classes on.

    Raises:
        Refusal: 422 for another kind or size of picture, for a number that is no class, or if nothing was corrected.
    """
    ignored = label_nodata(classes)
    fix = f"Send a palette or grey PNG of the image's size, whose values are numbers of classes, or {ignored}."
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            size, mode = picture.size, picture.mode
            if size != (width, height):
                said = f"The mask is {size[0]}x{size[1]} pixels, and the image {width}x{height}"
                raise Refusal(422, "wrong_mask", f"{said}.", fix)
            if mode not in ("P", "L", "I;16"):
                raise Refusal(422, "wrong_mask", f"The mask is a picture of the kind {mode}.", fix)
            values = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Refusal(422, "wrong_mask", "The mask is no PNG.", fix) from None
    beyond = (values >= classes) & (values != ignored)
    if beyond.any():
        said = f"The mask holds {int(values[beyond][0])}, and the classes are 0 to {classes - 1}"
        raise Refusal(422, "wrong_mask", f"{said}.", fix)
    if not (values != ignored).any():
        raise Refusal(422, "wrong_mask", "Nothing is corrected in the mask.", fix)
    return values.astype(np.uint8 if ignored == 255 else np.uint16)


def write_configuration(base: Path, model: ServedModel) -> Path:
    """Write a configuration that trains on all corrections from the model; one that its owner changed is kept."""
    path = base / f"{model.name}.toml"
    if path.exists() and not _is_ours(path):
        return path
    card, count = model.card, len(list((base / "masks").glob("*.png")))
    options = {name: card.architecture.options[name] for name in card.architecture.asked}
    table: dict[str, Any] = {
        "data": {
            "images": "images",
            "labels": "masks",
            "classes": list(card.classes.names),
            "palette": [each["color"] for each in listed_classes(card.classes)],
            "bands": list(card.bands),
            **({} if len(card.classes) < 256 else {"ignore": [65535]}),
            **({} if card.nodata is None else {"nodata": card.nodata}),
            **({} if count >= JUDGED else {"validation": 0.0}),
        },
        "model": {"name": card.architecture.name, **({"options": options} if options else {})},
        "train": {"steps": STEPS},
        "predict": {"tile": card.tile, "overlap": card.overlap},
    }
    notes = [f"# Corrections of the model {model.name}. The server writes this file anew until you change it."]
    if count < JUDGED:
        notes.append(f"# There are fewer than {JUDGED}, so all are learned from, and none is left to judge by.")
    if trains(model):
        table["model"]["weights"] = str(model.path / "model.safetensors")
    else:
        notes.append("# An exported file cannot be trained further, so this begins with a fresh network. Better: write")
        notes.append('# weights = "runs/NAME/model/model.safetensors" under [model], of the run that it was made from.')
    with replacing(path) as temporary:
        temporary.write_text(with_checksum("\n".join([*notes, tomli_w.dumps(table)])), encoding="utf-8")
    return path


def trains(model: ServedModel) -> bool:
    """Return whether a training can go on from a model: from a folder, not from an exported file."""
    return model.path.is_dir()


def _is_ours(path: Path) -> bool:
    """Return whether nobody has changed a configuration since it was written."""
    try:
        text = read_checked(path)
    except (OSError, ValueError):
        return False
    # Without the line of the checksum, which says that it is to be deleted after a change, it is somebody's own.
    return path.read_text(encoding="utf-8") == with_checksum(text)


def listed(folder: Path) -> list[Correction]:
    """Return all corrections, the newest first; a record that cannot be read is left out."""
    found = []
    for path in folder.glob("*/records/*.json"):
        try:
            found.append(Correction(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda each: each.id, reverse=True)
