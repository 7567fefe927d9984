"""ViT: an image is a sentence of patches, and a plain transformer reads it.

Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, ICLR 2021
(arXiv 2010.11929). All its maps have one stride; what others build on top takes some of its blocks' outputs (SETR,
arXiv 2012.15840) or the last (Segmenter, arXiv 2105.05633).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.fused_convolution import FusedConvolution
from pixelwise.models.layers import DropPath, drop_path_chances

HEAD_CHANNELS = 64
"""Channels of one head in every variant (table 1, and DeiT's table 1)."""


@dataclass(frozen=True)
class Variant:
    """A row of table 1, or of DeiT's (arXiv 2012.12877) for the two smallest."""

    channels: int
    depth: int


VARIANTS = {"tiny": Variant(192, 12), "small": Variant(384, 12), "base": Variant(768, 12), "large": Variant(1024, 24)}

TAPS = ("late", "even")
"""After which blocks the four maps are taken: those of SETR's auxiliary heads (of 24: 10, 15, 20, 24), or every fourth
part (6, 12, 18, 24; SETR-MLA)."""

CLASS_TOKENS = ("kept", "dropped")
"""The class token takes part in attention; or it is left out before the first block (SETR-MLA)."""


POSITION_RESIZES = ("bilinear", "bicubic")
"""How position embeddings are resized: as SETR, Segmenter and DEPICT do, or as mmsegmentation does."""


class Attention(nn.Module):
    """Multi-head self-attention (appendix A); queries, keys and values come from one product."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Return what each token gathers from all."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        chance = self.dropout.p if self.training else 0.0
        gathered = F.scaled_dot_product_attention(query, key, value, dropout_p=chance)
        return self.dropout(self.out(gathered.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """Two layers with a GELU between, four times as wide inside (section 3.1)."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Change every token by itself."""
        return self.dropout(self.project(self.dropout(F.gelu(self.expand(tokens)))))


class Block(nn.Module):
    """Attention, then a feed-forward network, each behind a norm and beside a shortcut (equations 2 and 3)."""

    def __init__(self, channels: int, heads: int, *, epsilon: float, dropout: float = 0.0, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=epsilon)
        self.attention = Attention(channels, heads, dropout)
        self.norm2 = nn.LayerNorm(channels, eps=epsilon)
        self.feed_forward = FeedForward(channels, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Return as many tokens."""
        tokens = self.drop_path(tokens, self.attention(self.norm1(tokens)))
        return self.drop_path(tokens, self.feed_forward(self.norm2(tokens)))

    def fused(self) -> nn.Module:
        """Return the same function for inference."""
        return FusedBlock(self)


class FusedBlock(nn.Module):
    """A `Block` for inference: what follows a matrix product is done in it, and norms only shift and divide.

    Tokens are a row of pixels here, so that a linear layer is a 1x1 convolution.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, feed_forward = block.attention, block.feed_forward
        self.heads, self.channels = attention.heads, attention.out.in_features
        self.epsilons = (block.norm1.eps, block.norm2.eps)
        self.qkv = FusedConvolution(_after_norm(block.norm1, attention.qkv))
        self.out = FusedConvolution(_as_convolution(attention.out.weight, attention.out.bias))
        self.expand = FusedConvolution(_after_norm(block.norm2, feed_forward.expand), nn.GELU())
        self.project = FusedConvolution(_as_convolution(feed_forward.project.weight, feed_forward.project.bias))

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Return as many tokens."""
        triple = _tokens(self.qkv(_row(self._normed(tokens, self.epsilons[0]))))
        query, key, value = triple.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = _tokens(self.out(_row(gathered), _row(tokens)))
        inner = self.expand(_row(self._normed(tokens, self.epsilons[1])))
        return _tokens(self.project(inner, _row(tokens)))

    def _normed(self, tokens: Tensor, epsilon: float) -> Tensor:
        return F.layer_norm(tokens, (self.channels,), eps=epsilon)


def _after_norm(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Conv2d:
    """Return a linear layer that holds the factors and the shift of the norm before it."""
    return _as_convolution(linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias)


def _as_convolution(weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"]) -> nn.Conv2d:
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device="meta")
    convolution.weight, convolution.bias = nn.Parameter(weight[..., None, None]), nn.Parameter(bias)
    return convolution


def _row(tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B C 1 N"]:
    return tokens[:, None].permute(0, 3, 1, 2)


def _tokens(row: Float[Tensor, "B C 1 N"]) -> Float[Tensor, "B N C"]:
    return row.permute(0, 2, 3, 1)[:, 0]


class VisionTransformer(nn.Module):
    """Patches, a class token and position embeddings (equation 1), then blocks.

    The position embeddings stand for a square image of ``image_size``; for others their grid is resized.
    """

    def __init__(
        self,
        bands: int,
        channels: int,
        depth: int,
        heads: int,
        *,
        patch: int,
        image_size: int,
        epsilon: float,
        drop_path: float,
        taps: str,
        class_token: str,
        position_resize: str,
        final_norm: bool,
        patch_bias: bool,
        distilled: bool,
    ) -> None:
        super().__init__()
        self.patch = self.multiple = patch
        self.channels = (channels,) * 4
        self.strides = (patch,) * 4
        self.taps = tapped_blocks(depth, taps)
        self.position_resize = position_resize
        self.class_token_kept = class_token == "kept"
        self.patches = nn.Conv2d(bands, channels, patch, patch, bias=patch_bias)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, channels)) if distilled else None
        self.extra = 2 if distilled else 1
        self.positions = nn.Parameter(torch.zeros(1, self.extra + (image_size // patch) ** 2, channels))
        self.blocks = nn.ModuleList(
            Block(channels, heads, epsilon=epsilon, drop_path=chance) for chance in drop_path_chances(drop_path, depth)
        )
        self.norm = nn.LayerNorm(channels, eps=epsilon) if final_norm else nn.Identity()

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B D h w"]]:
        """Return four maps of stride ``patch``, those of the later blocks last; H and W are multiples of ``patch``."""
        height, width = image.shape[-2] // self.patch, image.shape[-1] // self.patch
        return [
            tokens[:, -height * width :].unflatten(1, (height, width)).permute(0, 3, 1, 2)
            for tokens in self.tokens(image)
        ]

    def tokens(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B N D"]]:
        """Return the tokens of the four blocks, extra ones first and patches row by row; the last are normed."""
        embedded = self.patches(image)
        height, width = embedded.shape[-2:]
        positions = self.positions_for(height, width)
        tokens = embedded.flatten(2).transpose(1, 2)
        if self.class_token_kept:
            extra = (
                [self.class_token] if self.distillation_token is None else [self.class_token, self.distillation_token]
            )
            tokens = torch.cat([*(token.expand(len(tokens), -1, -1) for token in extra), tokens], dim=1)
        else:
            positions = positions[:, self.extra :]
        tokens = tokens + positions
        taken = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            taken += [tokens] * self.taps.count(i)
        return [*taken[:-1], self.norm(taken[-1])]

    def positions_for(self, height: int, width: int) -> Float[Tensor, "1 N D"]:
        """Return the position embeddings for an image of ``height`` x ``width`` patches."""
        return resized_positions(self.positions, self.extra, (height, width), self.position_resize)


def resized_positions(
    positions: Float[Tensor, "1 M D"], extra: int, size: tuple[int, int], mode: str
) -> Float[Tensor, "1 N D"]:
    """Return the position embeddings of a square of patches for ``size`` (height, width); the first ``extra`` stay.

    Args:
        mode: a name in `POSITION_RESIZES`.
    """
    side = math.isqrt(positions.shape[1] - extra)
    if size == (side, side):
        return positions
    grid = positions[:, extra:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=size, mode=mode, align_corners=False)
    return torch.cat([positions[:, :extra], grid.flatten(2).transpose(1, 2)], dim=1)


def tapped_blocks(depth: int, taps: str) -> tuple[int, int, int, int]:
    """Return the numbers, from 0, of the blocks after which maps are taken; see `TAPS`."""
    if taps == "even":
        return depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1, depth - 1
    # SETR has 9, 14, 19 and 23 of 24; a smaller network has them as far apart for its depth.
    step = math.ceil(depth / 5)
    return depth - 3 * step, depth - 2 * step, depth - step, depth - 1


def vit(
    variant: str,
    bands: int,
    *,
    image_size: int = 512,
    patch: int = 16,
    drop_path: float = 0.1,
    epsilon: float = 1e-6,
    taps: str = "late",
    class_token: str = "kept",
    position_resize: str = "bilinear",
    final_norm: bool = True,
    patch_bias: bool = True,
    distilled: bool = False,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
) -> VisionTransformer:
    """Build the encoder ViT with fresh weights.

    Args:
        variant: tiny, small, base or large.
        bands: of the image.
        image_size: side of the square image that the position embeddings stand for, a multiple of ``patch``; images
            of other sizes are taken too. `load_weights` sets it to that of the weights.
        patch: side of a patch in pixels, and the stride of the maps.
        drop_path: chance of the last block to be left out in training, 0 to below 1; earlier blocks' grow up to it.
        epsilon: of the norms, above 0: 1e-6 (the paper, timm, SETR, mmsegmentation) or 1e-5 (Segmenter, DEPICT).
        taps: a name in `TAPS`.
        class_token: a name in `CLASS_TOKENS`.
        position_resize: a name in `POSITION_RESIZES`.
        final_norm: the last map is normed (SETR's heads have norms of their own).
        patch_bias: the patch embedding has a bias (not in mmsegmentation's Segmenter).
        distilled: a distillation token stands beside the class token (DeiT's distilled networks).
        dim, depth, heads: other than the variant's: channels, a multiple of ``heads``; blocks, at least 6; heads of
            the attention, else ``dim`` / 64.

    Raises:
        ConfigError: an option that cannot be.
    """
    name = f"vit-{variant}"
    channels = VARIANTS[variant].channels if dim is None else dim
    depth = VARIANTS[variant].depth if depth is None else depth
    heads = heads_for(channels) if heads is None else heads
    for option, count, least in (("dim", channels, 1), ("depth", depth, 6), ("heads", heads, 1), ("patch", patch, 1)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ConfigError(f"{name}: {option} is a whole number from {least} on, not {count!r}.")
    if channels % heads:
        raise ConfigError(
            f"{name}: {channels} channels cannot be shared by {heads} heads. Give heads a divisor of dim."
        )
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < patch or image_size % patch:
        raise ConfigError(f"{name}: image_size is a multiple of the patch size, {patch}, not {image_size!r}.")
    if not isinstance(drop_path, int | float) or not 0 <= drop_path < 1:
        raise ConfigError(f"{name}: drop_path is a chance from 0 to below 1, not {drop_path!r}.")
    require_epsilon(name, epsilon)
    for option, value, known in (
        ("taps", taps, TAPS),
        ("class_token", class_token, CLASS_TOKENS),
        ("position_resize", position_resize, POSITION_RESIZES),
    ):
        if value not in known:
            raise ConfigError(f"{name}: {option} is one of {', '.join(known)}, not {value!r}.")
    for option, value in (("final_norm", final_norm), ("patch_bias", patch_bias), ("distilled", distilled)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: {option} is true or false, not {value!r}.")
    encoder = VisionTransformer(
        bands,
        channels,
        depth,
        heads,
        patch=patch,
        image_size=image_size,
        epsilon=epsilon,
        drop_path=drop_path,
        taps=taps,
        class_token=class_token,
        position_resize=position_resize,
        final_norm=final_norm,
        patch_bias=patch_bias,
        distilled=distilled,
    )
    encoder.apply(initialise_linear)
    initialise_linear(encoder.patches)
    for parameter in (encoder.class_token, encoder.distillation_token, encoder.positions):
        if parameter is not None:
            nn.init.trunc_normal_(parameter, std=0.02)
    return encoder


def heads_for(channels: int) -> int:
    """Return how many heads attention over ``channels`` has: of 64 channels each, or more where that does not fit."""
    return next(heads for heads in range(max(1, channels // HEAD_CHANNELS), 0, -1) if channels % heads == 0)


def require_epsilon(name: str, epsilon: object) -> None:
    """Check the epsilon of a norm.

    Raises:
        ConfigError: it is no number above 0.
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not epsilon > 0:
        raise ConfigError(f"{name}: epsilon is a number above 0, not {epsilon!r}.")


def initialise_linear(module: nn.Module) -> None:
    """Give one linear layer or patch embedding small random weights, as DeiT and Segmenter start; for `apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
