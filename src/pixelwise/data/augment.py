"""Random changes to a crop. Geometry is one resampling; masks are always nearest neighbour."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int16

from pixelwise.config import AugmentConfig
from pixelwise.data.scenes import Crop
from pixelwise.geo.raster import normalize
from pixelwise.labels import IGNORE


@dataclass(frozen=True)
class Geometry:
    """One draw of zoom and angle. The size of the window to read follows from it."""

    zoom: float
    """How much larger the ground appears."""
    angle: float
    """In radians."""

    def window_side(self, crop: int) -> int:
        """Side of the window that covers a crop, in pixels of the scene."""
        if self.zoom == 1 and self.angle == 0:
            return crop
        turned = abs(math.cos(self.angle)) + abs(math.sin(self.angle))
        return math.ceil(crop / self.zoom * turned)


def draw_geometry(config: AugmentConfig, rng: np.random.Generator) -> Geometry:
    """Draw a zoom, uniform in its logarithm, and an angle."""
    low, high = np.log(config.scale)
    zoom = float(np.exp(rng.uniform(low, high)))
    return Geometry(zoom, math.radians(config.rotate) * float(rng.uniform(-1, 1)))


def resample(crop: Crop, geometry: Geometry, side: int) -> Crop:
    """Zoom and rotate a window around its centre into a square crop: bilinear, but mask and validity nearest."""
    if crop.mask.shape == (side, side) and geometry.zoom == 1 and geometry.angle == 0:
        return crop
    height, width = crop.mask.shape
    cos, sin = math.cos(geometry.angle), math.sin(geometry.angle)
    across, down = side / geometry.zoom / width, side / geometry.zoom / height
    matrix = torch.tensor([[[cos * across, -sin * across, 0], [sin * down, cos * down, 0]]], dtype=torch.float32)
    grid = F.affine_grid(matrix, [1, 1, side, side], align_corners=False)
    image = torch.from_numpy(crop.values.astype(np.float32))[None]
    # Nodata values must not leak into their neighbours, so each pixel is a mean of valid ones only.
    covered = torch.from_numpy(crop.valid)[None, None].to(image.dtype)
    image = torch.cat([torch.where(covered > 0, image, 0), covered], dim=1)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    # If the nearest pixel is valid, it has at least a quarter of the weight.
    image = image[:-1] / image[-1:].clamp(min=0.1)
    flat = np.stack([crop.mask.astype(np.float32), crop.valid.astype(np.float32)])
    mask, valid = F.grid_sample(torch.from_numpy(flat)[None], grid, mode="nearest", align_corners=False)[0].numpy()
    inside = (grid.abs() <= 1).all(dim=-1)[0].numpy()
    valid = (valid > 0.5) & inside
    return Crop(image.numpy(), valid, np.where(valid, mask.round(), IGNORE).astype(np.int16))


def augment(
    crop: Crop,
    config: AugmentConfig,
    rng: np.random.Generator,
    *,
    rotate90: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[Float32[np.ndarray, "C h w"], Int16[np.ndarray, "h w"]]:
    """Mirror, turn by quarters, normalise, and change brightness and contrast of any number of bands.

    Args:
        rotate90: turn by quarters and mirror up and down too, for pictures without an upper side.

    Returns:
        the normalised image and its mask.
    """
    image = normalize(crop.values, crop.valid, mean, std)
    mask, valid = crop.mask, crop.valid
    quarters, mirrored, upside = int(rng.integers(4)), bool(rng.integers(2)), bool(rng.integers(2))
    if rotate90 and quarters:
        image, mask, valid = (np.rot90(a, quarters, axes=(-2, -1)) for a in (image, mask, valid))
    if rotate90 and upside:
        image, mask, valid = (a[..., ::-1, :] for a in (image, mask, valid))
    if config.flip and mirrored:
        image, mask, valid = (a[..., ::-1] for a in (image, mask, valid))
    bands = len(image)
    shift = config.brightness * (rng.uniform(-1, 1) + config.band_jitter * rng.uniform(-1, 1, bands))
    stretch = np.exp(config.contrast * (rng.uniform(-1, 1) + config.band_jitter * rng.uniform(-1, 1, bands)))
    image = image * stretch.astype(np.float32)[:, None, None] + shift.astype(np.float32)[:, None, None]
    image *= valid
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)
