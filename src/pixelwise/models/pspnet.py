"""PSPNet: what the whole image, its halves, thirds and sixths look like, told to every pixel.

Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017 (arXiv 1612.01105). Sections and figures below are of
that paper.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import (
    AuxiliaryHead,
    ConvNorm,
    adaptive_mean,
    initialise_classifier,
    initialise_convolutions,
    over_joined,
)
from pixelwise.models.option_checks import require_chance, require_whole_number, require_whole_numbers
from pixelwise.models.segmenter import Decoded

BINS = (1, 2, 3, 6)
"""Sides of the pooled maps in the paper (section 3.2)."""


class PyramidPooling(nn.Module):
    """The pyramid pooling module on the last map, a classifier, and an auxiliary head on the map before (figure 3)."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        classes: int,
        before: int | None,
        dropout: float,
        align_corners: bool,
        sides: Sequence[int],
    ) -> None:
        super().__init__()
        self.align_corners, self.sides = align_corners, tuple(sides)
        width = inputs // len(sides)
        self.bins = nn.ModuleList(ConvNorm(inputs, width, 1) for _ in sides)
        self.mix = ConvNorm(inputs + len(sides) * width, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.auxiliary = None if before is None else AuxiliaryHead(before, 256, classes)
        self.aux_weights = {} if before is None else {"auxiliary": 0.4}
        self.with_aux = before is not None

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        last = features[-1]
        pooled = [layer(adaptive_mean(last, side)) for side, layer in zip(self.sides, self.bins, strict=True)]
        mixed = self.dropout(over_joined(self.mix, [last, *pooled], last.shape[-2:], align_corners=self.align_corners))
        aux = {}
        if self.auxiliary is not None and self.with_aux:
            aux["auxiliary"] = self.auxiliary(features[-2])
        return Decoded(self.classifier(mixed), aux, mixed)


def psp(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 512,
    dropout: float = 0.1,
    align_corners: bool = True,
    auxiliary: bool = True,
    bins: Sequence[int] = BINS,
) -> PyramidPooling:
    """Build the decoder of PSPNet with fresh weights, for the last map of an encoder.

    Args:
        channels, strides: of the encoder's maps.
        decoder_channels: before the classifier.
        dropout: chance of a channel before the classifier to be left out in training, 0 to below 1.
        align_corners: how pooled maps and logits are upsampled; True in the authors' release, False in mmsegmentation.
        auxiliary: a second head on the last map but one, with weight 0.4 in the loss (section 3.3).
        bins: sides of the pooled maps, each at least 1; at most as many as the map has channels.

    Raises:
        ConfigError: an option that is wrong, or an encoder of one map with ``auxiliary``.
    """
    require_whole_number("PSPNet's decoder_channels", decoder_channels)
    require_chance("PSPNet's dropout", dropout)
    require_whole_numbers("PSPNet's bins", bins, most=channels[-1])
    decoder = PyramidPooling(
        channels[-1], decoder_channels, classes, auxiliary_channels(channels, auxiliary), dropout, align_corners, bins
    )
    decoder.apply(initialise_convolutions)
    initialise_classifier(decoder.classifier)
    if decoder.auxiliary is not None:
        initialise_classifier(decoder.auxiliary.classifier)
    return decoder


def auxiliary_channels(channels: Sequence[int], auxiliary: bool) -> int | None:
    """Return the channels of the map that an auxiliary head reads, or None.

    Raises:
        ConfigError: an encoder of one map.
    """
    if auxiliary and len(channels) < 2:
        raise ConfigError(
            "The auxiliary head reads the encoder's last map but one, and this encoder has a single map. "
            "Set auxiliary=False, or take an encoder with several maps.",
            code="PW308",
        )
    return channels[-2] if auxiliary else None
