"""Random changes to a crop. Geometry is one resampling; masks are always nearest neighbour."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int16

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
    bend: Float32[np.ndarray, "2 n n"] | None = None
    """How far the crop's pixels move, across and down, at the points of a coarse grid over it; None: they do not."""

    def window_side(self, crop: int) -> int:
        """Side of the window that covers a crop, in pixels of the scene."""
        if self.zoom == 1 and self.angle == 0:
            return crop
        turned = abs(math.cos(self.angle)) + abs(math.sin(self.angle))
        return math.ceil(crop / self.zoom * turned)


def draw_geometry(config: AugmentConfig, side: int, rng: np.random.Generator) -> Geometry:
    """Draw a zoom, uniform in its logarithm, an angle, and how a crop of a side is bent."""
    low, high = np.log(config.scale)
    zoom = float(np.exp(rng.uniform(low, high)))
    angle = math.radians(config.rotate) * float(rng.uniform(-1, 1))
    if not config.elastic:
        return Geometry(zoom, angle)
    points = max(2, round(side / config.elastic_scale) + 1)
    bend = config.elastic * rng.standard_normal((2, points, points), np.float32)
    return Geometry(zoom, angle, bend)


def resample(crop: Crop, geometry: Geometry, side: int) -> Crop:
    """Zoom, rotate and bend a window around its centre into a square crop: bilinear, but mask and validity nearest."""
    still = geometry.zoom == 1 and geometry.angle == 0 and geometry.bend is None
    if crop.mask.shape == (side, side) and still:
        return crop
    height, width = crop.mask.shape
    cos, sin = math.cos(geometry.angle), math.sin(geometry.angle)
    across, down = side / geometry.zoom / width, side / geometry.zoom / height
    matrix = torch.tensor([[[cos * across, -sin * across, 0], [sin * down, cos * down, 0]]], dtype=torch.float32)
    grid = F.affine_grid(matrix, [1, 1, side, side], align_corners=False)
    if geometry.bend is not None:
        moved = F.interpolate(torch.from_numpy(geometry.bend)[None], (side, side), mode="bicubic", align_corners=True)
        # From pixels of the crop to the grid's units, in which the window is 2 wide and high.
        grid = grid + 2 / geometry.zoom * torch.stack([moved[:, 0] / width, moved[:, 1] / height], dim=-1)
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
    """Mirror, turn by quarters, normalise; then change brightness and contrast, blur, add noise and cut out.

    All of it works for any number of bands in any unit, because it happens after the normalisation.

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
    stretch, shift = colour_change(config, len(image), rng)
    image = image * stretch[:, None, None] + shift[:, None, None]
    image *= valid
    if config.blur:
        image = blurred(image, np.ascontiguousarray(valid), config.blur * rng.random())
    if config.noise:
        image = image + np.float32(config.noise * rng.random()) * rng.standard_normal(image.shape, np.float32)
    image *= valid
    if config.cutout:
        image = np.ascontiguousarray(image)
        for _ in range(int(rng.integers(config.cutout + 1))):
            image[:, *_rectangle(mask.shape, config.cutout_size, rng)] = 0
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def colour_change(
    config: AugmentConfig, bands: int, rng: np.random.Generator
) -> tuple[Float32[np.ndarray, " C"], Float32[np.ndarray, " C"]]:
    """Draw by what each band of a normalised image is multiplied, and what is added to it then."""
    shift = config.brightness * (rng.uniform(-1, 1) + config.band_jitter * rng.uniform(-1, 1, bands))
    stretch = np.exp(config.contrast * (rng.uniform(-1, 1) + config.band_jitter * rng.uniform(-1, 1, bands)))
    return stretch.astype(np.float32), shift.astype(np.float32)


def blurred(
    image: Float32[np.ndarray, "C h w"], valid: Bool[np.ndarray, "h w"], sigma: float
) -> Float32[np.ndarray, "C h w"]:
    """Return the mean of the valid pixels around each one, with the weights of a Gaussian."""
    radius = math.ceil(3 * sigma)
    if radius == 0:
        return image
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    planes = torch.from_numpy(np.concatenate([image * valid, valid[None]]).astype(np.float32))[:, None]
    planes = F.conv2d(planes, weights.view(1, 1, -1, 1), padding=(radius, 0))
    planes = F.conv2d(planes, weights.view(1, 1, 1, -1), padding=(0, radius))[:, 0]
    return (planes[:-1] / planes[-1:].clamp(min=1e-6)).numpy()


def _rectangle(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a rectangle whose sides are at most ``share`` of the crop's, and whose middle is anywhere."""
    middles, sides = rng.random(2) * shape, rng.random(2) * share * shape
    starts, ends = np.maximum(0, middles - sides / 2), np.minimum(shape, middles + sides / 2)
    rows, columns = (slice(int(start), int(end)) for start, end in zip(starts, ends, strict=True))
    return rows, columns
