"""DEPICT: a decoder derived from compression, whose attention has one matrix for query, key, value and output.

Wen and Li, Rethinking Decoders for Transformer-based Semantic Segmentation: A Compression Perspective, NeurIPS 2024
(arXiv 2411.03033). Classes are the principal directions of the patches; self-attention brings the patches into few
subspaces, cross-attention looks for the directions. Both are steps of descent on a coding rate, hence a step size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.option_checks import require_whole_number
from pixelwise.models.segmenter import Decoded
from pixelwise.models.segmenter_vit import EPSILON, cosine_masks
from pixelwise.models.vit import initialise_linear

SELF_CHANNELS, CROSS_CHANNELS = 100, 50
"""Dimensions of a subspace, which are the channels of a head, in self- and in cross-attention."""

CROSS_DEPTH = 3


class SubspaceAttention(nn.Module):
    """One step of multi-head subspace attention: on itself (MSSA), or of a query on the patches (MSCA).

    Tokens are projected to the subspaces, gather there, and are brought back by the same matrix:
    x + step · P^T softmax(P q (P x)^T) P x for each head.
    """

    def __init__(self, channels: int, heads: int, head_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.subspaces = nn.Linear(channels, heads * head_channels, bias=False)
        self.step = nn.Parameter(torch.ones(1))

    def forward(
        self, tokens: Float[Tensor, "B N C"], query: Float[Tensor, "B M C"] | None = None
    ) -> Float[Tensor, "B _ C"]:
        """Return the tokens after a step; with a query, the query. The tokens are normed, a query is not."""
        projected = self._projected(self.norm(tokens))
        asking = projected if query is None else self._projected(query)
        gathered = F.scaled_dot_product_attention(asking, projected, projected).transpose(1, 2).flatten(2)
        back = F.linear(gathered, self.subspaces.weight.T)
        return (tokens if query is None else query) + self.step * back

    def _projected(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B h N D"]:
        return self.subspaces(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SelfAttentionDecoder(nn.Module):
    """DEPICT-SA: patches and classes together take steps of self-attention."""

    def __init__(self, channels: int, classes: int, depth: int, heads: int) -> None:
        super().__init__()
        self.class_embeddings = nn.Parameter(torch.zeros(1, classes, channels))
        self.blocks = nn.ModuleList(SubspaceAttention(channels, heads, SELF_CHANNELS) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.mask_norm = nn.LayerNorm(classes, eps=EPSILON)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        height, width = features[-1].shape[-2:]
        classes = self.class_embeddings.expand(features[-1].shape[0], -1, -1)
        tokens = torch.cat([features[-1].flatten(2).transpose(1, 2), classes], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        patches, classes = tokens[:, : height * width], tokens[:, height * width :]
        return cosine_masks(patches, classes, self.mask_norm, (height, width))


class CrossAttentionDecoder(nn.Module):
    """DEPICT-CA: patches take steps of self-attention, then classes take steps of cross-attention on them."""

    def __init__(self, channels: int, classes: int, depth: int, heads: int) -> None:
        super().__init__()
        self.class_embeddings = nn.Parameter(torch.zeros(1, classes, channels))
        self.blocks = nn.ModuleList(SubspaceAttention(channels, heads, SELF_CHANNELS) for _ in range(depth))
        self.cross_blocks = nn.ModuleList(
            SubspaceAttention(channels, heads, CROSS_CHANNELS) for _ in range(CROSS_DEPTH)
        )
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.class_norm = nn.LayerNorm(channels, eps=EPSILON)
        self.mask_norm = nn.LayerNorm(classes, eps=EPSILON)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the last map."""
        height, width = features[-1].shape[-2:]
        patches = features[-1].flatten(2).transpose(1, 2)
        for block in self.blocks:
            patches = block(patches)
        patches = self.norm(patches)
        classes = self.class_embeddings.repeat(patches.shape[0], 1, 1)
        for block in self.cross_blocks:
            classes = block(patches, classes)
        return cosine_masks(patches, self.class_norm(classes), self.mask_norm, (height, width))


def depict_sa(
    channels: Sequence[int], strides: Sequence[int], classes: int, *, decoder_depth: int = 3, decoder_heads: int = 3
) -> SelfAttentionDecoder:
    """Build the decoder of DEPICT-SA with fresh weights, for the last map of an encoder.

    Args:
        channels, strides: of the encoder's maps.
        decoder_depth: how many steps of self-attention, at least 1.
        decoder_heads: how many subspaces, at least 1.

    Raises:
        ConfigError: an option that is wrong.
    """
    _require("depict-sa", decoder_depth, decoder_heads)
    decoder = SelfAttentionDecoder(channels[-1], classes, decoder_depth, decoder_heads)
    decoder.apply(initialise_linear)
    nn.init.trunc_normal_(decoder.class_embeddings, std=0.02)
    return decoder


def depict_ca(
    channels: Sequence[int], strides: Sequence[int], classes: int, *, decoder_depth: int = 3, decoder_heads: int = 3
) -> CrossAttentionDecoder:
    """Build the decoder of DEPICT-CA with fresh weights, for the last map of an encoder.

    Args:
        channels, strides: of the encoder's maps.
        decoder_depth: how many steps of self-attention, at least 1; those of cross-attention are three.
        decoder_heads: how many subspaces, at least 1.

    Raises:
        ConfigError: an option that is wrong.
    """
    _require("depict-ca", decoder_depth, decoder_heads)
    decoder = CrossAttentionDecoder(channels[-1], classes, decoder_depth, decoder_heads)
    decoder.apply(initialise_linear)
    nn.init.trunc_normal_(decoder.class_embeddings, std=0.02)
    return decoder


def _require(name: str, depth: object, heads: object) -> None:
    require_whole_number(f"{name}: decoder_depth", depth)
    require_whole_number(f"{name}: decoder_heads", heads)
