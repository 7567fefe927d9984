"""ViT: an image is a sentence of patches, and a plain transformer reads it.

Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, ICLR 2021
(arXiv 2010.11929). All its maps have one stride; what others build on top takes some of its blocks' outputs (SETR,
arXiv 2012.15840) or the last (Segmenter, arXiv 2105.05633), or works among its tokens (EoMT, arXiv 2503.19108).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import DropPath, drop_path_chances, recorded_bicubic
from pixelwise.models.option_checks import require_chance, require_one_of, require_positive, require_whole_number
from pixelwise.upsampling import recorded

HEAD_CHANNELS = 64
"""Channels of one head in every variant (table 1, and DeiT's table 1)."""


@dataclass(frozen=True)
class Variant:
    """A row of table 1, or of DeiT's (arXiv 2012.12877) for the two smallest."""

    channels: int
    depth: int
    feed_forward: str = "mlp"
    """A name in `FEED_FORWARDS`."""


VARIANTS = {"tiny": Variant(192, 12), "small": Variant(384, 12), "base": Variant(768, 12), "large": Variant(1024, 24)}

TAPS = ("late", "even")
"""After which blocks the four maps are taken: those of SETR's auxiliary heads (of 24: 10, 15, 20, 24), or every fourth
part (6, 12, 18, 24; SETR-MLA)."""

CLASS_TOKENS = ("kept", "dropped")
"""The class token takes part in attention; or it is left out before the first block (SETR-MLA)."""


POSITION_RESIZES = ("bilinear", "bicubic", "antialias", "offset")
"""How position embeddings are resized: as SETR, Segmenter and DEPICT do ("bilinear"); as mmsegmentation and
transformers' DINOv2 do ("bicubic"); bicubic, and smoothed where the grid shrinks, as timm and DINOv2 with registers do
("antialias"); or bicubic by a factor of (size + 0.1) / side, as DINOv2's release does ("offset")."""

FEED_FORWARDS = ("mlp", "swiglu")
"""Two layers with a GELU between; or with a gate that multiplies (Shazeer 2020, arXiv 2002.05202; DINOv2's giant)."""

Mask = Bool[Tensor, "B 1 N N"] | None
"""Which tokens (last axis) a token attends to; None: all."""


class Attention(nn.Module):
    """Multi-head self-attention (appendix A); queries, keys and values come from one product."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "B N C"], mask: Mask = None) -> Float[Tensor, "B N C"]:
        """Return what each token gathers from all, or from those that the mask leaves."""
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        chance = self.dropout.p if self.training else 0.0
        gathered = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=chance)
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


class GatedFeedForward(nn.Module):
    """SwiGLU: one half of the inner channels, through a SiLU, multiplies the other (arXiv 2002.05202, equation 6).

    Inside it is as wide as a `FeedForward` of as many parameters, rounded up to a multiple of 8, as in DINOv2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = -(-int(4 * channels * 2 / 3) // 8) * 8
        self.expand = nn.Linear(channels, 2 * inner)
        self.project = nn.Linear(inner, channels)

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Change every token by itself."""
        gate, value = self.expand(tokens).chunk(2, dim=-1)
        return self.project(F.silu(gate) * value)


class LayerScale(nn.Module):
    """Multiplies each channel of a branch by a learned factor (CaiT, Touvron et al. 2021, arXiv 2103.17239).

    It starts at 1, so that a fresh network is the plain one; DINOv2 was trained from 1e-5.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(channels))

    def forward(self, tokens: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        """Return the branch, scaled."""
        return tokens * self.factor


class Block(nn.Module):
    """Attention, then a feed-forward network, each behind a norm and beside a shortcut (equations 2 and 3)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        epsilon: float,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: bool = False,
        feed_forward: str = "mlp",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=epsilon)
        self.attention = Attention(channels, heads, dropout)
        self.scale1 = LayerScale(channels) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(channels, eps=epsilon)
        self.feed_forward = FeedForward(channels, dropout) if feed_forward == "mlp" else GatedFeedForward(channels)
        self.scale2 = LayerScale(channels) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Float[Tensor, "B N C"], mask: Mask = None) -> Float[Tensor, "B N C"]:
        """Return as many tokens."""
        tokens = self.drop_path(tokens, self.scale1(self.attention(self.norm1(tokens), mask)))
        return self.drop_path(tokens, self.scale2(self.feed_forward(self.norm2(tokens))))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a ViT is made of: its options in `create`.

    Raises:
        ConfigError: an option that is wrong.
    """

    image_size: int = 512
    """Side of the square image that the position embeddings stand for, a multiple of ``patch``; images of other sizes
    are taken too. `load_weights` sets it to that of the weights."""
    patch: int = 16
    """Side of a patch in pixels, and the stride of the maps."""
    drop_path: float = 0.1
    """Chance of the last block to be left out in training, 0 to below 1; earlier blocks' grow up to it."""
    epsilon: float = 1e-6
    """Of the norms: 1e-6 (the paper, timm, SETR, mmsegmentation) or 1e-5 (Segmenter, DEPICT)."""
    taps: str = "late"
    """A name in `TAPS`."""
    class_token: str = "kept"
    """A name in `CLASS_TOKENS`."""
    position_resize: str = "bilinear"
    """A name in `POSITION_RESIZES`."""
    final_norm: bool = True
    """The last map is normed (SETR's heads have norms of their own)."""
    patch_bias: bool = True
    """The patch embedding has a bias (not in mmsegmentation's Segmenter)."""
    distilled: bool = False
    """A distillation token stands beside the class token (DeiT's distilled networks)."""
    registers: int = 0
    """Tokens without a place that stand behind the class token (Darcet et al. 2023, arXiv 2309.16588)."""
    layer_scale: bool = False
    """Each block scales what it adds, channel by channel."""
    feed_forward: str | None = None
    """A name in `FEED_FORWARDS`; None: the variant's."""
    dim: int | None = None
    """Channels, a multiple of the heads; None: the variant's."""
    depth: int | None = None
    """Blocks, at least 6; None: the variant's."""
    heads: int | None = None
    """Of the attention; None: as `heads_for` has it."""

    def __post_init__(self) -> None:
        require_whole_number("ViT's patch", self.patch)
        for name, value, least in (("dim", self.dim, 1), ("depth", self.depth, 6), ("heads", self.heads, 1)):
            if value is not None:
                require_whole_number(f"ViT's {name}", value, least=least)
        require_whole_number("ViT's image_size", self.image_size)
        if self.image_size % self.patch:
            raise ConfigError(
                f"ViT's image_size is a multiple of the patch size, {self.patch}, not {self.image_size!r}."
            )
        require_chance("ViT's drop_path", self.drop_path)
        require_positive("ViT's epsilon", self.epsilon)
        require_one_of("ViT's taps", self.taps, TAPS)
        require_one_of("ViT's class_token", self.class_token, CLASS_TOKENS)
        require_one_of("ViT's position_resize", self.position_resize, POSITION_RESIZES)
        if self.feed_forward is not None:
            require_one_of("ViT's feed_forward", self.feed_forward, FEED_FORWARDS)
        require_whole_number("ViT's registers", self.registers, least=0)


class VisionTransformer(nn.Module):
    """Patches, a class token and position embeddings (equation 1), then blocks.

    The position embeddings stand for a square image; for others their grid is resized.
    """

    def __init__(self, bands: int, size: Variant, heads: int, options: Options) -> None:
        super().__init__()
        channels, depth = size.channels, size.depth
        patch, epsilon = options.patch, options.epsilon
        self.patch = self.multiple = patch
        self.channels = (channels,) * 4
        self.strides = (patch,) * 4
        self.taps = tapped_blocks(depth, options.taps)
        self.position_resize = options.position_resize
        self.class_token_kept = options.class_token == "kept"
        self.patches = nn.Conv2d(bands, channels, patch, patch, bias=options.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, channels)) if options.distilled else None
        self.registers = nn.Parameter(torch.zeros(1, options.registers, channels)) if options.registers else None
        self.extra = 2 if options.distilled else 1
        self.positions = nn.Parameter(torch.zeros(1, self.extra + (options.image_size // patch) ** 2, channels))
        self.blocks = nn.ModuleList(
            Block(
                channels,
                heads,
                epsilon=epsilon,
                drop_path=chance,
                layer_scale=options.layer_scale,
                feed_forward=size.feed_forward,
            )
            for chance in drop_path_chances(options.drop_path, depth)
        )
        self.norm = nn.LayerNorm(channels, eps=epsilon) if options.final_norm else nn.Identity()

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B D h w"]]:
        """Return four maps of stride ``patch``, those of the later blocks last; H and W are multiples of ``patch``."""
        height, width = image.shape[-2] // self.patch, image.shape[-1] // self.patch
        return [
            tokens[:, -height * width :].reshape(-1, height, width, tokens.shape[-1]).permute(0, 3, 1, 2)
            for tokens in self.tokens(image)
        ]

    def tokens(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B N D"]]:
        """Return the tokens of the four blocks, extra ones first and patches row by row; the last are normed."""
        tokens = self.embedded(image)
        taken = []
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            taken += [tokens] * self.taps.count(i)
        return [*taken[:-1], self.norm(taken[-1])]

    def embedded(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        """Return the tokens that the first block sees: class token, registers, then patches row by row."""
        embedded = self.patches(image)
        height, width = embedded.shape[-2:]
        positions = self.positions_for(height, width)
        patches = embedded.flatten(2).transpose(1, 2) + positions[:, self.extra :]
        if not self.class_token_kept:
            return patches
        named = [self.class_token] if self.distillation_token is None else [self.class_token, self.distillation_token]
        extra = [token + positions[:, i : i + 1] for i, token in enumerate(named)]
        if self.registers is not None:
            extra.append(self.registers)
        return torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in extra), patches], dim=1)

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
    if not recorded() and size == (side, side):
        return positions
    grid = positions[:, extra:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if recorded() and mode in ("offset", "antialias"):
        grid = recorded_bicubic(grid, size, added=0.1 if mode == "offset" else 0.0, antialias=mode == "antialias")
    elif mode == "offset":
        # The release computes with this factor, not with the quotient of the sizes.
        factor = ((size[0] + 0.1) / side, (size[1] + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=factor, mode="bicubic")
    else:
        smooth = mode == "antialias"
        grid = F.interpolate(grid, size=size, mode="bicubic" if smooth else mode, antialias=smooth)
    return torch.cat([positions[:, :extra], grid.flatten(2).transpose(1, 2)], dim=1)


def tapped_blocks(depth: int, taps: str) -> tuple[int, int, int, int]:
    """Return the numbers, from 0, of the blocks after which maps are taken; see `TAPS`."""
    if taps == "even":
        return depth // 4 - 1, depth // 2 - 1, 3 * depth // 4 - 1, depth - 1
    # SETR has 9, 14, 19 and 23 of 24; a smaller network has them as far apart for its depth.
    step = math.ceil(depth / 5)
    return depth - 3 * step, depth - 2 * step, depth - step, depth - 1


def vit(variant: str, bands: int, options: Options = Options()) -> VisionTransformer:
    """Build the encoder ViT with fresh weights.

    Args:
        variant: tiny, small, base or large.
        bands: of the image.

    Raises:
        ConfigError: heads that do not divide the channels.
    """
    return transformer(f"vit-{variant}", VARIANTS[variant], bands, options)


def transformer(name: str, variant: Variant, bands: int, options: Options) -> VisionTransformer:
    """Build a ViT of a variant's size with fresh weights.

    Args:
        name: of the encoder, for messages.

    Raises:
        ConfigError: heads that do not divide the channels.
    """
    size = Variant(
        options.dim or variant.channels, options.depth or variant.depth, options.feed_forward or variant.feed_forward
    )
    heads = options.heads or heads_for(size.channels)
    if size.channels % heads:
        raise ConfigError(
            f"{name}: {heads} heads cannot share {size.channels} channels evenly. Give heads a divisor of dim."
        )
    encoder = VisionTransformer(bands, size, heads, options)
    encoder.apply(initialise_linear)
    initialise_linear(encoder.patches)
    for parameter in (encoder.class_token, encoder.distillation_token, encoder.registers, encoder.positions):
        if parameter is not None:
            nn.init.trunc_normal_(parameter, std=0.02)
    return encoder


def heads_for(channels: int) -> int:
    """Return how many heads attention over ``channels`` has: of 64 channels each, or more where that does not fit."""
    return next(heads for heads in range(max(1, channels // HEAD_CHANNELS), 0, -1) if channels % heads == 0)


def initialise_linear(module: nn.Module) -> None:
    """Give one linear layer or patch embedding small random weights, as DeiT and Segmenter start; for `apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
