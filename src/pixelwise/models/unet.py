"""U-Net: an encoder that halves, a decoder that doubles, and what was seen on the way down handed across.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015
(arXiv 1505.04597). Convolutions are padded, as in all releases, so that the map has the size of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import ConvNorm, initialise_by_inputs, initialise_classifier, over_joined
from pixelwise.models.option_checks import require_one_of, require_true_or_false, require_whole_numbers
from pixelwise.models.segmenter import Decoded
from pixelwise.upsampling import recorded


@dataclass(frozen=True)
class Release:
    """What the published versions do differently."""

    filters: tuple[int, ...]
    """Channels from the finest level to the coarsest."""
    bias: bool
    """Of the 3x3 convolutions."""
    batch_norm: bool
    upsampling: str
    """bilinear, with aligned corners, or transposed: a 2x2 convolution of stride 2 to the channels of the level."""
    skip_first: bool
    """The skip stands before the upsampled map when they are joined."""
    dropout: float = 0.0
    """After each convolution, in training."""
    multiple: int = 1
    """Sides of an image are padded to multiples of it; 1: the decoder pads upsampled maps with zeros instead."""


RELEASES = {
    "milesial": Release((64, 128, 256, 512, 1024), False, True, "bilinear", True),
    "nested": Release((32, 64, 128, 256, 512), True, True, "bilinear", True, multiple=16),
    "keras2018": Release((32, 64, 128, 256, 512), True, False, "transposed", False, dropout=0.5, multiple=16),
    "unet3p": Release((64, 128, 256, 512, 1024), True, True, "bilinear", True, multiple=16),
}


class DoubleConvolution(nn.Module):
    """Two 3x3 convolutions, each with a ReLU and, mostly, a batch norm."""

    def __init__(self, inputs: int, inner: int, outputs: int, release: Release) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, inner, 3, bias=release.bias, norm=release.batch_norm)
        self.second = ConvNorm(inner, outputs, 3, bias=release.bias, norm=release.batch_norm)
        self.dropout = nn.Dropout(release.dropout)

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]], size: torch.Size) -> Float[Tensor, "B D H W"]:
        """Return a map of ``size`` (height, width), to which maps are resized with aligned corners, and joined."""
        joined = over_joined(self.first, maps, size, align_corners=True)
        return self.dropout(self.second(self.dropout(joined)))


class Upsampling(nn.Module):
    """Doubles a map; what is missing to a finer map's size is padded with zeros, what is too much is cut."""

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.outputs = outputs if kind == "transposed" else inputs
        self.enlarge = nn.ConvTranspose2d(inputs, outputs, 2, 2) if kind == "transposed" else None

    def forward(self, image: Float[Tensor, "B C h w"], size: torch.Size) -> Float[Tensor, "B D _ _"]:
        """Return a map of ``size`` (height, width); or as it was, where aligned bilinear resizing makes that of it."""
        if self.enlarge is None:
            if not recorded() and size == (2 * image.shape[-2], 2 * image.shape[-1]):
                return image
            large = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=True)
        else:
            large = self.enlarge(image)
        below, right = size[0] - large.shape[-2], size[1] - large.shape[-1]
        if not recorded() and below == 0 and right == 0:
            return large
        # Padding is shared out to both sides, cutting takes the last row and column.
        top, left = max(0, below) // 2, max(0, right) // 2
        return F.pad(large, (left, right - left, top, below - top))


class PlainEncoder(nn.Module):
    """Double convolutions with max pooling between them: strides 1, 2, 4, 8 and 16."""

    def __init__(self, bands: int, filters: Sequence[int], release: Release, multiple: int) -> None:
        super().__init__()
        self.channels = tuple(filters)
        self.strides = tuple(2**i for i in range(len(filters)))
        self.multiple = multiple
        self.stages = nn.ModuleList(
            DoubleConvolution(inputs, outputs, outputs, release) for inputs, outputs in pairwise((bands, *filters))
        )

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return a map per level, finest first; odd sizes are rounded down."""
        features = []
        for i, stage in enumerate(self.stages):
            image = image if i == 0 else F.max_pool2d(image, 2)
            image = stage([image], image.shape[-2:])
            features.append(image)
        return features


class UNetDecoder(nn.Module):
    """From the coarsest level up: double the size, join the encoder's map, convolve twice (figure 1)."""

    def __init__(self, channels: Sequence[int], classes: int, release: Release, halving: bool) -> None:
        super().__init__()
        self.skip_first = release.skip_first
        self.upsamplings, self.stages = nn.ModuleList(), nn.ModuleList()
        width = channels[-1]
        for i in range(len(channels) - 2, -1, -1):
            upsampling = Upsampling(width, channels[i], release.upsampling)
            joined = channels[i] + upsampling.outputs
            # With bilinear upsampling milesial's levels hand on half of their channels, all but the last.
            width = max(1, channels[i] // 2) if halving and i else channels[i]
            inner = joined // 2 if halving else width
            self.upsamplings.append(upsampling)
            self.stages.append(DoubleConvolution(joined, inner, width, release))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map: at full size for the plain encoder."""
        signal = features[-1]
        for upsampling, stage, skip in zip(self.upsamplings, self.stages, features[-2::-1], strict=True):
            size = skip.shape[-2:]
            large = upsampling(signal, size)
            signal = stage([skip, large] if self.skip_first else [large, skip], size)
        return Decoded(self.classifier(signal), features=signal)


def unet_encoder(
    bands: int,
    *,
    release: str = "milesial",
    batch_norm: bool | None = None,
    upsampling: str | None = None,
    filters: Sequence[int] = (),
    level: int = 4,
) -> PlainEncoder:
    """Build the plain encoder of U-Net, UNet++ and UNet 3+ with fresh weights.

    Args:
        bands: of the image.
        release: whose, a name in `RELEASES`.
        batch_norm: with or without; None: as the release.
        upsampling: "bilinear" or "transposed", that of the decoder; None: as the release. With the former, milesial's
            last level has half of its channels.
        filters: channels from the finest level to the coarsest; empty: as the release.
        level: number of the coarsest level, 1 to 4; lower in a pruned network.

    Raises:
        ConfigError: an option that is wrong.
    """
    about = chosen_release(release, batch_norm, upsampling)
    widths = list(require_whole_numbers("U-Net's filters", filters or about.filters))
    if release == "milesial" and about.upsampling == "bilinear" and not filters:
        widths[-1] //= 2
    if len(widths) < 2:
        raise ConfigError(f"U-Net's filters are at least two numbers, not {widths!r}.")
    require_one_of("U-Net's level (how often the map is halved)", level, (1, 2, 3, 4))
    # A pruned network pads as the whole one does, so that its answers are the same at every size.
    multiple = min(about.multiple, 2 ** (len(widths) - 1))
    encoder = PlainEncoder(bands, widths[: level + 1], about, multiple)
    encoder.apply(initialise_by_inputs)
    return encoder


def unet(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    release: str = "milesial",
    batch_norm: bool | None = None,
    upsampling: str | None = None,
) -> UNetDecoder:
    """Build the decoder of U-Net with fresh weights, for an encoder whose strides double from map to map.

    Args:
        channels, strides: of the encoder's maps.
        release, batch_norm, upsampling: as for `unet_encoder`.

    Raises:
        ConfigError: an option that is wrong, or other strides.
    """
    about = chosen_release(release, batch_norm, upsampling)
    require_doubling("U-Net", strides)
    decoder = UNetDecoder(channels, classes, about, release == "milesial" and about.upsampling == "bilinear")
    decoder.apply(initialise_by_inputs)
    initialise_classifier(decoder.classifier)
    return decoder


def chosen_release(release: str, batch_norm: bool | None, upsampling: str | None) -> Release:
    """Return a release, with what a user wants otherwise; convolutions without a batch norm have a bias.

    Raises:
        ConfigError: an unknown release or upsampling.
    """
    require_one_of("U-Net's release", release, RELEASES)
    if batch_norm is not None:
        require_true_or_false("U-Net's batch_norm", batch_norm)
    if upsampling is not None:
        require_one_of("U-Net's upsampling", upsampling, ("bilinear", "transposed"))
    about = RELEASES[release]
    normed = about.batch_norm if batch_norm is None else batch_norm
    return replace(about, batch_norm=normed, bias=about.bias or not normed, upsampling=upsampling or about.upsampling)


def require_doubling(name: str, strides: Sequence[int]) -> None:
    """Check that each map has half the size of the one before.

    Raises:
        ConfigError: it has not.
    """
    if len(strides) < 2 or any(b != 2 * a for a, b in pairwise(strides)):
        raise ConfigError(
            f"{name} climbs a pyramid whose maps double in size, and this encoder's maps have the strides "
            f"{list(strides)}. Take an encoder such as resnet18, hardnet-68 or mit-b0, without output_stride.",
            code="PW308",
        )
