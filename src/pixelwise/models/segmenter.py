"""What every network is from outside: an encoder and a decoder, and four ways to ask them."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from pixelwise.errors import DataError
from pixelwise.models.upsampling import argmax_upsampled, upsample

MINIMUM_SIZE = 32


@dataclass(frozen=True)
class Decoded:
    """What a decoder gives: logits at the network's own stride, before any resize, softmax or sigmoid."""

    logits: Float[Tensor, "B K h w"]
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """All that `create` needs to build a network again; it is kept beside the weights."""

    name: str
    classes: int
    bands: int
    options: dict[str, object] = field(default_factory=dict)


class Segmenter(nn.Module):
    """Any encoder joined to any decoder that fits.

    The encoder maps [B,C,H,W] to a list of feature maps, finest first, and has ``channels`` and ``strides``. The
    decoder maps that list to `Decoded`. Images are float and normalised as the network was trained.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.architecture = architecture

    def decode(self, image: Float[Tensor, "B C H W"]) -> Decoded:
        """Return logits at the network's own stride, and auxiliary outputs by name.

        Raises:
            DataError: another number of bands than the network's, or a side below 32 pixels.
        """
        bands, (height, width) = image.shape[1], image.shape[-2:]
        if bands != self.architecture.bands:
            raise DataError(
                f"The image has {bands} bands, but {self.architecture.name} was built for {self.architecture.bands}. "
                f"Pick bands, or create the model with bands={bands}."
            )
        if min(height, width) < MINIMUM_SIZE:
            raise DataError(
                f"The image is {width}x{height} pixels; {self.architecture.name} needs at least "
                f"{MINIMUM_SIZE}x{MINIMUM_SIZE}. Pad or enlarge it."
            )
        return self.decoder(self.encoder(image))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Return logits at the size of the image (bilinear, corners not aligned, as the papers evaluate)."""
        return upsample(self.decode(image).logits, image.shape[-2:])

    @torch.no_grad()
    def label_map(self, image: Float[Tensor, "B C H W"]) -> Integer[Tensor, "B H W"]:
        """Return the class of every pixel, uint8 (uint16 from 257 classes on); full-size logits are never built."""
        return argmax_upsampled(self.decode(image).logits, image.shape[-2:])[0]
