"""EfficientNet-Lite0: inverted residual blocks of a searched table, without what small devices lack.

Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019 (arXiv 1905.11946), table
1. The Lite variant (Google, 2020) leaves squeeze-and-excitation out and has ReLU6 instead of swish.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import BatchNorm, ConvNorm, DropPath, drop_path_chances, initialise_convolutions
from pixelwise.models.option_checks import require_chance

STEM = 32
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and channels of each stage (table 1)."""

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
    channels = (16, 24, 40, 112, 320)

    def __init__(self, bands: int, drop_path: float) -> None:
        super().__init__()
        self.stem = StridedConvNorm(bands, STEM, 3)
        chances = iter(drop_path_chances(drop_path, sum(stage[0] for stage in STAGES)))
        self.stages = nn.ModuleList()
        width = STEM
        for count, kernel, stride, expansion, outputs in STAGES:
            blocks = []
            for j in range(count):
                step = stride if j == 0 else 1
                blocks.append(InvertedResidual(width, outputs, kernel, step, expansion, next(chances)))
                width = outputs
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return five maps [B,D,H/s,W/s], finest first; sizes round up."""
        features = []
        image = self.stem(image)
        for i, stage in enumerate(self.stages):
            image = stage(image)
            if i == len(STAGES) - 1 or STAGES[i + 1][2] == 2:
                features.append(image)
        return features


def efficientnet_lite0(bands: int, *, drop_path: float = 0.2) -> EfficientNet:
    """Build the encoder EfficientNet-Lite0 with fresh weights.

    Args:
        bands: of the image.
        drop_path: chance of the last block to be left out in training, 0 to below 1; earlier blocks' grow up to it.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_chance("efficientnet-lite0: drop_path", drop_path)
    encoder = EfficientNet(bands, drop_path)
    encoder.apply(initialise_convolutions)
    return encoder
