"""An image that is made to fit what a model learned from: its units, its ground resolution, the order of its bands."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from pixelwise.data.contract import looks_reversed, sample, unit_top
from pixelwise.data.footprints import RESOLUTIONS, pixel_metres
from pixelwise.errors import ContractWarning, DataError
from pixelwise.geo.raster import RasterInfo, Readable, Window
from pixelwise.inference.images import open_file, units_of_type
from pixelwise.inference.options import Fit
from pixelwise.inference.resampled import ResampledReader
from pixelwise.runs.model_card import ModelCard

OTHER_UNITS, DOUBTFUL = 50.0, 20.0
"""Values so many times larger or smaller than the training images' are of other units, or may be."""
SHOWN_TOPS = {1.0: "0 to 1", 255.0: "0 to 255", 10_000.0: "0 to 10,000", 65_535.0: "0 to 65,535"}


class ConvertedReader:
    """An image whose values are multiplied by a factor, in the type that a model takes."""

    def __init__(self, reader: Readable, factor: float, dtype: str) -> None:
        """Wrap a reader.

        Args:
            dtype: of the model; whole numbers are rounded and kept in its range.
        """
        self._reader, self._factor = reader, factor
        whole = np.dtype(dtype).kind in "iu"
        self._dtype = np.dtype(dtype if whole else "float32")
        self.bands: tuple[int, ...] = getattr(reader, "bands", ())
        kinds = (str(self._dtype),) * len(reader.info.dtypes)
        self.info: RasterInfo = replace(reader.info, dtype=str(self._dtype), dtypes=kinds)

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return a window's values in the model's units, and which pixels hold data."""
        values, valid = self._reader.read(window)
        scaled = values.astype(np.float64) * self._factor
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            scaled = np.rint(np.nan_to_num(scaled)).clip(limits.min, limits.max)
        return scaled.astype(self._dtype), valid

    def __copy__(self) -> "ConvertedReader":
        from copy import copy

        return ConvertedReader(copy(self._reader), self._factor, str(self._dtype))


def open_fitting(path: Path, card: ModelCard, fit: Fit) -> Readable:
    """Open a file as a model takes it (`open_file`, `fitted`)."""
    return fitted(open_file(path, card, any_type=fit.units == "convert"), card, fit)


def fitted(reader: Readable, card: ModelCard, fit: Fit) -> Readable:
    """Return an image as a model takes it; warn of what is doubtful.

    Args:
        reader: of an image with the model's bands.
        fit: what may be changed.

    Raises:
        DataError: its units are others, and are not to be converted or not known; or its pixels have no size on the
            ground and are to be resampled.
    """
    contract = card.contract
    # Without leave to convert, a file of another type was refused before.
    other_type = fit.units == "convert" and units_of_type(reader.info.dtype) != units_of_type(card.dtype)
    if contract is None and not other_type and fit.resolution == "own":
        return reader
    both_8_bit = units_of_type(reader.info.dtype) == units_of_type(card.dtype) == "8 bit"
    colours = contract is not None and bool(contract.traits)
    values = sample(reader) if other_type or colours or not both_8_bit else np.empty((len(card.bands), 0))
    if values.shape[1] and not both_8_bit:
        reader = _in_units(reader, values, card, fit, other_type=other_type)
    if contract is not None and values.shape[1] and colours and looks_reversed(values, contract):
        warnings.warn(
            f"{reader.info.path}: the first and the last band seem to have changed places (BGR instead of RGB), by "
            "comparison with the training images. If so, give the bands in the order of training.",
            ContractWarning,
            stacklevel=2,
        )
    return _at_resolution(reader, card, fit)


def _in_units(
    reader: Readable, values: Float64[np.ndarray, "C n"], card: ModelCard, fit: Fit, *, other_type: bool
) -> Readable:
    """Refuse, convert or let pass an image by the range of its values."""
    path, dtype = reader.info.path, reader.info.dtype
    finite = values[:, np.isfinite(values).all(axis=0)]
    if not finite.shape[1]:
        return reader
    low, high = (float(each) for each in np.percentile(finite, (1, 99)))
    top = max(float(np.percentile(band, 99)) for band in finite)
    expected = _expected(card)
    ratio = top / expected if expected > 0 and top > 0 else 1.0
    far = ratio > OTHER_UNITS or ratio < 1 / OTHER_UNITS
    if not far and not other_type:
        if ratio > DOUBTFUL or ratio < 1 / DOUBTFUL:
            warnings.warn(
                f"{path} holds values up to {top:.4g}, the training images up to {expected:.4g}. If its units differ, "
                "convert it (--units convert).",
                ContractWarning,
                stacklevel=3,
            )
        return reader
    said = (
        f"{path} holds {dtype} values up to {top:.4g}, but the model learned from {card.dtype} values up to "
        f"{expected:.4g}, so its units differ."
    )
    if fit.units != "convert":
        raise DataError(
            f"{said} Convert the image to the units of the training images, or let it be done with --units convert.",
            code="PW407",
        )
    low_model = min(card.contract.low) if card.contract is not None else 0.0
    ours, theirs = unit_top(card.dtype, low_model, expected), unit_top(dtype, low, high)
    if ours is None or theirs is None:
        raise DataError(
            f"{said} One of the two is no common unit ({', '.join(SHOWN_TOPS.values())}); convert it yourself.",
            code="PW407",
        )
    warnings.warn(
        f"{path} is converted from {SHOWN_TOPS[theirs]} to {SHOWN_TOPS[ours]}: its values are multiplied by "
        f"{ours / theirs:.6g}.",
        ContractWarning,
        stacklevel=3,
    )
    return ConvertedReader(reader, ours / theirs, card.dtype)


def _expected(card: ModelCard) -> float:
    """Return where the values of training images end; in folders of before contracts, by mean and deviation."""
    if card.contract is not None:
        return card.contract.top
    return max(mean + 2 * std for mean, std in zip(card.mean, card.std, strict=True))


def _at_resolution(reader: Readable, card: ModelCard, fit: Fit) -> Readable:
    """Resample an image to the model's ground resolution, or warn that it has another."""
    trained = None if card.contract is None else card.contract.pixel
    own = pixel_metres(reader.info)
    if trained is None or own is None:
        if fit.resolution == "model":
            whose = "The training images" if trained is None else str(reader.info.path)
            raise DataError(
                f"{whose} have no ground resolution that is known, so nothing can be resampled to the model's. Leave "
                "--resolution out, or georeference the image.",
                code="PW409",
            )
        return reader
    factor = trained / own
    if fit.resolution == "model":
        return reader if abs(factor - 1) < 0.01 else ResampledReader(reader, factor)
    if factor >= RESOLUTIONS or factor <= 1 / RESOLUTIONS:
        warnings.warn(
            f"{reader.info.path} has pixels of {own:.3g} m on the ground, the training images had {trained:.3g} m. A "
            "network knows objects at the size it learned, so the map may be wrong; --resolution model resamples the "
            "image.",
            ContractWarning,
            stacklevel=3,
        )
    return reader
