"""What an exported file says of itself, in its metadata: all that a predictor must know besides the graph."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped
from pydantic import TypeAdapter, ValidationError

from pixelwise import __version__
from pixelwise.architecture import Architecture
from pixelwise.errors import ConfigError, WeightsError
from pixelwise.exported.options import DEEPNESS_RANGE, ExportOptions
from pixelwise.labels import make_classes
from pixelwise.runs.model_card import ModelCard, require_sound

KEY = "pixelwise"
"""Of the metadata: an `About` as JSON. All other keys are for people and other programs."""
FORMAT = 1
"""Of what the key holds. A file of a higher one is of a newer version, which may mean other things by it."""


@dataclass(frozen=True)
class About:
    """What is in a file."""

    card: ModelCard
    model_hash: str
    """SHA-256 of the weights that it was made from; of a foreign file, its own."""
    options: ExportOptions
    stride: int
    multiple: int
    """Logits cover the image padded, right and below, to a multiple of it."""
    align_corners: bool
    """How logits are upsampled."""
    smallest_side: int = 32
    """Of an image, in pixels."""
    raw: bool = True
    """The file takes raw units; else images normalised with the card's mean and deviation."""
    format: int = FORMAT


_ABOUT = TypeAdapter(About)


def metadata_of(about: About, certificate: Mapping[str, object]) -> dict[str, str]:
    """Return the metadata of a file: texts by key, those that are no single text or number as JSON."""
    card, options = about.card, about.options
    told: dict[str, object] = {
        KEY: {**asdict(about), "certificate": certificate},
        "classes": list(card.classes.names),
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in card.classes.palette],
        "bands": list(card.bands),
        "units": card.dtype,
        "mean": list(card.mean),
        "std": list(card.std),
        "temperature": card.temperature,
        "tile": card.tile,
        "overlap": card.overlap,
        "licences": _licences(card),
        "model_sha256": about.model_hash,
        "precision": options.precision,
        "network": card.architecture.name,
        "version": f"pixelwise {__version__}",
        "certificate": certificate,
    }
    if options.resolution is not None:
        told["ground_resolution"] = options.resolution
    if options.deepness:
        told |= deepness_keys(about)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}


def deepness_keys(about: About) -> dict[str, object]:
    """Return the keys that QGIS's plugin Deepness reads, each as JSON.

    Its code reads ``tile_size``, its documentation writes ``tiles_size``. Normalisation is in the graph, so the mean is
    0 and the deviation 1.
    """
    card = about.card
    side = about.options.size[0] if about.options.size else card.tile
    keys: dict[str, object] = {
        "model_type": json.dumps("Segmentor"),
        "class_names": {str(i): name for i, name in enumerate(card.classes.names)},
        "tile_size": side,
        "tiles_size": side,
        "tiles_overlap": round(100 * min(card.overlap, side // 2) / side),
        "standardization_mean": [0.0] * len(card.bands),
        "standardization_std": [1.0] * len(card.bands),
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    if about.options.resolution is not None:
        keys["resolution"] = round(100 * about.options.resolution, 2)
    return keys


def _licences(card: ModelCard) -> object:
    """Return the licences of all that the model descends from, as far as its card has them."""
    origins = asdict(card).get("origins")
    return origins if origins else card.provenance.get("licence", "not recorded")


def read_about(path: Path, metadata: Mapping[str, str]) -> About | None:
    """Return what a file says of itself; None if it is not of pixelwise.

    Raises:
        WeightsError: damaged metadata, or those of a newer version.
    """
    if KEY not in metadata:
        return None
    reason = ""
    try:
        told = json.loads(metadata[KEY])
        if told.get("format", 0) > FORMAT:
            raise WeightsError(
                f"{path} was exported by a newer version ({metadata.get('version', 'unknown')}; this is pixelwise "
                f"{__version__}). Update pixelwise, or export the model with this version.",
                code="PW513",
            )
        told.pop("certificate", None)
        about = _ABOUT.validate_python(told)
        require_sound(about.card)
        return about
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = str(error)
    raise WeightsError(f"The metadata of {path} are damaged ({reason[:200]}). Export the model again.", code="PW513")


def as_given(values: Float32[np.ndarray, "B C H W"], about: About) -> Shaped[np.ndarray, "B _ _ _"]:
    """Return images in raw units as a file takes them."""
    options = about.options
    if options.deepness:
        values = values / np.float32(DEEPNESS_RANGE)
    elif options.dtype != "float32":
        values = np.clip(np.rint(values), 0, np.iinfo(options.dtype).max)
    values = values if options.layout == "nchw" else np.moveaxis(values, 1, -1)
    return np.ascontiguousarray(values, dtype=options.dtype)


FOREIGN = ("classes", "mean", "std", "dtype", "bands", "align_corners", "multiple", "tile", "overlap")
"""What can be said of a file that others made; the first three must be."""
LARGEST = {"uint8": 255, "uint16": 65535}
"""By which images are divided to lie between 0 and 1."""


def about_foreign(path: Path, bands: int, digest: str, options: Mapping[str, object]) -> About:
    """Return what a user says of a file that others made: it takes normalised float images and gives logits.

    Args:
        bands: how many the file takes.
        options: some of `FOREIGN`; mean and std in raw units, a number per band.

    Raises:
        ConfigError: an option is missing, unknown or wrong.
    """
    missing = [name for name in FOREIGN[:3] if name not in options]
    unknown = [name for name in options if name not in FOREIGN]
    if missing or unknown:
        what = f"{', '.join(missing)} missing" if missing else f"{unknown[0]!r} is unknown"
        example = {key: ",".join([value] * bands) for key, value in (("mean", "124"), ("std", "58"))}
        raise ConfigError(
            f"{path} has no metadata of pixelwise, so options must say what it takes and gives: {what}. Give --classes "
            f"field,other --mean {example['mean']} --std {example['std']}: the names of its classes, and for each of "
            f"its {bands} bands mean and deviation in the image's own units. Where they differ, also --dtype (uint8) "
            "and --bands, and by --option KEY=VALUE align_corners (false), multiple (1), tile (512) and overlap (128). "
            "From Python: options={'classes': [...], 'mean': [...], 'std': [...]}.",
            code="PW513",
        )
    rest = dict(options)
    multiple, align_corners = rest.pop("multiple", 1), rest.pop("align_corners", False)
    names = rest.pop("classes")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'classes are a list of names, such as ["field", "other"], not {names!r}.', code="PW513")
    table = {"dtype": "uint8", "bands": tuple(range(1, bands + 1)), **rest}
    card = {"architecture": Architecture(path.name, len(names), bands), "classes": make_classes(list(names)), **table}
    try:
        about = _ABOUT.validate_python(
            {
                "card": card,
                "model_hash": digest,
                "options": ExportOptions(),
                "stride": 1,
                "multiple": multiple,
                "align_corners": align_corners,
                "raw": False,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}.", code="PW513") from None
    if not len(about.card.mean) == len(about.card.std) == len(about.card.bands) == bands or min(about.card.std) <= 0:
        raise ConfigError(
            f"{path} takes {bands} bands, so bands, mean and std have {bands} numbers each, and those of std are above "
            "0.",
            code="PW513",
        )
    try:
        require_sound(about.card)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"What is said of {path} is wrong: {error}.", code="PW513") from None
    if about.multiple < 1:
        raise ConfigError(f"multiple is a number of pixels from 1 up, not {about.multiple}.", code="PW513")
    _require_own_units(path, about.card)
    return about


def _require_own_units(path: Path, card: ModelCard) -> None:
    """Check that mean and deviation are not those of images scaled to 0 to 1, as many programs have them.

    Raises:
        ConfigError: they are; it has the numbers to give instead.
    """
    if card.dtype not in LARGEST or not (0 < max(card.mean) <= 1 and max(card.std) < 1):
        return
    told = [",".join(f"{LARGEST[card.dtype] * value:.5g}" for value in values) for values in (card.mean, card.std)]
    raise ConfigError(
        f"{path}: mean {list(card.mean)} and std {list(card.std)} are for images from 0 to 1, and {card.dtype} images "
        f"are not. Give --mean {told[0]} --std {told[1]}, or --dtype float32 if the images are."
    )
