"""LinkNet: each decoder block adds what entered the encoder block of its level, so that little needs to be relearnt.

Chaurasia & Culurciello, LinkNet: Exploiting Encoder Representations for Efficient Semantic Segmentation, VCIP 2017
(arXiv 1707.03718). The encoder of the paper is ResNet-18.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import BatchNorm, ConvNorm, initialise_classifier, initialise_convolutions, resize
from pixelwise.models.option_checks import require_one_of
from pixelwise.models.segmenter import Decoded

PORTS = {"pytorch": (1e-5, 1e-5, False), "lua": (1e-3, 1e-3, True)}
"""Of the authors' two releases: epsilons of the batch norms in the blocks and of the last one, and if a rectifier
follows each sum. The Lua one is the paper's."""

TAIL = 32
"""Channels at full size (figure 1)."""


class Deconvolution(nn.Module):
    """A transposed 3x3 convolution ("full convolution"), a batch norm and a rectifier."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, bias: bool, epsilon: float) -> None:
        super().__init__()
        self.stride = stride
        self.convolution: nn.Module = nn.ConvTranspose2d(inputs, outputs, 3, stride, padding=1, bias=bias)
        self.norm: nn.Module = BatchNorm(outputs, eps=epsilon)

    def forward(self, image: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B D H W"]:
        """Return a map of about ``size``: exactly that, if ``stride`` times the map is that or one more."""
        return F.relu(self.norm(self.widened(image, size)), inplace=True)

    def widened(self, image: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B D H W"]:
        """Return what the convolution alone gives, with the output padding that comes nearest to ``size``.

        Output padding adds rows and columns at the end and changes no other. So there is always as much as there can
        be, and what is too much is cut: a recorded network can then be given images of any size.
        """
        largest = [self.stride * side for side in image.shape[-2:]]
        return self.convolution(image, output_size=largest)[..., : size[0], : size[1]]


class DecoderBlock(nn.Module):
    """1x1 convolution to a quarter of the channels, transposed convolution, 1x1 convolution (figure 3)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, epsilon: float) -> None:
        super().__init__()
        inner = inputs // 4
        self.reduce = ConvNorm(inputs, inner, 1, epsilon=epsilon)
        self.deconvolution = Deconvolution(inner, inner, stride=stride, bias=False, epsilon=epsilon)
        self.expand = ConvNorm(inner, outputs, 1, epsilon=epsilon)

    def forward(self, image: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B D H W"]:
        """Return a map of ``size``."""
        return resize(self.expand(self.deconvolution(self.reduce(image), size)), size)


class LinkNetDecoder(nn.Module):
    """The decoder (figure 1), for maps of strides 4, 8, 16 ... and, where the encoder has one, of 2.

    The last sum takes the map of stride 2, pooled as ResNet pools its stem; without such a map it is left out. The
    logits are of full size.
    """

    multiple = 4

    def __init__(self, inputs: Sequence[int], stem: int | None, classes: int, port: str) -> None:
        super().__init__()
        epsilon, last_epsilon, self.rectified = PORTS[port]
        self.levels = len(inputs)
        self.has_stem = stem is not None
        outputs = [inputs[0] if stem is None else stem, *inputs[:-1]]
        self.blocks = nn.ModuleList(
            DecoderBlock(inputs[i], outputs[i], stride=2 if i else 1, epsilon=epsilon)
            for i in range(len(inputs) - 1, -1, -1)
        )
        self.deconvolution = Deconvolution(outputs[0], TAIL, stride=2, bias=True, epsilon=1e-5)
        self.convolution = ConvNorm(TAIL, TAIL, 3, bias=True, epsilon=last_epsilon)
        self.classifier = nn.ConvTranspose2d(TAIL, classes, 2, 2)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at stride 1."""
        image = features[-1]
        skips: list[Tensor | None] = [*features[-2 : -self.levels - 1 : -1]]
        skips.append(F.max_pool2d(features[-self.levels - 1], 3, 2, padding=1) if self.has_stem else None)
        for block, skip in zip(self.blocks, skips, strict=True):
            if skip is None:
                image = block(image, _size(image))
                continue
            image = block(image, _size(skip)) + skip
            if self.rectified:
                image = F.relu(image, inplace=True)
        height, width = _size(image)
        features_at_2 = self.convolution(self.deconvolution(image, (2 * height, 2 * width)))
        return Decoded(self.classifier(features_at_2), features=features_at_2)


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def linknet(channels: Sequence[int], strides: Sequence[int], classes: int, *, port: str = "pytorch") -> nn.Module:
    """Build the decoder of LinkNet with fresh weights.

    Args:
        channels, strides: of the encoder's maps.
        port: a name in `PORTS`; `load_weights` sets it to that of the weights.

    Raises:
        ConfigError: an unknown port, or an encoder whose maps do not double their strides from 4 on.
    """
    require_one_of("LinkNet's port", port, PORTS)
    taken = [(width, stride) for width, stride in zip(channels, strides, strict=True) if stride >= 4]
    steps = [stride for _, stride in taken]
    if len(steps) < 2 or steps != [4 * 2**i for i in range(len(steps))]:
        raise ConfigError(
            f"LinkNet's decoder adds maps of strides 4, 8, 16 and so on, but this encoder's are "
            f"{', '.join(map(str, strides))}. Take an encoder such as resnet18, hardnet-68 or mit-b0, undilated.",
            code="PW308",
        )
    stem = channels[strides.index(2)] if 2 in tuple(strides) else None
    decoder = LinkNetDecoder([width for width, _ in taken], stem, classes, port)
    decoder.apply(initialise_convolutions)
    initialise_classifier(decoder.classifier)
    return decoder
