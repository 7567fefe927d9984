"""UNet++: the skips of U-Net filled with nodes, so that networks of every depth live in one.

Zhou, Siddiquee, Tajbakhsh, Liang: UNet++: A Nested U-Net Architecture for Medical Image Segmentation, DLMIA 2018 (arXiv
1807.10165). Sections and equations below are of that paper.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import initialise_by_inputs, initialise_classifier
from pixelwise.models.option_checks import require_whole_number
from pixelwise.models.segmenter import Decoded
from pixelwise.models.unet import DoubleConvolution, Release, Upsampling, chosen_release, require_doubling


class NestedDecoder(nn.Module):
    """Nodes x(i,j): level i, and j steps from the encoder; each joins all before it and one from below (eq. 1)."""

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        release: Release,
        heads: Sequence[int],
        level: int,
        *,
        averaged: bool = False,
    ) -> None:
        super().__init__()
        self.level, self.skip_first, self.averaged = level, release.skip_first, averaged
        self.with_aux = len(heads) > 1
        self.aux_weights = {f"level {j}": 1.0 for j in heads if j != level}
        self.nodes, self.upsamplings = nn.ModuleDict(), nn.ModuleDict()
        for j in range(1, level + 1):
            for i in range(level + 1 - j):
                upsampling = Upsampling(channels[i + 1], channels[i], release.upsampling)
                joined = j * channels[i] + upsampling.outputs
                self.upsamplings[f"{i}_{j}"] = upsampling
                self.nodes[f"{i}_{j}"] = DoubleConvolution(joined, channels[i], channels[i], release)
        self.heads = nn.ModuleDict({str(j): nn.Conv2d(channels[0], classes, 1) for j in heads})

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return the logits of the deepest head, and those of the others, at the stride of the finest map.

        If ``averaged``, the logits are the mean of all heads' in evaluation. In training each head learns by itself.
        """
        rows = [[feature] for feature in features[: self.level + 1]]
        for j in range(1, self.level + 1):
            for i in range(self.level + 1 - j):
                size = rows[i][0].shape[-2:]
                large = self.upsamplings[f"{i}_{j}"](rows[i + 1][j - 1], size)
                parts = [*rows[i], large] if self.skip_first else [large, *rows[i]]
                rows[i].append(self.nodes[f"{i}_{j}"](parts, size))
        mean = self.averaged and not self.training
        used = [int(j) for j in self.heads if self.with_aux or mean or int(j) == self.level]
        logits = {j: self.heads[str(j)](rows[0][j]) for j in used}
        aux = {f"level {j}": one for j, one in logits.items() if self.with_aux and j != self.level}
        answer = torch.stack(list(logits.values())).mean(dim=0) if mean else logits[self.level]
        return Decoded(answer, aux, rows[0][self.level])


def unetpp(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    release: str = "nested",
    batch_norm: bool | None = None,
    upsampling: str | None = None,
    deep_supervision: bool = True,
    level: int = 4,
    averaged: bool = False,
) -> NestedDecoder:
    """Build the decoder of UNet++ with fresh weights, for an encoder whose strides double from map to map.

    Args:
        channels, strides: of the encoder's maps.
        release, batch_norm, upsampling: as for `pixelwise.models.unet.unet_encoder`.
        deep_supervision: a head after each depth (section 3.2), the shallower ones with weight 1 in the loss; without
            it the network cannot be pruned.
        level: number of the deepest level that is used; no more than the encoder has. Lower in a pruned network.
        averaged: in evaluation the logits are the mean of all heads' (the "accurate mode" of section 3.2), not those of
            the deepest head. It needs ``deep_supervision``.

    Raises:
        ConfigError: an option that is wrong, or other strides.
    """
    about = chosen_release(release, batch_norm, upsampling)
    require_doubling("UNet++", strides)
    require_whole_number("UNet++'s level", level)
    if averaged and not deep_supervision:
        raise ConfigError("UNet++ averages the heads of deep supervision. Set deep_supervision, or averaged = false.")
    level = min(level, len(channels) - 1)
    heads = range(1, level + 1) if deep_supervision else (level,)
    decoder = NestedDecoder(channels, classes, about, tuple(heads), level, averaged=averaged)
    decoder.apply(initialise_by_inputs)
    for head in decoder.heads.values():
        initialise_classifier(head)
    return decoder
