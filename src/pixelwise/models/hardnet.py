"""HarDNet: dense blocks whose layers keep few links, so that little is read from memory.

Chao et al., HarDNet: A Low Memory Traffic Network, ICCV 2019 (arXiv 1909.00948): the encoders HarDNet-39DS, 68 and 85,
and FC-HarDNet, a U-shaped network of the same blocks (section 4.2). `models.cio` counts the traffic as the paper does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import ConvNorm, initialise_by_inputs, initialise_classifier, over_joined
from pixelwise.models.option_checks import require_one_of, require_whole_numbers, sizes_of
from pixelwise.models.same_padding import pad_as_same
from pixelwise.models.segmenter import Decoded


@dataclass(frozen=True)
class Variant:
    """A column of the table of architectures."""

    stem: tuple[int, ...]
    """Channels of the first 3x3 convolutions."""
    stem_strides: tuple[int, ...]
    channels: tuple[int, ...]
    """Of the 1x1 convolution after each block."""
    growth: tuple[int, ...]
    """k of each block."""
    layers: tuple[int, ...]
    """L of each block."""
    halved: tuple[bool, ...]
    """If the map is halved after each block and its 1x1 convolution."""
    weighting: float
    """m, by which a layer grows for each link but the first."""
    pooling: str
    """What halves: "max", "average", or "depthwise" (a strided depthwise convolution)."""
    stem_pooling: bool = True
    """If the stem's map is halved too."""
    separable: bool = False
    """Each 3x3 convolution is a 1x1 and a depthwise 3x3 one, and the stem's second one is 1x1 (HarDNet-DS)."""
    skips: str = "transitions"
    """What each resolution hands on: its last block's output ("blocks"), or that after the 1x1 convolution."""
    ceiling: bool = True
    """Rectifiers end at 6."""
    same: bool = False
    """Strided convolutions pad as `same_padding` says."""


VARIANTS = {
    "hardnet-39ds": Variant(
        stem=(24, 48),
        stem_strides=(2, 1),
        channels=(96, 320, 640, 1024),
        growth=(16, 20, 64, 160),
        layers=(4, 16, 8, 4),
        halved=(True, True, True, False),
        weighting=1.6,
        pooling="depthwise",
        separable=True,
    ),
    "hardnet-68": Variant(
        stem=(32, 64),
        stem_strides=(2, 1),
        channels=(128, 256, 320, 640, 1024),
        growth=(14, 16, 20, 40, 160),
        layers=(8, 16, 16, 16, 4),
        halved=(True, False, True, True, False),
        weighting=1.7,
        pooling="max",
    ),
    "hardnet-85": Variant(
        stem=(48, 96),
        stem_strides=(2, 1),
        channels=(192, 256, 320, 480, 720, 1280),
        growth=(24, 24, 28, 36, 48, 256),
        layers=(8, 16, 16, 16, 16, 4),
        halved=(True, False, True, False, True, False),
        weighting=1.7,
        pooling="max",
    ),
    "fchardnet-70": Variant(
        stem=(16, 24, 32, 48),
        stem_strides=(2, 1, 2, 1),
        channels=(64, 96, 160, 224, 320),
        growth=(10, 16, 18, 24, 32),
        layers=(4, 4, 8, 8, 8),
        halved=(True, True, True, True, False),
        weighting=1.7,
        pooling="average",
        stem_pooling=False,
        skips="blocks",
        ceiling=False,
    ),
}
VARIANTS["fchardnet-70-paddleseg"] = replace(VARIANTS["fchardnet-70"], stem_strides=(1, 1, 2, 1), same=True)


def links(layer: int) -> list[int]:
    """Return the layers that layer ``layer`` >= 1 reads, nearest first; 0 is the block's input.

    Layer l is linked to l - 2^n for every n whose 2^n divides l (section 3, figure 1).
    """
    return [layer - 2**n for n in range(layer.bit_length()) if layer % 2**n == 0]


def layer_channels(growth: int, weighting: float, layer: int) -> int:
    """Return the channels of layer ``layer`` >= 1: k m^n, where 2^n is the largest power that divides it, made even."""
    channels = float(growth)
    for _ in links(layer)[1:]:
        channels *= weighting
    return int(int(channels + 1) / 2) * 2 if len(links(layer)) > 1 else growth


class HarDBlock(nn.Module):
    """L layers with harmonic links; the odd ones and the last one together are the output (section 3)."""

    def __init__(
        self, inputs: int, growth: int, weighting: float, layers: int, *, separable: bool, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        widths = [inputs, *(layer_channels(growth, weighting, layer) for layer in range(1, layers + 1))]
        self.links = [links(layer) for layer in range(1, layers + 1)]
        self.kept = [layer for layer in range(1, layers + 1) if layer % 2 == 1 or layer == layers]
        self.layers = nn.ModuleList()
        for layer, sources in enumerate(self.links, 1):
            width, output = sum(widths[source] for source in sources), widths[layer]
            self.layers.append(
                _separable(width, output) if separable else ConvNorm(width, output, activation=activation)
            )
        self.outputs = sum(widths[layer] for layer in self.kept)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """Return the kept layers, the first one first."""
        maps = [image]
        for layer, sources in zip(self.layers, self.links, strict=True):
            read = [maps[source] for source in sources]
            maps.append(layer(read[0] if len(read) == 1 else torch.cat(read, dim=1)))
        return torch.cat([maps[layer] for layer in self.kept], dim=1)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        ConvNorm(inputs, outputs, 1, activation=nn.ReLU6),
        ConvNorm(outputs, outputs, 3, groups=outputs, activation=None),
    )


class Halving(nn.Module):
    """Pooling over 2x2 squares, maximum or mean; sizes round down, but a side of one pixel stays."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Return [B,C,H/2,W/2]."""
        window = [min(2, side) for side in image.shape[-2:]]
        return F.max_pool2d(image, window) if self.kind == "max" else F.avg_pool2d(image, window)


class HarDNet(nn.Module):
    """Stem, and blocks each with a 1x1 convolution after it, halved in between (section 4)."""

    def __init__(self, variant: Variant, bands: int) -> None:
        super().__init__()
        activation = nn.ReLU6 if variant.ceiling else nn.ReLU
        self.skips = variant.skips
        self.stem = nn.ModuleList()
        width, stride, maps = bands, 1, {}
        for i, outputs in enumerate(variant.stem):
            kernel = 1 if variant.separable and i else 3
            self.stem.append(
                ConvNorm(width, outputs, kernel, stride=variant.stem_strides[i], activation=activation),
            )
            width, stride = outputs, stride * variant.stem_strides[i]
            maps[stride] = (width, i)
        found = {2: maps[2][0]}
        self.halvings = nn.ModuleList([_stem_halving(width, variant)])
        stride *= 2 if variant.stem_pooling else 1
        self.stem_map = maps[2][1] if stride > 2 else None  # else the first block's takes its place
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        self.last: list[bool] = []
        for i, outputs in enumerate(variant.channels):
            block = HarDBlock(
                width,
                variant.growth[i],
                variant.weighting,
                variant.layers[i],
                separable=variant.separable,
                activation=activation,
            )
            self.blocks.append(block)
            self.transitions.append(ConvNorm(block.outputs, outputs, 1, activation=activation))
            width, end = outputs, i == len(variant.channels) - 1
            # Of several blocks at one resolution the last one hands its map on.
            self.last.append(variant.halved[i] or end)
            found[stride] = block.outputs if variant.skips == "blocks" and not end else outputs
            self.halvings.append(_halving(width, variant) if variant.halved[i] else nn.Identity())
            stride *= 2 if variant.halved[i] else 1
        self.channels, self.strides = tuple(found.values()), tuple(found)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the stem's (or first block's) map of stride 2, and one of each further resolution, finest first."""
        features = []
        for i, layer in enumerate(self.stem):
            image = layer(image)
            if i == self.stem_map:
                features.append(image)
        image = self.halvings[0](image)
        for i, (block, transition) in enumerate(zip(self.blocks, self.transitions, strict=True)):
            dense = block(image)
            image = transition(dense)
            if self.last[i]:
                features.append(dense if self.skips == "blocks" and i < len(self.blocks) - 1 else image)
            image = self.halvings[i + 1](image)
        return features


def _stem_halving(width: int, variant: Variant) -> nn.Module:
    if not variant.stem_pooling:
        return nn.Identity()
    return nn.MaxPool2d(3, 2, padding=1) if variant.pooling == "max" else _halving(width, variant)


def _halving(width: int, variant: Variant) -> nn.Module:
    if variant.pooling == "depthwise":
        return ConvNorm(width, width, 3, stride=2, groups=width, activation=None)
    return Halving(variant.pooling)


class Join(nn.Module):
    """Upsamples the coarse map to the skip's size, sets it before the skip and halves their channels (1x1)."""

    def __init__(self, coarse: int, skip: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.mix = ConvNorm(coarse + skip, (coarse + skip) // 2, 1)

    def forward(self, coarse: Float[Tensor, "B C h w"], skip: Float[Tensor, "B S H W"]) -> Float[Tensor, "B D H W"]:
        """Return a map of the skip's size."""
        return over_joined(self.mix, [coarse, skip], skip.shape[-2:], align_corners=self.align_corners)


class HarDNetDecoder(nn.Module):
    """The second half of FC-HarDNet (section 4.2): from the coarsest map up, join with a skip, and a HarDNet block."""

    def __init__(
        self,
        inputs: Sequence[int],
        classes: int,
        *,
        growth: Sequence[int],
        layers: Sequence[int],
        weighting: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.joins, self.blocks = nn.ModuleList(), nn.ModuleList()
        width = inputs[-1]
        for i in range(len(inputs) - 2, -1, -1):
            self.joins.append(Join(width, inputs[i], align_corners))
            half = (width + inputs[i]) // 2
            block = HarDBlock(half, growth[i], weighting, layers[i], separable=False, activation=nn.ReLU)
            self.blocks.append(block)
            width = block.outputs
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at stride 4."""
        features = features[-len(self.joins) - 1 :]
        image = features[-1]
        for join, block, skip in zip(self.joins, self.blocks, features[-2::-1], strict=True):
            image = block(join(image, skip))
        return Decoded(self.classifier(image), features=image)


def hardnet(
    variant: str,
    bands: int,
    *,
    widths: Sequence[int] = (),
    depths: Sequence[int] = (),
    growths: Sequence[int] = (),
) -> HarDNet:
    """Build an encoder HarDNet with fresh weights.

    Args:
        variant: a name in `VARIANTS`.
        bands: of the image.
        widths: channels of the 1x1 convolution after each block, at least 1 each; empty: as the variant.
        depths: L, the layers of each block, at least 1 each; empty: as the variant.
        growths: k of each block, at least 2 each; empty: as the variant.

    Raises:
        ConfigError: an option that is wrong.
    """
    own = VARIANTS[variant]
    sizes = replace(
        own,
        channels=sizes_of(f"{variant}: widths", widths, own.channels),
        layers=sizes_of(f"{variant}: depths", depths, own.layers),
        growth=sizes_of(f"{variant}: growths", growths, own.growth, least=2),
    )
    encoder = HarDNet(sizes, bands)
    # By inputs: dense layers read many more channels than they give, so by outputs the signal would grow at each.
    encoder.apply(initialise_by_inputs)
    if own.same:
        pad_as_same(encoder)
    return encoder


def fc_hardnet(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    growth: Sequence[int] = (10, 16, 18, 24),
    layers: Sequence[int] = (4, 4, 8, 8),
    weighting: float = 1.7,
    align_corners: bool = True,
    finest: int = 4,
) -> HarDNetDecoder:
    """Build the decoder of FC-HarDNet with fresh weights, for maps of strides 4, 8, 16 ... of any encoder.

    Args:
        channels, strides: of the encoder's maps.
        growth: k of the blocks at strides 4, 8, 16 and 32, at least 2 each; those that the encoder lacks are unused.
        layers: L of these blocks, at least 1 each.
        weighting: m, at least 1; the paper has 1.6 to 1.9.
        align_corners: how maps, and logits, are upsampled.
        finest: stride of the finest map that is joined, 4 (the authors) or 2 (PaddleSeg).

    Raises:
        ConfigError: an option that is wrong, or an encoder whose maps do not double their strides from 4 on.
    """
    require_one_of("FC-HarDNet's finest", finest, (2, 4))
    taken = [(width, stride) for width, stride in zip(channels, strides, strict=True) if stride >= finest]
    steps = [stride for _, stride in taken]
    if len(steps) < 2 or steps != [finest * 2**i for i in range(len(steps))]:
        raise ConfigError(
            f"The decoder of FC-HarDNet joins maps of strides 4, 8, 16 and so on, but this encoder's are "
            f"{', '.join(map(str, strides))}. Take an encoder such as hardnet-68, resnet50 or mit-b0, undilated.",
            code="PW308",
        )
    for name, values, least in (("growth", growth, 2), ("layers", layers, 1)):
        require_whole_numbers(f"FC-HarDNet's {name}", values, least=least)
        if len(values) < len(taken) - 1:
            raise ConfigError(
                f"FC-HarDNet's {name} needs a number for each of the {len(taken) - 1} blocks, not {list(values)!r}."
            )
    if not isinstance(weighting, int | float) or not 1 <= weighting < math.inf:
        raise ConfigError(f"FC-HarDNet's weighting is a number from 1 on, not {weighting!r}.")
    inputs = [width for width, _ in taken]
    decoder = HarDNetDecoder(
        inputs, classes, growth=growth, layers=layers, weighting=weighting, align_corners=align_corners
    )
    decoder.apply(initialise_by_inputs)
    initialise_classifier(decoder.classifier)
    return decoder
