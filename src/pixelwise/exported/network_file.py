"""An exported file in the place of a network: the same calls, so that all of prediction takes it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pixelwise.errors import ConfigError, DataError, PixelwiseError, WeightsError, out_of_memory
from pixelwise.exported.about import FOREIGN, About, about_foreign, as_given, read_about
from pixelwise.exported.runtimes import SUFFIXES, Runtime, damage_named, open_runtime, reason_of
from pixelwise.files import file_digest
from pixelwise.runs.model_card import ModelCard

NEAR_INTEGER = 0.01
"""Within it, a raw value that was an integer has come back as one; 16 bits lose less than half of it on the way."""
SMALLEST_TILE = 64
"""Of prediction (`pixelwise.inference.options.TileOptions`)."""
SMALLEST_WIDTH = 32
"""Of an image; fewer along the last axis are bands."""


class NetworkFile:
    """An exported file that answers as the network it was made from (`pixelwise.inference.networks.ArrayNetwork`).

    Prediction gives normalised images. The file takes raw units, so they are turned back. Integers come back exactly,
    and the mean, which stands where there is no data, too.
    """

    def __init__(self, runtime: Runtime, about: About) -> None:
        self.runtime, self.about = runtime, about
        self.architecture, self.align_corners = about.card.architecture, about.align_corners
        self.version = runtime.version

    def to(self, device: object) -> "NetworkFile":
        """Return itself: the runtime has chosen its device."""
        return self

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that the logits of an image of ``size`` stand for."""
        height, width = size
        multiple = self.about.multiple
        return -(-height // multiple) * multiple, -(-width // multiple) * multiple

    def logits(self, image: Float32[np.ndarray, "B C H W"]) -> Float32[np.ndarray, "B K h w"]:
        """Return logits of normalised images at the network's own stride.

        A file of one size sees smaller images padded with zeros, right and below; and one that others made, images that
        are no multiple of what it takes.

        Raises:
            DataError: another number of bands than the file's, or an image that is too small or too large.
        """
        bands, (height, width) = image.shape[1], image.shape[-2:]
        if bands != self.architecture.bands:
            raise DataError(
                f"The image has {bands} bands, but the model takes {self.architecture.bands}. Pick bands.", code="PW406"
            )
        rows, columns = self._given_size(height, width)
        padded = np.pad(image, ((0, 0), (0, 0), (0, rows - height), (0, columns - width)))
        given = as_given(self._raw(padded), self.about) if self.about.raw else np.ascontiguousarray(padded)
        logits = self._run(given)
        if (rows, columns) != (height, width):
            # Only the cells of the image itself.
            given_cells, cells = self.padded_size((rows, columns)), self.padded_size((height, width))
            down, across = (-(-a // b) for a, b in zip(given_cells, logits.shape[-2:], strict=True))
            logits = logits[..., : -(-cells[0] // down), : -(-cells[1] // across)]
        return logits

    def _given_size(self, height: int, width: int) -> tuple[int, int]:
        size, smallest = self.about.options.size, self.about.smallest_side
        if size is None:
            if min(height, width) < smallest:
                raise DataError(
                    f"The image is {width}x{height} pixels, and this file answers as its network does from {smallest}x"
                    f"{smallest} on. Enlarge the image, take larger tiles or scales, or predict with the run.",
                    code="PW408",
                )
            # In files of ours the graph pads.
            return (height, width) if self.about.raw else self.padded_size((height, width))
        if height > size[0] or width > size[1]:
            raise DataError(
                f"The model takes images of {size[0]} x {size[1]} pixels and was given {height} x {width}. Give tiles "
                f"that fit (--tile {min(size) // 32 * 32}, without --scale), or export it without --size.",
                code="PW408",
            )
        return size

    def _raw(self, image: np.ndarray) -> np.ndarray:
        card = self.about.card
        values = image.astype(np.float64) * np.array(card.std)[:, None, None] + np.array(card.mean)[:, None, None]
        if np.dtype(card.dtype).kind in "iu":
            whole = np.rint(values)
            values = np.where(np.abs(values - whole) < NEAR_INTEGER, whole, values)
        return values.astype(np.float32)

    def _run(self, given: np.ndarray) -> np.ndarray:
        batch = self.runtime.shape[0]
        parts = [given] if batch in (None, len(given)) else [given[i : i + 1] for i in range(len(given))]
        try:
            return np.concatenate([self.runtime.run(part)["logits"] for part in parts])
        except PixelwiseError:
            raise
        except Exception as error:  # each runtime has errors of its own
            if out_of_memory(error):
                raise
            if "allocate memory" in str(error).lower():
                raise MemoryError(reason_of(error)) from None
            shown = " x ".join(map(str, given.shape))
            advice = "Export the model again."
            if not self.about.raw and self.about.options.size is None:
                advice = "If it takes sides that are multiples of a number alone, say so: --option multiple=32."
            raise DataError(
                f"{self.version} fails on images of {shown} with {self.about.card.architecture.name} "
                f"({reason_of(error)}). {advice}",
                code="PW408",
            ) from None


def is_exported(path: str | Path) -> bool:
    """Return whether a path names an exported file, by its suffix; a run's folder may have any name."""
    return Path(path).suffix.lower() in SUFFIXES and not Path(path).is_dir()


def load_exported(
    path: Path, device: str = "auto", options: Mapping[str, object] | None = None
) -> tuple[NetworkFile, ModelCard, str]:
    """Open an exported file.

    Args:
        options: of a file that others made, what it takes and gives (`pixelwise.exported.about.FOREIGN`).

    Returns:
        the network, its card, and the SHA-256 of the weights that it was made from.

    Raises:
        MissingExtraError: the runtime is not installed.
        WeightsError: a damaged file, one of a newer version, or one that gives no logits.
        ConfigError: options that do not fit.
    """
    runtime = open_runtime(path, device)
    about = read_about(path, runtime.metadata)
    foreign = about is None
    if about is None:
        bands = _bands_of(runtime, path)
        about = about_foreign(path, bands, file_digest(path), options or {})
        height, width = runtime.shape[2:]
        if height is not None and width is not None:
            about = replace(about, options=replace(about.options, size=(height, width)))
    elif options:
        key = next(iter(options))
        fix = "It says that itself: leave it out." if key in FOREIGN else f"Export the run with --option {key}=..."
        raise ConfigError(f"{path} was exported with its options, so {key!r} cannot be changed. {fix}", code="PW513")
    if "logits" not in about.options.outputs or about.options.deepness:
        raise WeightsError(
            f"{path} gives {' and '.join(about.options.outputs)}, and prediction blends tiles by their logits. Export "
            "it with the output logits.",
            code="PW513",
        )
    card = about.card
    if about.options.size is not None:
        # Tiles of that size, so that nothing is padded.
        side = min(about.options.size) // 32 * 32
        if side < SMALLEST_TILE:
            raise WeightsError(
                f"{path} takes images of {about.options.size[0]} x {about.options.size[1]} pixels alone, and "
                f"prediction needs tiles of {SMALLEST_TILE} x {SMALLEST_TILE} or more. Export it with a larger --size.",
                code="PW513",
            )
        card = replace(card, tile=side, overlap=min(card.overlap, side // 64 * 32))
    network = NetworkFile(runtime, about)
    if foreign:
        _require_logits(network, path)
    return network, card, about.model_hash


def _bands_of(runtime: Runtime, path: Path) -> int:
    """Return how many bands a file takes that others made, and check that it takes [B,C,H,W], one image at least.

    Raises:
        WeightsError: it does not.
    """
    batch, bands, _, last = runtime.shape
    shown = f"[{', '.join('any' if side is None else str(side) for side in runtime.shape)}]"
    if last is not None and last < SMALLEST_WIDTH and (bands is None or bands > last):
        raise WeightsError(
            f"{path} takes images with the bands last, {shown}, and prediction gives [B,C,H,W]. Export it with the "
            "bands first (NCHW).",
            code="PW513",
        )
    if bands is None:
        raise WeightsError(
            f"{path} does not say how many bands it takes. Export it with a fixed number of bands.", code="PW513"
        )
    if batch not in (None, 1):
        raise WeightsError(
            f"{path} takes {batch} images at once, {shown}, no more and no less. Export it for one image, or for any "
            "number.",
            code="PW513",
        )
    return bands


def _require_logits(network: NetworkFile, path: Path) -> None:
    """Try a file that others made on an empty image.

    Raises:
        ConfigError: it gives something else than logits of the classes that were named.
        WeightsError: it does not run.
    """
    bands, classes = network.architecture.bands, network.architecture.classes
    size = network.about.options.size or (SMALLEST_TILE, SMALLEST_TILE)
    with damage_named(path):
        found = network.logits(np.zeros((1, bands, *size), np.float32))
    if found.ndim != 4 or found.dtype.kind != "f" or found.shape[1] != classes:
        raise ConfigError(
            f"{path} gives {found.dtype} values of the shape {list(found.shape)} for an image; prediction needs logits "
            f"[B,K,h,w], one for each of the {classes} classes that were named. Name as many classes as it has.",
            code="PW513",
        )
