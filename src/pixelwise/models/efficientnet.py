"""EfficientNet-Lite0 to Lite4: inverted residual blocks of a searched table, without what small devices lack.

Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019 (arXiv 1905.11946), table
1 and the compound scaling of section 3.3. The Lite variants (Google, 2020) leave squeeze-and-excitation out, have ReLU6
instead of swish, and scale neither the stem nor the number of blocks in the first and the last stage.
"""

import math
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import BatchNorm, ConvNorm, DropPath, drop_path_chances, initialise_convolutions
from pixelwise.models.option_checks import require_chance

STEM = 32


class Stage(NamedTuple):
    """A row of table 1: blocks of one kind, of which the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""Of the smallest network."""


class Scaling(NamedTuple):
    """How much wider and deeper a variant is than the smallest."""

    width: float
    depth: float


VARIANTS = {
    "lite0": Scaling(1.0, 1.0),
    "lite1": Scaling(1.0, 1.1),
    "lite2": Scaling(1.1, 1.2),
    "lite3": Scaling(1.2, 1.4),
    "lite4": Scaling(1.4, 1.8),
}


def scaled_stages(variant: str) -> tuple[Stage, ...]:
    """Return the stages of a name in `VARIANTS`.

    Channels become multiples of 8, the next one if that loses more than a tenth (the rule of MobileNet's successors);
    numbers of blocks round up.
    """
    width, depth = VARIANTS[variant]
    scaled = []
    for i, stage in enumerate(STAGES):
        channels = int(stage.channels * width + 4) // 8 * 8
        channels += 8 if channels < 0.9 * stage.channels * width else 0
        inner = 0 < i < len(STAGES) - 1
        blocks = math.ceil(stage.blocks * depth) if inner else stage.blocks
        scaled.append(stage._replace(blocks=blocks, channels=channels))
    return tuple(scaled)


EPSILON = 1e-3


class StridedConvNorm(nn.Module):
    """A convolution of stride 2, a batch norm and a ReLU6, padded as TensorFlow does ("SAME").

    There a pixel that is missing to whole strides is added at the right and below, so an image of even size is padded
    less on the left than a kernel's half.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__()
        self.kernel = kernel
        self.convolution: nn.Module = nn.Conv2d(inputs, outputs, kernel, 2, groups=groups, bias=False)
        self.norm: nn.Module = BatchNorm(outputs, eps=EPSILON)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/2,W/2], sizes rounded up."""
        height, width = image.shape[-2:]
        rows, columns = self.kernel - 2 + height % 2, self.kernel - 2 + width % 2
        image = F.pad(image, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.relu6(self.norm(self.convolution(image)))


class InvertedResidual(nn.Module):
    """Expand (1x1), a depthwise convolution, project (1x1); and around them a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop_path: float) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Identity() if expansion == 1 else _brick(inputs, inner, 1)
        self.depthwise = (
            _brick(inner, inner, kernel, groups=inner)
            if stride == 1
            else StridedConvNorm(inner, inner, kernel, groups=inner)
        )
        self.project = ConvNorm(inner, outputs, 1, activation=None, epsilon=EPSILON)
        self.shortcut = stride == 1 and inputs == outputs
        self.drop_path = DropPath(drop_path)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride]."""
        branch = self.project(self.depthwise(self.expand(image)))
        return self.drop_path(image, branch) if self.shortcut else branch


def _brick(inputs: int, outputs: int, kernel: int, *, groups: int = 1) -> ConvNorm:
    return ConvNorm(inputs, outputs, kernel, groups=groups, activation=nn.ReLU6, epsilon=EPSILON)


class EfficientNet(nn.Module):
    """Stem and seven stages; of the stages of one resolution the last one's map counts."""

    strides = (2, 4, 8, 16, 32)

    def __init__(self, bands: int, stages: tuple[Stage, ...], drop_path: float) -> None:
        super().__init__()
        self.stem = StridedConvNorm(bands, STEM, 3)
        # Where the next stage halves the map, or there is none.
        self.taken = [i for i in range(len(stages)) if i == len(stages) - 1 or stages[i + 1].stride == 2]
        self.channels = tuple(stages[i].channels for i in self.taken)
        chances = iter(drop_path_chances(drop_path, sum(stage.blocks for stage in stages)))
        self.stages = nn.ModuleList()
        width = STEM
        for stage in stages:
            blocks = []
            for j in range(stage.blocks):
                stride = stage.stride if j == 0 else 1
                blocks.append(
                    InvertedResidual(width, stage.channels, stage.kernel, stride, stage.expansion, next(chances))
                )
                width = stage.channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return five maps [B,D,H/s,W/s], finest first; sizes round up."""
        features = []
        image = self.stem(image)
        for i, stage in enumerate(self.stages):
            image = stage(image)
            if i in self.taken:
                features.append(image)
        return features


def efficientnet(variant: str, bands: int, *, drop_path: float = 0.2) -> EfficientNet:
    """Build an encoder EfficientNet-Lite with fresh weights.

    Args:
        variant: a name in `VARIANTS`.
        bands: of the image.
        drop_path: chance of the last block to be left out in training, 0 to below 1; earlier blocks' grow up to it.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_chance(f"efficientnet-{variant}: drop_path", drop_path)
    encoder = EfficientNet(bands, scaled_stages(variant), drop_path)
    encoder.apply(initialise_convolutions)
    return encoder
