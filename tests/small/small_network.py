"""A network of one convolution and images of noise, for tests of what happens around a network."""

from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pixelwise.labels import make_classes
from pixelwise.models import Architecture, Decoded, Segmenter
from pixelwise.predictor import Predictor
from pixelwise.runs.model_folder import ModelCard

NORTH_UP = rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)


class Encoder(nn.Module):
    """A strided convolution; ``reach`` is how many strides it sees around its own cell."""

    def __init__(self, bands: int, channels: int, stride: int, reach: int) -> None:
        super().__init__()
        self.channels, self.strides = (channels,), (stride,)
        side = (2 * reach + 1) * stride
        self.convolution = nn.Conv2d(bands, channels, side, stride, padding=reach * stride)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> list[Tensor]:
        self.seen.append(tuple(image.shape))
        below, right = (-side % self.strides[0] for side in image.shape[-2:])
        return [self.convolution(F.pad(image, (0, right, 0, below)))]


class Decoder(nn.Module):
    def forward(self, maps: list[Tensor]) -> Decoded:
        return Decoded(maps[0])


def small_network(*, bands: int = 3, classes: int = 3, stride: int = 4, reach: int = 1, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    network = Segmenter(Encoder(bands, classes, stride, reach), Decoder(), Architecture("small", classes, bands))
    return network.eval().requires_grad_(False)


def card_of(
    network: Segmenter, *, dtype: str = "uint8", tile: int = 64, overlap: int = 32, **more: object
) -> ModelCard:
    bands = network.architecture.bands
    return ModelCard(
        architecture=network.architecture,
        classes=make_classes([f"class {i}" for i in range(network.architecture.classes)]),
        bands=tuple(range(1, bands + 1)),
        dtype=dtype,
        mean=tuple(100.0 + 10 * i for i in range(bands)),
        std=tuple(50.0 + i for i in range(bands)),
        tile=tile,
        overlap=overlap,
        **more,
    )


def predictor_of(*, bands: int = 3, classes: int = 3, seed: int = 0, **card: object) -> Predictor:
    network = small_network(bands=bands, classes=classes, seed=seed)
    return Predictor(network, card_of(network, **card), "0123abcd")


def noise(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (bands, height, width), np.uint8)


def write_scene(path: Path, values: np.ndarray, *, transform=NORTH_UP, crs=32616, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    options = {"driver": "GTiff", "dtype": values.dtype, "crs": crs, "transform": transform, **options}
    with rasterio.open(path, "w", height=height, width=width, count=bands, **options) as file:
        file.write(values)
    return path


def write_photo(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.moveaxis(values, 0, -1)).save(path)
    return path


def runs(predictor: Predictor) -> int:
    return len(predictor.model.encoder.seen)
