"""Object-contextual representations: each pixel asks the regions of all classes what they look like here.

Yuan, Chen, Wang: Object-Contextual Representations for Semantic Segmentation, ECCV 2020 (arXiv 1909.11065). Sections
and equations below are of that paper.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import ConvNorm, initialise_classifier, initialise_convolutions, over_joined
from pixelwise.models.option_checks import require_whole_number
from pixelwise.models.segmenter import Decoded


class ObjectContext(nn.Module):
    """From pixels and soft regions to pixels that know their context (section 3.2, eq. 2 to 5)."""

    def __init__(self, channels: int, key_channels: int, dropout: float) -> None:
        super().__init__()
        self.query = nn.Sequential(ConvNorm(channels, key_channels, 1), ConvNorm(key_channels, key_channels, 1))
        self.key = nn.Sequential(ConvNorm(channels, key_channels, 1), ConvNorm(key_channels, key_channels, 1))
        self.value = ConvNorm(channels, key_channels, 1)
        self.out = ConvNorm(key_channels, channels, 1)
        self.augment = ConvNorm(2 * channels, channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.scale = key_channels**-0.5

    def forward(self, pixels: Float[Tensor, "B C h w"], regions: Float[Tensor, "B K h w"]) -> Float[Tensor, "B C h w"]:
        """Return augmented pixels.

        Args:
            regions: logits; their softmax over all places is a class's soft region.
        """
        height, width = pixels.shape[-2:]
        places = pixels.flatten(2)
        objects = places @ regions.flatten(2).softmax(dim=2).transpose(1, 2)
        objects = objects[..., None]
        query = self.query(pixels).flatten(2).transpose(1, 2)
        key, value = self.key(objects).flatten(2), self.value(objects).flatten(2)
        relation = torch.softmax(query @ key * self.scale, dim=-1)
        context = (relation @ value.transpose(1, 2)).transpose(1, 2).unflatten(2, (height, width))
        return self.dropout(over_joined(self.augment, [self.out(context), pixels], (height, width)))


class OCRDecoder(nn.Module):
    """Coarse regions from all maps at the finest size, pixels from the same, their context, and a classifier."""

    def __init__(
        self, inputs: Sequence[int], channels: int, key_channels: int, classes: int, *, align_corners: bool, bias: bool
    ) -> None:
        super().__init__()
        width = sum(inputs)
        self.count, self.align_corners = len(inputs), align_corners
        self.aux_weights = {"regions": 0.4}
        self.with_aux = True
        self.regions = nn.Sequential(ConvNorm(width, width, 1, bias=bias), nn.Conv2d(width, classes, 1))
        self.pixels = ConvNorm(width, channels, 3, bias=bias)
        self.context = ObjectContext(channels, key_channels, dropout=0.05)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map, and those of the regions."""
        maps = features[-self.count :]
        size = maps[0].shape[-2:]
        mix, classify = self.regions
        regions = classify(over_joined(mix, maps, size, align_corners=self.align_corners))
        mixed = self.context(over_joined(self.pixels, maps, size, align_corners=self.align_corners), regions)
        return Decoded(self.classifier(mixed), {"regions": regions} if self.with_aux else {}, mixed)


def ocr(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 512,
    key_channels: int = 256,
    align_corners: bool = True,
    mix_bias: bool = True,
) -> OCRDecoder:
    """Build the decoder with fresh weights, for the maps of an encoder from stride 4 on.

    Args:
        channels, strides: of the encoder's maps.
        decoder_channels: of pixels and objects.
        key_channels: of queries, keys and values.
        align_corners: how maps, and logits, are upsampled; True in the authors' release, with HRNet's encoder alike.
        mix_bias: the convolutions on the joined maps have biases (the authors' release) or none (mmsegmentation).

    Raises:
        ConfigError: an option that is wrong.
    """
    require_whole_number("OCR's decoder_channels", decoder_channels)
    require_whole_number("OCR's key_channels", key_channels)
    inputs = [width for width, stride in zip(channels, strides, strict=True) if stride >= 4]
    decoder = OCRDecoder(inputs, decoder_channels, key_channels, classes, align_corners=align_corners, bias=mix_bias)
    decoder.apply(initialise_convolutions)
    initialise_classifier(decoder.classifier)
    initialise_classifier(decoder.regions[-1])
    return decoder
