"""SegFormer: a hierarchical transformer without position codes, and a decoder of nothing but linear maps.

Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, NeurIPS 2021
(arXiv 2105.15203). Sections and equations below are of that paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import (
    BatchNorm,
    DropPath,
    drop_path_chances,
    initialise_classifier,
    initialise_convolutions,
    pointwise,
)
from pixelwise.models.option_checks import require_chance, require_one_of, require_whole_number, sizes_of
from pixelwise.models.segmenter import Decoded
from pixelwise.upsampling import upsample


@dataclass(frozen=True)
class Variant:
    """One row of table 6 (appendix A)."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    expansion: int = 4


VARIANTS = {
    "b0": Variant((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": Variant((64, 128, 320, 512), (2, 2, 2, 2)),
    "b2": Variant((64, 128, 320, 512), (3, 4, 6, 3)),
    "b3": Variant((64, 128, 320, 512), (3, 4, 18, 3)),
    "b4": Variant((64, 128, 320, 512), (3, 8, 27, 3)),
    "b5": Variant((64, 128, 320, 512), (3, 6, 40, 3)),
}

NORM_EPSILONS: dict[str, tuple[float, float]] = {
    "paper": (1e-6, 1e-5),
    "transformers": (1e-5, 1e-5),
    "mmsegmentation": (1e-6, 1e-6),
}
"""By release: epsilon of the norms of blocks and stages, and of those after a patch embedding or a reduction."""


class OverlapPatchEmbedding(nn.Module):
    """Merges overlapping patches into tokens (section 3.1): a strided convolution, then a layer norm."""

    def __init__(self, bands: int, channels: int, *, patch: int, stride: int, epsilon: float) -> None:
        super().__init__()
        self.projection = nn.Conv2d(bands, channels, patch, stride, padding=patch // 2)
        self.norm = nn.LayerNorm(channels, eps=epsilon)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w D"]:
        """Return a map of tokens, channels last."""
        # A convolution answers in the layout that it is given, and the norm reads channels last.
        image = image.contiguous(memory_format=torch.channels_last)
        return self.norm(self.projection(image).permute(0, 2, 3, 1))


class EfficientSelfAttention(nn.Module):
    """Attention whose keys and values are read from a reduced map (section 3.1, eq. 1 and 2).

    A strided convolution shortens the sequence of keys and values R² times, so the cost falls from N² to N²/R².
    R is (8, 4, 2, 1) over the four stages.
    """

    def __init__(self, channels: int, heads: int, reduction: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, eps=epsilon)

    def forward(self, tokens: Float[Tensor, "B h w D"]) -> Float[Tensor, "B h w D"]:
        """Let every token attend to the reduced map of all tokens."""
        batch, height, width, channels = tokens.shape
        context = tokens
        if self.reduction > 1:
            context = self.norm(F.linear(squares(tokens, self.reduction), self.reducing_weight(), self.reduce.bias))
        query = self.query(tokens).view(batch, -1, self.heads, channels // self.heads)
        pair = self.key_value(context).view(batch, -1, 2, self.heads, channels // self.heads)
        key, value = pair.unbind(2)
        mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.out(mixed.transpose(1, 2).reshape(batch, height, width, channels))

    def reducing_weight(self) -> Float[Tensor, "D E"]:
        """Return the reduction's matrix: kernel and stride are equal, so it is one product over cut-out squares."""
        return self.reduce.weight.permute(0, 2, 3, 1).flatten(1)


def squares(tokens: Float[Tensor, "B h w D"], side: int) -> Float[Tensor, "B n E"]:
    """Cut whole squares out of a map, rows first; each becomes the row of numbers that it is."""
    if side == 1:
        return tokens.flatten(1, 2)
    batch, height, width, channels = tokens.shape
    rows, columns = height // side, width // side
    cut = tokens[:, : rows * side, : columns * side].reshape(batch, rows, side, columns, side, channels)
    return cut.transpose(2, 3).reshape(batch, rows * columns, -1)


class MixFFN(nn.Module):
    """A feed-forward layer with a 3x3 depthwise convolution, whose zero padding tells positions (eq. 3)."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, tokens: Float[Tensor, "B h w D"]) -> Float[Tensor, "B h w D"]:
        """Mix the channels of each token, and its 3x3 neighbours."""
        hidden = self.depthwise(self.expand(tokens).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.project(F.gelu(hidden))


class Block(nn.Module):
    """Attention and Mix-FFN, each after a norm and around it a shortcut (figure 2)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        reduction: int,
        *,
        expansion: int,
        drop_path: float,
        epsilons: tuple[float, float],
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=epsilons[0])
        self.attention = EfficientSelfAttention(channels, heads, reduction, epsilons[1])
        self.norm2 = nn.LayerNorm(channels, eps=epsilons[0])
        self.feed_forward = MixFFN(channels, expansion)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B h w D"]) -> Float[Tensor, "B h w D"]:
        """Return tokens of the same shape."""
        tokens = self.drop_path(tokens, self.attention(self.norm1(tokens)))
        return self.drop_path(tokens, self.feed_forward(self.norm2(tokens)))


class MixTransformer(nn.Module):
    """The encoder MiT (section 3.1): four stages at strides 4, 8, 16 and 32."""

    strides = (4, 8, 16, 32)

    def __init__(self, variant: Variant, bands: int, drop_path: float, epsilons: tuple[float, float]) -> None:
        super().__init__()
        self.channels = variant.channels
        chances = iter(drop_path_chances(drop_path, sum(variant.depths)))
        inputs = (bands, *variant.channels[:3])
        self.embeddings, self.stages, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, channels in enumerate(variant.channels):
            patch, stride = (7, 4) if i == 0 else (3, 2)
            self.embeddings.append(
                OverlapPatchEmbedding(inputs[i], channels, patch=patch, stride=stride, epsilon=epsilons[1])
            )
            blocks = [
                Block(
                    channels,
                    variant.heads[i],
                    variant.reductions[i],
                    expansion=variant.expansion,
                    drop_path=next(chances),
                    epsilons=epsilons,
                )
                for _ in range(variant.depths[i])
            ]
            self.stages.append(nn.Sequential(*blocks))
            self.norms.append(nn.LayerNorm(channels, eps=epsilons[0]))

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the four feature maps [B,D,H/s,W/s], finest first; sizes round up, memory is channels-last."""
        features = []
        for embedding, blocks, norm in zip(self.embeddings, self.stages, self.norms, strict=True):
            image = norm(blocks(embedding(image))).permute(0, 3, 1, 2)
            features.append(image)
        return features


class AllMLPDecoder(nn.Module):
    """The all-MLP decoder (section 3.2, eq. 4): project, upsample, concatenate, fuse, classify.

    The fusing 1x1 convolution over concatenated maps is a sum of one product per map, and a product with a constant
    matrix commutes with bilinear upsampling. So each map is multiplied with (its slice of the fusing matrix times its
    projection) at its own resolution, and only then upsampled and added: the same function of the same parameters for
    8.3 instead of 16.8 GFLOP (B0 at 512x512, 150 classes), in training too.

    mmsegmentation normalises and rectifies each projection, so there the two products stay apart.
    """

    def __init__(self, inputs: Sequence[int], channels: int, classes: int, dropout: float, release: str) -> None:
        super().__init__()
        self.projections = nn.ModuleList(_projection(c, channels, release) for c in inputs)
        self.fuse = nn.Conv2d(channels * len(inputs), channels, 1, bias=False)
        self.norm = BatchNorm(channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map."""
        features = features[-len(self.projections) :]
        total = _sum_at_finest(self._fused_parts(features))
        fused = F.relu(self.norm(total), inplace=True)
        return Decoded(pointwise(self.dropout(fused), self.classifier), features=fused)

    def fuse_slices(self) -> list[Float[Tensor, "D D"]]:
        """Return the part of the fusing matrix that belongs to each feature map, finest first.

        The paper concatenates the coarsest map first.
        """
        return list(self.fuse.weight.flatten(1).chunk(len(self.projections), dim=1))[::-1]

    def _fused_parts(self, features: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        maps, matrices, shift = [], [], None
        for projection, fuse, feature in zip(self.projections, self.fuse_slices(), features, strict=True):
            if isinstance(projection, nn.Linear):
                maps.append(feature)
                matrices.append(fuse @ projection.weight)
                shift = fuse @ projection.bias if shift is None else shift + fuse @ projection.bias
            else:
                maps.append(projection(feature))
                matrices.append(fuse)
        # Upsampling keeps a constant, so all shifts are added, and their gradient summed, where the map is smallest.
        shifts = [*[None] * (len(maps) - 1), shift]
        parts = [F.linear(each.permute(0, 2, 3, 1), *rest) for each, *rest in zip(maps, matrices, shifts, strict=True)]
        return [part.permute(0, 3, 1, 2) for part in parts]


def _projection(inputs: int, channels: int, release: str) -> nn.Module:
    if release == "mmsegmentation":
        return nn.Sequential(nn.Conv2d(inputs, channels, 1, bias=False), BatchNorm(channels), nn.ReLU())
    return nn.Linear(inputs, channels)


def _sum_at_finest(parts: list[Tensor]) -> Tensor:
    """Upsample maps to the size of the first and add them, into one piece of memory: they are the largest here."""
    size = parts[0].shape[-2:]
    total = upsample(parts[-1], size)
    for part in parts[-2::-1]:
        total = total.add_(upsample(part, size))
    return total


def mix_transformer(
    variant: str,
    bands: int,
    *,
    drop_path: float = 0.1,
    release: str = "paper",
    widths: Sequence[int] = (),
    depths: Sequence[int] = (),
) -> MixTransformer:
    """Build the encoder MiT with fresh weights.

    Args:
        variant: b0 to b5 (table 6).
        bands: of the image.
        drop_path: chance of the last block to be left out in training, 0 to below 1; earlier blocks' grow up to it.
        release: whose norm epsilons, a name in `NORM_EPSILONS`; `load_weights` sets it to that of the weights.
        widths: channels of the four stages, multiples of their heads (1, 2, 5 and 8); empty: as the variant.
        depths: blocks of the four stages; empty: as the variant.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_chance(f"mit-{variant}: drop_path", drop_path)
    require_one_of(f"mit-{variant}: release", release, NORM_EPSILONS)
    own = VARIANTS[variant]
    sizes = replace(
        own,
        channels=sizes_of(f"mit-{variant}: widths", widths, own.channels),
        depths=sizes_of(f"mit-{variant}: depths", depths, own.depths),
    )
    for width, heads in zip(sizes.channels, sizes.heads, strict=True):
        if width % heads:
            raise ConfigError(
                f"mit-{variant}: widths are multiples of the stages' heads ({', '.join(map(str, sizes.heads))}), "
                f"and {width} is no multiple of {heads}."
            )
    encoder = MixTransformer(sizes, bands, drop_path, NORM_EPSILONS[release])
    encoder.apply(_initialise)
    return encoder


def all_mlp(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    dropout: float = 0.1,
    release: str = "paper",
) -> AllMLPDecoder:
    """Build the all-MLP decoder with fresh weights, for the maps of an encoder from stride 4 on.

    Args:
        channels, strides: of the encoder's maps.
        decoder_channels: of the projections; 256 for B0 and B1, 768 for the larger ones (table 6).
        dropout: chance of a channel before the classifier to be left out in training, 0 to below 1.
        release: whose projections, a name in `NORM_EPSILONS`; `load_weights` sets it to that of the weights.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_whole_number("all-mlp: decoder_channels", decoder_channels)
    require_chance("all-mlp: dropout", dropout)
    require_one_of("all-mlp: release", release, NORM_EPSILONS)
    inputs = [width for width, stride in zip(channels, strides, strict=True) if stride >= 4]
    decoder = AllMLPDecoder(inputs, decoder_channels, classes, dropout, release)
    decoder.apply(_initialise)
    initialise_classifier(decoder.classifier)
    return decoder


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    else:
        initialise_convolutions(module)
