"""DeepLabV3, by parallel or by cascaded dilation, and DeepLabV3+, which looks once more at fine detail.

Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017 (arXiv 1706.05587),
"V3" below; Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation, ECCV 2018 (arXiv 1802.02611), "V3+" below.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import (
    AuxiliaryHead,
    ConvNorm,
    initialise_classifier,
    initialise_convolutions,
    over_joined,
)
from pixelwise.models.option_checks import require_chance, require_one_of, require_whole_number, require_whole_numbers
from pixelwise.models.pspnet import auxiliary_channels
from pixelwise.models.resnet import Bottleneck
from pixelwise.models.segmenter import Decoded

RELEASES = ("paper", "mmsegmentation")
"""Of ASPP. paper (also torchvision): the pooled branch last, a 1x1 convolution over all, then a 3x3. mmsegmentation:
the pooled branch first, and one 3x3 over all."""


def atrous_rates(output_stride: int) -> tuple[int, int, int]:
    """Return the dilations of ASPP (V3, section 3.3): 6, 12, 18 at output stride 16, twice that at 8, half at 32."""
    return (6 * 16 // output_stride, 12 * 16 // output_stride, 18 * 16 // output_stride)


def mix_3x3(inputs: int, outputs: int, rate: int, *, separable: bool) -> nn.Module:
    """Return a dilated 3x3 convolution with batch norm and ReLU.

    If ``separable``, it is a depthwise one and a 1x1 one, each with norm and ReLU (V3+, sections 3.1 and 3.2).
    """
    if not separable:
        return ConvNorm(inputs, outputs, 3, dilation=rate)
    return nn.Sequential(ConvNorm(inputs, inputs, 3, dilation=rate, groups=inputs), ConvNorm(inputs, outputs, 1))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (V3, section 3.3, figure 5): 1x1, three dilated 3x3, and the mean of the image."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        rates: Sequence[int],
        *,
        kernel: int,
        pool_first: bool,
        dropout: float,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.pooled = ConvNorm(inputs, channels, 1)
        dilated = [mix_3x3(inputs, channels, rate, separable=separable) for rate in rates]
        self.branches = nn.ModuleList([ConvNorm(inputs, channels, 1), *dilated])
        self.project = ConvNorm((len(rates) + 2) * channels, channels, kernel)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """Return a map of the same size."""
        mean = self.pooled(image.mean(dim=(2, 3), keepdim=True))
        parts = [branch(image) for branch in self.branches]
        parts = [mean, *parts] if self.pool_first else [*parts, mean]
        return self.dropout(over_joined(self.project, parts, image.shape[-2:]))


class ASPPDecoder(nn.Module):
    """DeepLabV3: ASPP on the last map, and a classifier."""

    def __init__(self, aspp: ASPP, mix: nn.Module, channels: int, classes: int, before: int | None) -> None:
        super().__init__()
        self.aspp, self.mix = aspp, mix
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.auxiliary = None if before is None else AuxiliaryHead(before, 256, classes)
        self.aux_weights = {} if before is None else {"auxiliary": 0.4}
        self.with_aux = before is not None

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        mixed = self.mix(self.aspp(features[-1]))
        aux = {}
        if self.auxiliary is not None and self.with_aux:
            aux["auxiliary"] = self.auxiliary(features[-2])
        return Decoded(self.classifier(mixed), aux, mixed)


class CascadeDecoder(nn.Module):
    """DeepLabV3 going deeper (V3, section 3.2, figure 3b): blocks 5 to 7, copies of block 4 with growing dilation."""

    def __init__(self, inputs: int, rate: int, multi_grid: Sequence[int], classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    *(
                        Bottleneck(inputs, inputs, stride=1, dilation=rate * 2**i * grid, project=False)
                        for grid in multi_grid
                    )
                )
                for i in range(1, 4)
            )
        )
        self.classifier = nn.Conv2d(inputs, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        mixed = self.blocks(features[-1])
        return Decoded(self.classifier(mixed), features=mixed)


class PlusDecoder(nn.Module):
    """DeepLabV3+ (V3+, section 3.1, figure 2): ASPP, upsampled onto a fine map of few channels, and refined."""

    def __init__(
        self, aspp: ASPP, index: int, low: int, channels: int, classes: int, refinements: int, *, separable: bool
    ) -> None:
        super().__init__()
        self.aspp, self.index = aspp, index
        self.project = ConvNorm(low, 48, 1)
        inputs = [channels + 48, *[channels] * (refinements - 1)]
        self.refine = nn.Sequential(*(mix_3x3(count, channels, 1, separable=separable) for count in inputs))
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the fine map."""
        low = self.project(features[self.index])
        first, *others = self.refine
        refined = over_joined(first, [low, self.aspp(features[-1])], low.shape[-2:])
        for refine in others:
            refined = refine(refined)
        return Decoded(self.classifier(refined), features=refined)


def aspp(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    dropout: float = 0.5,
    release: str = "paper",
    auxiliary: bool = False,
) -> ASPPDecoder:
    """Build the decoder of DeepLabV3 with fresh weights, for the last map of an encoder.

    Args:
        channels, strides: of the encoder's maps; the dilations follow the last stride (`atrous_rates`).
        decoder_channels: of each branch.
        dropout: after the branches are joined, 0 to below 1.
        release: how they are joined, a name in `RELEASES`.
        auxiliary: a second head on the last map but one, with weight 0.4 in the loss.

    Raises:
        ConfigError: an option that is wrong, or an encoder of one map with ``auxiliary``.
    """
    require_whole_number("DeepLabV3's decoder_channels", decoder_channels)
    require_chance("DeepLabV3's dropout", dropout)
    require_one_of("DeepLabV3's release", release, RELEASES)
    paper = release == "paper"
    pyramid = ASPP(
        channels[-1],
        decoder_channels,
        atrous_rates(strides[-1]),
        kernel=1 if paper else 3,
        pool_first=not paper,
        dropout=dropout,
    )
    mix = ConvNorm(decoder_channels, decoder_channels, 3) if paper else nn.Identity()
    decoder = ASPPDecoder(pyramid, mix, decoder_channels, classes, auxiliary_channels(channels, auxiliary))
    decoder.apply(initialise_convolutions)
    initialise_classifier(decoder.classifier)
    if decoder.auxiliary is not None:
        initialise_classifier(decoder.auxiliary.classifier)
    return decoder


def cascade(
    channels: Sequence[int], strides: Sequence[int], classes: int, *, multi_grid: Sequence[int] = (1, 2, 1)
) -> CascadeDecoder:
    """Build the cascaded decoder of DeepLabV3 with fresh weights, for the last map of an encoder.

    Args:
        channels, strides: of the encoder's maps; the dilations follow the last stride (2, 4, 8, 16 in blocks 4 to 7 at
            output stride 16).
        multi_grid: factors of the dilations of each block's units (V3, section 3.2.1), as in ResNet's last stage.

    Raises:
        ConfigError: an option that is wrong, or a map whose channels are no multiple of 4.
    """
    require_whole_numbers("DeepLabV3's multi_grid", multi_grid)
    if channels[-1] % 4:
        raise ConfigError(
            f"The cascade's bottlenecks divide channels by 4, and the encoder's last map has {channels[-1]} of them. "
            "Take another encoder, such as resnet50.",
            code="PW308",
        )
    decoder = CascadeDecoder(channels[-1], max(1, 32 // strides[-1]), multi_grid, classes)
    decoder.apply(initialise_convolutions)
    # Each unit adds to the signal, and no norm follows.
    initialise_classifier(decoder.classifier, deviation=0.001)
    return decoder


def deeplabv3plus(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    dropout: float = 0.1,
    refinements: int = 2,
    separable: bool = False,
) -> PlusDecoder:
    """Build the decoder of DeepLabV3+ with fresh weights, for an encoder's last map and its finest from stride 4.

    Args:
        channels, strides: of the encoder's maps; the dilations follow the last stride (`atrous_rates`).
        decoder_channels: of each branch and after it.
        dropout: after the branches are joined, 0 to below 1.
        refinements: 3x3 convolutions on the joined maps: 2 in the paper (table 2), 1 in VainF's release.
        separable: let all 3x3 convolutions be depthwise ones followed by 1x1 (V3+, section 3.1; SC in its table 5).

    Raises:
        ConfigError: an option that is wrong.
    """
    require_whole_number("DeepLabV3+'s decoder_channels", decoder_channels)
    require_chance("DeepLabV3+'s dropout", dropout)
    require_whole_number("DeepLabV3+'s refinements", refinements)
    index = next((i for i, stride in enumerate(strides) if stride >= 4), 0)
    rates = atrous_rates(strides[-1])
    pyramid = ASPP(
        channels[-1], decoder_channels, rates, kernel=1, pool_first=False, dropout=dropout, separable=separable
    )
    decoder = PlusDecoder(pyramid, index, channels[index], decoder_channels, classes, refinements, separable=separable)
    decoder.apply(initialise_convolutions)
    initialise_classifier(decoder.classifier)
    return decoder
