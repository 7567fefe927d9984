"""What prediction says about one image: classes, confidence, and pictures of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float32, Integer, Shaped, UInt8
from PIL import Image

from pixelwise import __version__
from pixelwise.errors import ConfigError
from pixelwise.geo.label_map import LabelMapWriter, overlay, write_palette_png
from pixelwise.geo.outputs import keep_inputs, save_picture
from pixelwise.geo.raster import RasterInfo
from pixelwise.geo.stored_blocks import files_of
from pixelwise.hub.licences import origin_tags
from pixelwise.labels import Classes
from pixelwise.runs.model_card import ModelCard


@dataclass(frozen=True)
class Segmentation:
    """The classes of an image's pixels."""

    labels: Integer[np.ndarray, "H W"]
    """uint8, or uint16 from 257 classes on. Where ``valid`` is False the value is that of nodata, not a class."""
    confidence: Float32[np.ndarray, "H W"]
    """Softmax probability of the label, 0 to 1; 0 where there is no data."""
    valid: Bool[np.ndarray, "H W"]
    classes: Classes
    picture: UInt8[np.ndarray, "H W 3"]
    """The image as it is shown."""
    info: RasterInfo | None
    """The file's header, where there is a file."""
    tags: dict[str, str]

    def save(self, path: str | Path) -> None:
        """Write the labels: a palette PNG or, for .tif, a GeoTIFF with the image's coordinate system.

        Raises:
            ConfigError: another suffix, the image itself, or a folder that cannot be written.
        """
        path = self._kept(path)
        if path.suffix.lower() == ".png":
            write_palette_png(path, self.labels, self.classes)
            return
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise ConfigError(
                f"{path}: labels are saved as .png or .tif, since other formats change their values.", code="PW804"
            )
        info = self.info or info_of_array(self.labels[None], Path("image"))
        with LabelMapWriter(path, info, self.classes, tags=self.tags) as writer:
            writer.write(0, self.labels, self.confidence, self.valid)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the image under the colours of its classes.

        Raises:
            ConfigError: an opacity that is not from 0 to 1.
        """
        if not 0 <= opacity <= 1:
            raise ConfigError(f"An overlay's opacity goes from 0 (the image) to 1 (the classes); {opacity} is beyond.")
        labels = np.where(self.valid, self.labels.astype(np.int32), -1)
        return Image.fromarray(overlay(self.picture, labels, self.classes, opacity=opacity))

    def save_overlay(self, path: str | Path, opacity: float = 0.5) -> None:
        """Write `overlay` as a picture, its format by the suffix.

        Raises:
            ConfigError: a suffix of no known format, the image itself, or a folder that cannot be written.
        """
        path = self._kept(path)
        if path.suffix.lower() not in Image.registered_extensions():
            raise ConfigError(
                f"{path}: no picture format has this suffix. Let the name end in .png or .jpg.", code="PW804"
            )
        save_picture(self.overlay(opacity), path)

    def _kept(self, path: str | Path) -> Path:
        if self.info is not None:
            keep_inputs([Path(path)], files_of(self.info.path), "image")
        return Path(path)


def info_of_array(values: Shaped[np.ndarray, "C H W"], path: Path) -> RasterInfo:
    """Return the header that a file with these values and no place on the ground would have."""
    bands, height, width = values.shape
    return RasterInfo(path, height, width, bands, None, str(values.dtype), None, None, Affine.identity(), False)


def provenance(card: ModelCard, model_hash: str) -> dict[str, str]:
    """Return the tags that say what made a file; without a date, so that the same work gives the same bytes."""
    return {
        "PIXELWISE_VERSION": __version__,
        "PIXELWISE_MODEL": model_hash,
        "PIXELWISE_NETWORK": card.architecture.name,
        **origin_tags(card.origins),
    }
