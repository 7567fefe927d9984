"""UNet 3+: every level of the decoder sees every level of the network.

Huang et al.: UNet 3+: A Full-Scale Connected UNet for Medical Image Segmentation, ICASSP 2020 (arXiv 2004.08790).
Sections and equations below are of that paper.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import ConvNorm, initialise_by_inputs, initialise_classifier, over_joined
from pixelwise.models.option_checks import require_whole_number
from pixelwise.models.segmenter import Decoded
from pixelwise.models.unet import require_doubling


class FullScaleDecoder(nn.Module):
    """Full-scale skips (section 2.1, eq. 1), full-scale deep supervision (2.2) and the guide of classification (2.4).

    Level i joins, at its own size, the encoder's maps of finer levels (max-pooled), that of its own, and the decoder's
    maps of coarser levels (upsampled), each by a 3x3 convolution to a few channels.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, width: int, *, deep_supervision: bool, guided: bool
    ) -> None:
        super().__init__()
        count = len(channels)
        joined = width * count
        self.joins = nn.ModuleList(
            nn.ModuleList(
                ConvNorm(channels[k] if k <= i or k == count - 1 else joined, width, 3, bias=True) for k in range(count)
            )
            for i in range(count - 1)
        )
        self.mixes = nn.ModuleList(ConvNorm(joined, joined, 3, bias=True) for _ in range(count - 1))
        inputs = [*[joined] * (count - 1), channels[-1]]
        self.heads = nn.ModuleList(
            nn.Conv2d(inputs[i], classes, 3, padding=1) for i in range(count if deep_supervision else 1)
        )
        self.guide = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(channels[-1], 2, 1)) if guided else None
        self.with_aux = True
        self.aux_weights = {f"level {i + 1}": 1.0 for i in range(1, len(self.heads))}
        if guided:
            self.aux_weights["classification"] = 1.0

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map; those of coarser levels, at theirs, are auxiliary.

        In evaluation the guide shuts the logits of an image (to 0, so that its first class wins everywhere) in which it
        sees nothing but the first class. In training it does not, so that the decoder learns from the first step on.
        """
        levels = self.levels(features)
        used = len(self.heads) if self.with_aux else 1
        logits = [head(level) for head, level in zip(self.heads[:used], levels[:used], strict=True)]
        aux: dict[str, Tensor] = {}
        if self.guide is not None:
            seen = self.guide(levels[-1]).amax(dim=(2, 3))
            if not self.training:
                gate = seen.argmax(dim=1).to(seen.dtype)[:, None, None, None]
                logits = [one * gate for one in logits]
            if self.with_aux:
                aux["classification"] = seen
        aux |= {f"level {i + 1}": one for i, one in enumerate(logits) if i}
        return Decoded(logits[0], aux, levels[0])

    def levels(self, features: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the decoder's map of each level, finest first; the last is the encoder's."""
        count = len(features)
        decoded: dict[int, Tensor] = {count - 1: features[-1]}
        for i in range(count - 2, -1, -1):
            size = features[i].shape[-2:]
            parts = []
            for k, join in enumerate(_modules(self.joins[i])):
                step = 2 ** (i - k) if k < i else 1
                source = decoded[k] if k > i else features[k]
                if step > 1:
                    source = F.max_pool2d(source, step, step, ceil_mode=True)
                parts.append(over_joined(join, [source], size))
            decoded[i] = self.mixes[i](torch.cat(parts, dim=1))
        return [decoded[i] for i in range(count)]


def unet3p(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 64,
    deep_supervision: bool = True,
    guided: bool = False,
) -> FullScaleDecoder:
    """Build the decoder of UNet 3+ with fresh weights, for an encoder whose strides double from map to map.

    Args:
        channels, strides: of the encoder's maps.
        decoder_channels: of each of the maps that a level joins (64 in the paper).
        deep_supervision: a head per level, all with weight 1 in the loss.
        guided: the classification-guided module: a classifier on the coarsest map that says whether an image holds any
            class but the first; its weight in the loss is 1.

    Raises:
        ConfigError: an option that is wrong, or other strides.
    """
    require_whole_number("UNet 3+'s decoder_channels", decoder_channels)
    require_doubling("UNet 3+", strides)
    decoder = FullScaleDecoder(channels, classes, decoder_channels, deep_supervision=deep_supervision, guided=guided)
    decoder.apply(initialise_by_inputs)
    for head in decoder.heads:
        initialise_classifier(head, deviation=0.001)
    if decoder.guide is not None:
        initialise_classifier(decoder.guide[-1])
    return decoder


def _modules(modules: nn.Module) -> nn.ModuleList:
    assert isinstance(modules, nn.ModuleList)
    return modules
