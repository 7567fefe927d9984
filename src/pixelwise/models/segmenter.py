"""What every network is from outside: an encoder and a decoder, and four ways to ask them."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from pixelwise.architecture import Architecture
from pixelwise.errors import DataError
from pixelwise.upsampling import argmax_upsampled, upsample

MINIMUM_SIZE = 32


@dataclass(frozen=True)
class Masks:
    """What a network says that answers with masks: Q masks, and what class each one is of."""

    masks: Float[Tensor, "B Q h w"]
    """Logits: a pixel is in the mask where its sigmoid is large."""
    classes: Float[Tensor, "B Q _"]
    """Logits of the K classes and, last, of none: the mask is not used."""


@dataclass(frozen=True)
class Decoded:
    """What a decoder gives: logits at the network's own stride, before any resize, softmax or sigmoid."""

    logits: Float[Tensor, "B K h w"]
    aux: dict[str, Tensor] = field(default_factory=dict)
    """Outputs of heads that only training needs. [B,K,h,w] are logits at any stride, [B,2] says if an image holds any
    class but the first."""
    features: Float[Tensor, "B D _ _"] | None = None
    """What the classifier saw, for those who set something beside it."""
    answers: tuple[Masks, ...] = ()
    """Of a network that answers with masks, from which its logits are made: in training an answer for each of several
    depths, the final one last. Its loss is of these, not of the logits."""


def answered(encoder: nn.Module, decoder: nn.Module, image: Float[Tensor, "B C H W"]) -> Decoded:
    """Return what an encoder and a decoder say of an image whose sides are multiples of what they ask for."""
    within = getattr(decoder, "within", None)
    return decoder(encoder(image)) if within is None else within(encoder, image)


class Segmenter(nn.Module):
    """Any encoder joined to any decoder that fits.

    The encoder maps [B,C,H,W] to a list of feature maps, finest first, and has ``channels`` and ``strides``. The
    decoder maps that list to `Decoded`. Images are float and normalised as the network was trained. Both may have

    * ``multiple``: sides of the image must be multiples of it, so `decode` pads with zeros, right and below;
    * ``align_corners`` (the decoder): how its logits are upsampled to full size;
    * ``aux_weights`` (the decoder): name of an auxiliary output -> its weight in the loss, as the paper has it;
    * ``within(encoder, image)`` (the decoder): it works inside the encoder, which is then not called by itself;
    * ``anneal(share)`` (the decoder): it changes while training goes on.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.architecture = architecture
        self.multiple = max(getattr(encoder, "multiple", 1), getattr(decoder, "multiple", 1))
        self.align_corners: bool = getattr(decoder, "align_corners", False)
        self.aux_weights: dict[str, float] = getattr(decoder, "aux_weights", {})

    def padded_size(self, size: tuple[int, int] | torch.Size) -> tuple[int, int]:
        """Return the height and width that the logits of an image of ``size`` stand for."""
        height, width = size
        return -(-height // self.multiple) * self.multiple, -(-width // self.multiple) * self.multiple

    def decode(self, image: Float[Tensor, "B C H W"]) -> Decoded:
        """Return logits at the network's own stride, and auxiliary outputs by name; they cover `padded_size`.

        Raises:
            DataError: another number of bands than the network's, or a side below 32 pixels.
        """
        bands, (height, width) = image.shape[1], image.shape[-2:]
        if bands != self.architecture.bands:
            raise DataError(
                f"The image has {bands} bands, but {self.architecture.name} was built for {self.architecture.bands}. "
                f"Pick bands, or create the model with bands={bands}.",
                code="PW406",
            )
        if min(height, width) < MINIMUM_SIZE:
            raise DataError(
                f"The image is {width}x{height} pixels; {self.architecture.name} needs at least "
                f"{MINIMUM_SIZE}x{MINIMUM_SIZE}. Pad or enlarge it.",
                code="PW408",
            )
        rows, columns = self.padded_size((height, width))
        if (rows, columns) != (height, width):
            image = F.pad(image, (0, columns - width, 0, rows - height))
        return answered(self.encoder, self.decoder, image)

    def anneal(self, share: float) -> None:
        """Tell a decoder that changes while training goes on how much of it is done, 0 to 1; others do not care."""
        anneal = getattr(self.decoder, "anneal", None)
        if anneal is not None:
            anneal(share)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Return logits at the size of the image (bilinear, as the network's authors evaluate)."""
        height, width = image.shape[-2:]
        full = upsample(self.decode(image).logits, self.padded_size((height, width)), align_corners=self.align_corners)
        return full[..., :height, :width]

    @torch.no_grad()
    def label_map(self, image: Float[Tensor, "B C H W"]) -> Integer[Tensor, "B H W"]:
        """Return the class of every pixel, uint8 (uint16 from 257 classes on); full-size logits are never built."""
        height, width = image.shape[-2:]
        size = self.padded_size((height, width))
        labels, _ = argmax_upsampled(self.decode(image).logits, size, align_corners=self.align_corners)
        return labels[:, :height, :width]
