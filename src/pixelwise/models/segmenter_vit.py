"""Segmenter: patches and classes are tokens of one transformer, and a mask is the product of the two.

Strudel et al., Segmenter: Transformer for Semantic Segmentation, ICCV 2021 (arXiv 2105.05633). Its encoder is the
plain `vit`; here are its two decoders.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import initialise_classifier, pointwise
from pixelwise.models.option_checks import require_chance, require_whole_number
from pixelwise.models.segmenter import Decoded
from pixelwise.models.vit import Block, heads_for, initialise_linear

EPSILON = 1e-5
"""Of the decoder's norms."""


class LinearDecoder(nn.Module):
    """One linear layer on every patch (section 3.2, baseline)."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(inputs, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        return Decoded(pointwise(features[-1], self.classifier), features=features[-1])


class MaskTransformer(nn.Module):
    """A transformer over patches and class embeddings; masks are their scalar products (section 3.2, figure 2)."""

    def __init__(self, inputs: int, channels: int, classes: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, channels)
        self.class_embeddings = nn.Parameter(torch.zeros(1, classes, channels))
        self.blocks = nn.ModuleList(Block(channels, heads, epsilon=EPSILON, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.project_patches = nn.Linear(channels, channels, bias=False)
        self.project_classes = nn.Linear(channels, channels, bias=False)
        self.mask_norm = nn.LayerNorm(classes, eps=EPSILON)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        height, width = features[-1].shape[-2:]
        patches = self.embed(features[-1].flatten(2).transpose(1, 2))
        classes = self.class_embeddings.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([patches, classes], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        patches, classes = tokens[:, : height * width], tokens[:, height * width :]
        return cosine_masks(
            self.project_patches(patches), self.project_classes(classes), self.mask_norm, (height, width)
        )


def cosine_masks(
    patches: Float[Tensor, "B N D"], classes: Float[Tensor, "B K D"], norm: nn.LayerNorm, size: tuple[int, int]
) -> Decoded:
    """Return as logits the cosines between patches and classes (equation 3), normed over the classes of each patch.

    Args:
        size: height and width in patches.
    """
    patches, classes = F.normalize(patches, dim=-1), F.normalize(classes, dim=-1)
    masks = norm(patches @ classes.transpose(1, 2))
    masks, patches = (one.reshape(-1, *size, one.shape[-1]).permute(0, 3, 1, 2) for one in (masks, patches))
    return Decoded(masks, features=patches)


def linear(channels: Sequence[int], strides: Sequence[int], classes: int) -> LinearDecoder:
    """Build the linear decoder with fresh weights, for the last map of an encoder.

    Args:
        channels, strides: of the encoder's maps.
    """
    decoder = LinearDecoder(channels[-1], classes)
    if len(set(strides)) > 1:
        # The last map of a pyramid is wide and not normed: as the paper starts, its logits would be large.
        initialise_classifier(decoder.classifier, deviation=0.001)
    else:
        decoder.apply(initialise_linear)
    return decoder


def mask_transformer(
    channels: Sequence[int], strides: Sequence[int], classes: int, *, decoder_depth: int = 2, dropout: float = 0.1
) -> MaskTransformer:
    """Build the mask transformer with fresh weights, for the last map of an encoder, whose cells are the patches.

    Args:
        channels, strides: of the encoder's maps.
        decoder_depth: how many blocks, at least 1.
        dropout: chance of a value inside the blocks to be left out in training, 0 to below 1.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_whole_number("segmenter-mask: decoder_depth", decoder_depth)
    require_chance("segmenter-mask: dropout", dropout)
    width = channels[-1]
    decoder = MaskTransformer(width, width, classes, decoder_depth, heads_for(width), dropout)
    decoder.apply(initialise_linear)
    nn.init.trunc_normal_(decoder.class_embeddings, std=0.02)
    for projection in (decoder.project_patches, decoder.project_classes):
        nn.init.normal_(projection.weight, std=width**-0.5)
    return decoder
