"""HRNet: branches at four resolutions side by side, which exchange what they see again and again.

Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI 2020 (arXiv 1908.07919).
Sections and equations below are of that paper.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import (
    ConvNorm,
    block_means,
    initialise_classifier,
    initialise_convolutions,
    over_joined,
    resize,
)
from pixelwise.models.option_checks import require_one_of, require_whole_number
from pixelwise.models.resnet import BasicBlock, Bottleneck
from pixelwise.models.same_padding import pad_as_same
from pixelwise.models.segmenter import Decoded

WIDTHS = ("18", "30", "32", "40", "44", "48", "64")
"""Channels of the finest branch; those of the others double with each halving of the resolution."""
MODULES = (1, 4, 3)
"""How often the branches exchange in stages 2, 3 and 4 (section 3.1)."""
UNNORMED = 0.001
"""Deviation of the first weights of a classifier that reads the branches, whose sums no norm follows."""


class Exchange(nn.Module):
    """Four residual blocks in each branch, then each output is the sum of all branches (section 3.1, figure 4)."""

    def __init__(self, widths: Sequence[int], outputs: int, upsampling: str, align_corners: bool) -> None:
        super().__init__()
        self.upsampling, self.align_corners = upsampling, align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width, stride=1, dilation=1, project=False) for _ in range(4)))
            for width in widths
        )
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(len(widths))) for target in range(outputs)
        )

    def forward(self, branches: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return as many maps as there are outputs, each of the size of the branch in its place."""
        branches = [blocks(branch) for blocks, branch in zip(self.branches, branches, strict=True)]
        return [F.relu(self._sum(paths, branches, i)) for i, paths in enumerate(self.paths)]

    def _sum(self, paths: nn.Module, branches: list[Tensor], target: int) -> Tensor:
        assert isinstance(paths, nn.ModuleList)
        size = branches[target].shape[-2:]
        total: Tensor | None = None
        for path, branch in zip(paths, branches, strict=True):
            part = path(branch)
            if part.shape[-2:] != size and self.upsampling == "nearest":
                part = F.interpolate(part, size=size, mode="nearest")
            elif part.shape[-2:] != size:
                part = resize(part, size, align_corners=self.align_corners)
            total = part if total is None else total + part
        assert total is not None
        return total


class HRNet(nn.Module):
    """Stem, a first stage of bottlenecks at stride 4, and three stages with two, three and four branches."""

    def __init__(self, width: int, bands: int, upsampling: str, align_corners: bool, finest_only: bool) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.channels = tuple(widths[:1] if finest_only else widths)
        self.strides = (4,) if finest_only else (4, 8, 16, 32)
        self.stem = nn.Sequential(ConvNorm(bands, 64, 3, stride=2), ConvNorm(64, 64, 3, stride=2))
        self.first = nn.Sequential(
            *(Bottleneck(64 if i == 0 else 256, 256, stride=1, dilation=1, project=i == 0) for i in range(4))
        )
        # The first transition makes both branches of stage 2; later ones add a branch below the last.
        self.transitions = nn.ModuleList(
            [
                nn.ModuleList([ConvNorm(256, widths[0], 3), ConvNorm(256, widths[1], 3, stride=2)]),
                nn.ModuleList([ConvNorm(widths[1], widths[2], 3, stride=2)]),
                nn.ModuleList([ConvNorm(widths[2], widths[3], 3, stride=2)]),
            ]
        )
        self.stages = nn.ModuleList()
        for i, modules in enumerate(MODULES):
            count = i + 2
            outputs = [1 if finest_only and i == 2 and j == modules - 1 else count for j in range(modules)]
            self.stages.append(
                nn.Sequential(*(Exchange(widths[:count], n, upsampling, align_corners) for n in outputs))
            )

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the four branches [B,D,H/s,W/s], finest first, or the finest alone; sizes round up."""
        image = self.first(self.stem(image))
        branches = [image]
        for i, (transition, stage) in enumerate(zip(self.transitions, self.stages, strict=True)):
            assert isinstance(transition, nn.ModuleList)
            added = [layer(branches[-1]) for layer in transition]
            branches = stage(added if i == 0 else [*branches, *added])
        return branches


class JoinedHead(nn.Module):
    """The head of HRNetV2 (section 3.2, figure 5b): all branches at the finest resolution, mixed and classified."""

    def __init__(self, inputs: Sequence[int], classes: int, align_corners: bool, bias: bool) -> None:
        super().__init__()
        self.count, self.align_corners = len(inputs), align_corners
        self.mix = ConvNorm(sum(inputs), sum(inputs), 1, bias=bias)
        self.classifier = nn.Conv2d(sum(inputs), classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map."""
        maps = features[-self.count :]
        mixed = over_joined(self.mix, maps, maps[0].shape[-2:], align_corners=self.align_corners)
        return Decoded(self.classifier(mixed), features=mixed)


class FinestHead(nn.Module):
    """The head of HRNetV1 (section 3.2, figure 5a): the finest branch alone."""

    def __init__(self, index: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.index = index
        self.classifier = nn.Conv2d(inputs, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the map."""
        return Decoded(self.classifier(features[self.index]), features=features[self.index])


class PyramidHead(nn.Module):
    """HRNetV2p (section 3.2, figure 5c), and a classifier of pixels on it.

    The paper's pyramid feeds detectors, which is no task here. So that the network gives logits too, the levels are
    brought to the finest size and added, as semantic heads of feature pyramids do (Kirillov et al., Panoptic Feature
    Pyramid Networks, CVPR 2019, section 3.1, in its simplest form), and a 1x1 convolution classifies. Published weights
    hold no such classifier; load them with ``partial=True``.
    """

    def __init__(self, inputs: Sequence[int], channels: int, levels: int, classes: int) -> None:
        super().__init__()
        self.count = len(inputs)
        self.reduce = nn.Conv2d(sum(inputs), channels, 1)
        self.levels = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels))
        self.classifier = nn.Conv2d(channels, classes, 1)

    def pyramid(self, features: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        """Return the levels, finest first; each has half the size of the one before."""
        maps = features[-self.count :]
        reduced = over_joined(self.reduce, maps, maps[0].shape[-2:])
        # A small image has no coarse levels left; its coarsest is then the mean of what there is.
        return [layer(reduced if i == 0 else block_means(reduced, 2**i)) for i, layer in enumerate(self.levels)]

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map."""
        levels = self.pyramid(features)
        total = levels[0]
        for level in levels[1:]:
            total = total + resize(level, levels[0].shape[-2:])
        mixed = F.relu(total)
        return Decoded(self.classifier(mixed), features=mixed)


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        return ConvNorm(widths[source], widths[target], 1, activation=None)
    steps = [ConvNorm(widths[source], widths[source], 3, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, ConvNorm(widths[source], widths[target], 3, stride=2, activation=None))


def hrnet(
    width: str,
    bands: int,
    *,
    fuse_upsampling: str = "bilinear",
    align_corners: bool = False,
    finest_only: bool = False,
    padding: str = "alike",
) -> HRNet:
    """Build the encoder HRNet with fresh weights.

    Args:
        width: channels of the finest branch, one of `WIDTHS`.
        bands: of the image.
        fuse_upsampling: between branches: "bilinear" (the release for segmentation) or "nearest" (those for
            classification, pose and detection).
        align_corners: of the bilinear upsampling; True is the default of the authors' release for segmentation.
        finest_only: the last exchange has one output, the finest branch (HRNetV1); else all four.
        padding: of strided convolutions: all sides "alike", or "same" (PaddleSeg; see `same_padding`).

    Raises:
        ConfigError: an option that is wrong.
    """
    require_one_of("HRNet's fuse_upsampling", fuse_upsampling, ("bilinear", "nearest"))
    require_one_of("HRNet's padding", padding, ("alike", "same"))
    encoder = HRNet(int(width), bands, fuse_upsampling, align_corners, finest_only)
    encoder.apply(initialise_convolutions)
    if padding == "same":
        pad_as_same(encoder)
    return encoder


def hrnet_v2(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    align_corners: bool = False,
    mix_bias: bool = True,
) -> JoinedHead:
    """Build the head of HRNetV2 with fresh weights, for the maps of an encoder from stride 4 on.

    Args:
        channels, strides: of the encoder's maps.
        align_corners: how maps, and logits, are upsampled; as the encoder does.
        mix_bias: the first 1x1 convolution has a bias (the authors' release) or none (mmsegmentation).
    """
    inputs = [width for width, stride in zip(channels, strides, strict=True) if stride >= 4]
    head = JoinedHead(inputs, classes, align_corners, mix_bias)
    head.apply(initialise_convolutions)
    initialise_classifier(head.classifier)
    return head


def hrnet_v1(channels: Sequence[int], strides: Sequence[int], classes: int) -> FinestHead:
    """Build the head of HRNetV1 with fresh weights, for the finest map of an encoder from stride 4 on.

    Args:
        channels, strides: of the encoder's maps.
    """
    index = next(i for i, stride in enumerate(strides) if stride >= 4)
    head = FinestHead(index, channels[index], classes)
    initialise_classifier(head.classifier, deviation=UNNORMED)
    return head


def hrnet_v2p(
    channels: Sequence[int], strides: Sequence[int], classes: int, *, decoder_channels: int = 256, levels: int = 5
) -> PyramidHead:
    """Build the pyramid of HRNetV2p and its classifier, for the maps of an encoder from stride 4 on.

    Args:
        channels, strides: of the encoder's maps.
        decoder_channels: of each level.
        levels: of the pyramid, at least 1.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_whole_number("HRNetV2p's levels", levels)
    require_whole_number("HRNetV2p's decoder_channels", decoder_channels)
    inputs = [width for width, stride in zip(channels, strides, strict=True) if stride >= 4]
    head = PyramidHead(inputs, decoder_channels, levels, classes)
    head.apply(initialise_convolutions)
    initialise_classifier(head.classifier, deviation=UNNORMED)
    return head
