"""Is this image one that the model takes? Files, arrays and PIL images, opened for reading by windows."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.geo.colours import ColourReader, ImageReader, is_grey
from pixelwise.geo.raster import RasterInfo, RasterReader, Window, describe, holds_data
from pixelwise.inference.segmentation import info_of_array
from pixelwise.runs.model_card import ModelCard


class ArrayReader:
    """An array that is read like a raster."""

    def __init__(self, values: Shaped[np.ndarray, "C H W"], valid: Bool[np.ndarray, "H W"]) -> None:
        self.values = values
        self.valid = valid
        self.info = info_of_array(values, Path("image"))

    def read(self, window: Window) -> tuple[Shaped[np.ndarray, "C h w"], Bool[np.ndarray, "h w"]]:
        """Return a window's values, and which pixels hold data."""
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        return self.values[:, rows, columns], self.valid[rows, columns]


def open_file(path: Path, card: ModelCard, *, any_type: bool = False) -> ImageReader:
    """Open a file: a palette in its colours, and a grey photo too, if the model learned from such.

    Args:
        any_type: take other types than the model's too, since values are converted afterwards.

    Raises:
        DataError: it cannot be read, or has other bands or units than the model takes.
    """
    info = describe(path)
    if info.paletted or (card.grey_too and is_grey(info)):
        reader = ColourReader(info, nodata=card.nodata)
        require_image(reader.info, card, any_type=any_type)
        return ColourReader(info, bands=card.bands, nodata=card.nodata)
    require_image(info, card, any_type=any_type)
    return RasterReader(info, bands=card.bands, nodata=card.nodata)


def require_image(info: RasterInfo, card: ModelCard, *, any_type: bool = False) -> None:
    """Check that a file whose bands nobody chose has the bands and units of the model's training images.

    Raises:
        DataError: it has others.
    """
    wanted, data = len(card.bands), info.data_bands(card.bands)
    first = card.bands == tuple(range(1, wanted + 1))
    counts = {wanted if card.file_bands is None else card.file_bands, *([wanted] if first else [])}
    if len(data) not in counts or not set(card.bands) <= set(data):
        numbers = ", ".join(map(str, card.bands))
        source = f"band {numbers}" if wanted == 1 else f"bands {numbers}"
        alpha = f", and calls band {info.alpha} alpha" if info.alpha in card.bands else ""
        raise DataError(
            f"{info.path} has {_count(len(info.colour_bands))} besides alpha{alpha}, but the model takes {wanted} "
            f"({source} of its training images, which had {card.file_bands or wanted}). Give an "
            "image with the same bands in the same order.",
            code="PW406",
        )
    if not any_type:
        _require_units(info, card)


def _require_units(info: RasterInfo, card: ModelCard) -> None:
    if units_of_type(info.dtype) != units_of_type(card.dtype):
        raise DataError(
            f"{info.path} holds {info.dtype} values, but the model was trained on {card.dtype}. Their units differ; "
            f"convert the image to {card.dtype} in the units of the training images, or let it be done with --units "
            "convert.",
            code="PW407",
        )


def require_fitting(info: RasterInfo, bands: tuple[int, ...], card: ModelCard) -> None:
    """Check that the bands that a configuration chose in a file are the model's, in its units.

    Raises:
        DataError: they are others.
    """
    if bands != card.bands:
        raise DataError(
            f"{info.path} gives {_count(len(bands))}, but the model takes {len(card.bands)}: {list(bands)} are read, "
            f"and the model was trained on {list(card.bands)}. If the file has the bands of the training images, write "
            f"bands = {list(card.bands)} below [data].",
            code="PW406",
        )
    _require_units(info, card)


def _count(bands: int) -> str:
    return f"{bands} band" if bands == 1 else f"{bands} bands"


def units_of_type(dtype: str) -> str:
    """Return which of four scales a type is usually of: '8 bit', 'integer', 'float' or 'complex'."""
    # 8-bit values, wider integers and floats come from different scales; int16 and uint16 need not.
    kind = np.dtype("complex64" if dtype.startswith("complex") else dtype)
    if kind.kind == "c":
        return "complex"
    return "float" if kind.kind == "f" else "8 bit" if kind.itemsize == 1 else "integer"


def open_array(image: Image.Image | np.ndarray, card: ModelCard) -> ArrayReader:
    """Return an image [H,W] or [H,W,C] as something that windows are read from.

    Raises:
        DataError: it has other bands than the model takes, or holds no numbers.
    """
    wanted = len(card.bands)
    values = np.asarray(image)
    shape = list(values.shape)
    values = values[..., None] if values.ndim == 2 else values
    alpha = isinstance(image, Image.Image) and image.mode in ("RGBA", "LA")
    if values.ndim != 3 or values.shape[-1] != wanted + alpha or 0 in values.shape or values.dtype.kind not in "buif":
        raise DataError(
            f"The image is {values.dtype} of the shape {shape}, but the model takes numbers of the shape [height, "
            f"width, {wanted}]{' or [height, width]' if wanted == 1 else ''}. Give the same bands in the same order as "
            "in training.",
            code="PW406",
        )
    bands = np.moveaxis(values[..., :wanted], -1, 0)
    valid = holds_data(bands, card.nodata)
    return ArrayReader(bands, valid & (values[..., wanted] != 0) if alpha else valid)
