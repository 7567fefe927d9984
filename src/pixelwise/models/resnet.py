"""ResNet: stages of bottlenecks around which the signal takes a shortcut.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385), with the stride in the 3x3
convolution of a bottleneck, as torchvision and all segmentation networks have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import ConvNorm, initialise_convolutions
from pixelwise.models.option_checks import require_one_of, require_whole_numbers


@dataclass(frozen=True)
class Variant:
    """A column of table 1."""

    depths: tuple[int, int, int, int]
    expansion: int
    """Channels of a bottleneck's output over those inside; 1: two 3x3 convolutions and no bottleneck."""


VARIANTS = {
    "18": Variant((2, 2, 2, 2), 1),
    "34": Variant((3, 4, 6, 3), 1),
    "50": Variant((3, 4, 6, 3), 4),
    "101": Variant((3, 4, 23, 3), 4),
    "152": Variant((3, 8, 36, 3), 4),
}

STEMS: dict[str, tuple[int, ...]] = {"7x7": (64,), "deep-64": (64, 64, 128), "deep-32": (32, 32, 64)}
"""Channels of the stem's convolutions: one 7x7 (the paper), or three 3x3 (PSPNet's release; ResNet-C)."""

DILATIONS = ("late", "whole")
"""In a stage that dilates instead of striding, the first unit keeps the dilation of the stage before (torchvision,
mmsegmentation), or has that of its own stage (PSPNet's release)."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (figure 5, left)."""

    def __init__(self, inputs: int, channels: int, *, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(inputs, channels, 3, stride=stride, dilation=dilation),
            ConvNorm(channels, channels, 3, dilation=dilation, activation=None),
        )
        self.shortcut = ConvNorm(inputs, channels, 1, stride=stride, activation=None) if project else nn.Identity()

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride]."""
        return F.relu(self.layers(image) + self.shortcut(image), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (figure 5, right)."""

    def __init__(self, inputs: int, channels: int, *, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        inner = channels // 4
        self.layers = nn.Sequential(
            ConvNorm(inputs, inner, 1),
            ConvNorm(inner, inner, 3, stride=stride, dilation=dilation),
            ConvNorm(inner, channels, 1, activation=None),
        )
        self.shortcut = ConvNorm(inputs, channels, 1, stride=stride, activation=None) if project else nn.Identity()

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride]."""
        return F.relu(self.layers(image) + self.shortcut(image), inplace=True)


class ResNet(nn.Module):
    """Stem and four stages. With ``output_stride`` 16 or 8, the last one or two stages dilate instead of striding."""

    def __init__(
        self, variant: Variant, bands: int, output_stride: int, stem: str, dilation: str, multi_grid: Sequence[int]
    ) -> None:
        super().__init__()
        widths = STEMS[stem]
        kernel = 7 if len(widths) == 1 else 3
        inputs = (bands, *widths)
        self.stem = nn.Sequential(
            *(ConvNorm(inputs[i], width, kernel, stride=2 if i == 0 else 1) for i, width in enumerate(widths))
        )
        strides, rates = {32: ((1, 2, 2, 2), (1, 1, 1, 1)), 16: ((1, 2, 2, 1), (1, 1, 1, 2))}.get(
            output_stride, ((1, 2, 1, 1), (1, 1, 2, 4))
        )
        outputs = [64 * 2**i * variant.expansion for i in range(4)]
        self.channels = (widths[-1], *outputs)
        self.strides = tuple(min(stride, output_stride) for stride in (2, 4, 8, 16, 32))
        block = BasicBlock if variant.expansion == 1 else Bottleneck
        self.stages = nn.ModuleList()
        width = widths[-1]
        for i in range(4):
            units = []
            for j in range(variant.depths[i]):
                if i == 3 and any(rate != 1 for rate in multi_grid):
                    rate = rates[i] * multi_grid[j % len(multi_grid)]
                elif dilation == "late" and j == 0:
                    rate = rates[i - 1] if i else 1
                else:
                    rate = rates[i]
                stride = strides[i] if j == 0 else 1
                project = j == 0 and (stride > 1 or width != outputs[i])
                units.append(block(width, outputs[i], stride=stride, dilation=rate, project=project))
                width = outputs[i]
            self.stages.append(nn.Sequential(*units))

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return five maps, finest first: the stem's before its pooling (stride 2), and those of the stages."""
        features = [self.stem(image)]
        image = F.max_pool2d(features[0], 3, 2, padding=1)
        for stage in self.stages:
            image = stage(image)
            features.append(image)
        return features


def resnet(
    variant: str,
    bands: int,
    *,
    output_stride: int = 32,
    stem: str = "7x7",
    dilation: str = "late",
    multi_grid: Sequence[int] = (1, 1, 1),
) -> ResNet:
    """Build the encoder ResNet with fresh weights.

    Args:
        variant: 18, 34, 50, 101 or 152.
        bands: of the image.
        output_stride: 32, or 16 or 8 with dilated last stages (DeepLabV3, section 3.1).
        stem: a name in `STEMS`.
        dilation: a name in `DILATIONS`.
        multi_grid: factors of the dilations of the last stage's units (DeepLabV3, section 3.2.1); where they are not
            all 1, the stage's first unit has its own rate too.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_one_of(f"resnet{variant}: output_stride", output_stride, (8, 16, 32))
    require_one_of(f"resnet{variant}: stem", stem, STEMS)
    require_one_of(f"resnet{variant}: dilation", dilation, DILATIONS)
    require_whole_numbers(f"resnet{variant}: multi_grid", multi_grid)
    encoder = ResNet(VARIANTS[variant], bands, output_stride, stem, dilation, multi_grid)
    encoder.apply(initialise_convolutions)
    return encoder
