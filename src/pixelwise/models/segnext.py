"""SegNeXt: attention made of strip convolutions, and a decoder that factorises the map.

Guo et al., SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation, NeurIPS 2022 (arXiv
2209.08575); the decoder's matrix decomposition is that of Geng et al., Is Attention Better Than Matrix Decomposition?,
ICLR 2021 (arXiv 2109.04553). Sections and equations below are of the former.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelwise.errors import ConfigError
from pixelwise.models.layers import (
    BatchNorm,
    DropPath,
    drop_path_chances,
    initialise_classifier,
    initialise_convolutions,
    over_joined,
    resize,
)
from pixelwise.models.option_checks import require_chance, require_whole_number, sizes_of
from pixelwise.models.segmenter import Decoded


@dataclass(frozen=True)
class Variant:
    """A column of table 2."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    drop_path: float
    expansions: tuple[int, int, int, int] = (8, 8, 4, 4)


VARIANTS = {
    "t": Variant((32, 64, 160, 256), (3, 3, 5, 2), 0.1),
    "s": Variant((64, 128, 320, 512), (2, 2, 4, 2), 0.1),
    "b": Variant((64, 128, 320, 512), (3, 3, 12, 3), 0.1),
    "l": Variant((64, 128, 320, 512), (3, 5, 27, 3), 0.3),
}

STRIPS = (7, 11, 21)
"""Lengths of the strip convolutions (figure 2)."""
BASES_SEED = 4242
NMF_EPSILON = 1e-6


def made_again(layer: Callable[[Tensor], Tensor], image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Apply a layer whose inner maps are not kept for the backward pass, but computed again there."""
    if not torch.is_grad_enabled():
        return layer(image)
    return checkpoint(layer, image, use_reentrant=False, preserve_rng_state=False)


class MultiScaleConvolutionalAttention(nn.Module):
    """Weighs a map by what strip convolutions of three lengths see around each place (eq. 1 and 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.strips = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, (1, n), padding=(0, n // 2), groups=channels),
                nn.Conv2d(channels, channels, (n, 1), padding=(n // 2, 0), groups=channels),
            )
            for n in STRIPS
        )
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the weighted map."""
        local = self.local(image)
        return self.mix(sum((strip(local) for strip in self.strips), local)) * image


class Attention(nn.Module):
    """The attention between two 1x1 convolutions, and a shortcut around all (figure 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1)
        self.gate = MultiScaleConvolutionalAttention(channels)
        self.after = nn.Conv2d(channels, channels, 1)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return a map of the same shape."""
        return self.after(self.gate(F.gelu(self.before(image)))) + image


class FeedForward(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolutions (figure 2)."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return a map of the same shape."""
        return self.project(F.gelu(self.depthwise(self.expand(image))))


class Block(nn.Module):
    """Attention and feed-forward, each after a batch norm, scaled per channel, and with a shortcut."""

    def __init__(self, channels: int, expansion: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = BatchNorm(channels)
        self.attention = Attention(channels)
        self.scale1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.norm2 = BatchNorm(channels)
        self.feed_forward = FeedForward(channels, expansion)
        self.scale2 = nn.Parameter(torch.full((channels,), 1e-2))
        self.drop_path = DropPath(drop_path)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return a map of the same shape."""
        branch = made_again(self.attention, self.norm1(image))
        image = self.drop_path(image, self.scale1[:, None, None] * branch)
        branch = made_again(self.feed_forward, self.norm2(image))
        return self.drop_path(image, self.scale2[:, None, None] * branch)


class Downsampling(nn.Module):
    """A convolution of stride 2 and a batch norm between two stages."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, 2, padding=1)
        self.norm = BatchNorm(outputs)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/2,W/2]."""
        return self.norm(self.convolution(image))


class MSCAN(nn.Module):
    """The encoder (section 3.1, table 2): four stages at strides 4, 8, 16 and 32."""

    strides = (4, 8, 16, 32)

    def __init__(self, variant: Variant, bands: int, drop_path: float) -> None:
        super().__init__()
        self.channels = variant.channels
        chances = iter(drop_path_chances(drop_path, sum(variant.depths)))
        first = variant.channels[0]
        stem = nn.Sequential(Downsampling(bands, first // 2), nn.GELU(), Downsampling(first // 2, first))
        pairs = zip(variant.channels[:3], variant.channels[1:], strict=True)
        self.embeddings = nn.ModuleList([stem, *(Downsampling(inputs, outputs) for inputs, outputs in pairs)])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(Block(variant.channels[i], variant.expansions[i], next(chances)) for _ in range(variant.depths[i]))
            )
            for i in range(4)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in variant.channels)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the four feature maps [B,D,H/s,W/s], finest first; sizes round up."""
        features = []
        for embedding, blocks, norm in zip(self.embeddings, self.stages, self.norms, strict=True):
            image = blocks(embedding(image))
            image = norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            features.append(image)
        return features


class MatrixDecomposition(nn.Module):
    """Non-negative matrix factorisation by multiplicative updates (Geng et al., section 2.2, algorithm 1).

    The authors draw new bases at each call, so that one image gets two answers. Here they are drawn once, from a
    seed, for all images: two calls agree to the bit, and so do a batch and its single images.
    """

    bases: Tensor

    def __init__(self, channels: int, rank: int, *, training_steps: int = 6, steps: int = 7) -> None:
        super().__init__()
        self.training_steps, self.steps = training_steps, steps
        # numpy's generator is the same on all machines and in all versions, unlike torch's.
        drawn = np.random.default_rng(BASES_SEED).random((1, channels, rank)).astype(np.float32)
        # A tensor of data alone, even where the network is built without memory, so that no file need hold it.
        self.register_buffer("bases", F.normalize(torch.tensor(drawn, device="cpu"), dim=1), persistent=False)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the product of the factors; values of ``image`` are at least 0."""
        places = image.flatten(2)
        bases = self.bases.to(places).expand(image.shape[0], -1, -1)
        codes = torch.softmax(places.transpose(1, 2) @ bases, dim=-1)
        for _ in range(self.training_steps if self.training else self.steps):
            codes = self._better_codes(places, bases, codes)
            bases = bases * (places @ codes) / (bases @ (codes.transpose(1, 2) @ codes) + NMF_EPSILON)
        codes = self._better_codes(places, bases, codes)
        return (bases @ codes.transpose(1, 2)).view_as(image)

    @staticmethod
    def _better_codes(
        places: Float[Tensor, "B C N"], bases: Float[Tensor, "B C R"], codes: Float[Tensor, "B N R"]
    ) -> Float[Tensor, "B N R"]:
        gram = bases.transpose(1, 2) @ bases
        return codes * (places.transpose(1, 2) @ bases) / (codes @ gram + NMF_EPSILON)


class Squeeze(nn.Conv2d):
    """A 1x1 convolution without bias over joined maps: a sum of one product per map, which commutes with upsampling."""

    def over_joined(
        self, maps: Sequence[Float[Tensor, "B _ _ _"]], size: tuple[int, int], *, align_corners: bool
    ) -> Float[Tensor, "B D H W"]:
        """Return the convolution of maps that are resized to ``size`` and joined."""
        slices = self.weight.split([one.shape[1] for one in maps], dim=1)
        parts = [
            resize(F.conv2d(one, part), size, align_corners=align_corners)
            for one, part in zip(maps, slices, strict=True)
        ]
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]


class LightHamburger(nn.Module):
    """The decoder (section 3.2, figure 3c): maps from stride 8 on, squeezed, decomposed, added and classified."""

    def __init__(self, inputs: Sequence[int], channels: int, classes: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.squeeze = Squeeze(sum(inputs), channels, 1, bias=False)
        self.squeeze_norm = nn.GroupNorm(32, channels)
        self.bread_in = nn.Conv2d(channels, channels, 1)
        self.ham = MatrixDecomposition(channels, rank)
        self.bread_out = nn.Conv2d(channels, channels, 1, bias=False)
        self.bread_norm = nn.GroupNorm(32, channels)
        self.align = nn.Conv2d(channels, channels, 1, bias=False)
        self.align_norm = nn.GroupNorm(32, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map that is used."""
        features = features[-len(self.inputs) :]
        squeezed = F.relu(self.squeeze_norm(over_joined(self.squeeze, features, features[0].shape[-2:])))
        burger = self.bread_norm(self.bread_out(self.ham(F.relu(self.bread_in(squeezed)))))
        mixed = self.dropout(F.relu(self.align_norm(self.align(F.relu(squeezed + burger)))))
        return Decoded(self.classifier(mixed), features=mixed)


def mscan(
    variant: str,
    bands: int,
    *,
    drop_path: float | None = None,
    widths: Sequence[int] = (),
    depths: Sequence[int] = (),
) -> MSCAN:
    """Build the encoder MSCAN with fresh weights.

    Args:
        variant: t, s, b or l (table 2).
        bands: of the image.
        drop_path: chance of the last block to be left out in training, 0 to below 1; earlier blocks' grow up to it.
            None: 0.1, and 0.3 for l.
        widths: channels of the four stages, at least 2 each; empty: as the variant.
        depths: blocks of the four stages; empty: as the variant.

    Raises:
        ConfigError: an option that is wrong.
    """
    chance = VARIANTS[variant].drop_path if drop_path is None else drop_path
    require_chance(f"mscan-{variant}: drop_path", chance)
    own = VARIANTS[variant]
    sizes = replace(
        own,
        channels=sizes_of(f"mscan-{variant}: widths", widths, own.channels, least=2),
        depths=sizes_of(f"mscan-{variant}: depths", depths, own.depths),
    )
    encoder = MSCAN(sizes, bands, chance)
    encoder.apply(initialise_convolutions)
    return encoder


def ham(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    rank: int = 16,
    dropout: float = 0.1,
) -> LightHamburger:
    """Build the decoder Light Hamburger with fresh weights, for the maps of an encoder from stride 8 on.

    Args:
        channels, strides: of the encoder's maps.
        decoder_channels: inside; a multiple of 32 (256 for T and S, 512 for B, 1024 for L).
        rank: of the decomposition (16 for T and S, 64 for B and L).
        dropout: chance of a channel before the classifier to be left out in training, 0 to below 1.

    Raises:
        ConfigError: an option that is wrong, or an encoder without such a map.
    """
    require_whole_number("ham: decoder_channels", decoder_channels, least=32)
    require_whole_number("ham: rank", rank)
    require_chance("ham: dropout", dropout)
    if decoder_channels % 32:
        raise ConfigError(f"SegNeXt's decoder_channels is a multiple of 32 (its group norms), not {decoder_channels}.")
    inputs = [width for width, stride in zip(channels, strides, strict=True) if stride >= 8]
    if not inputs:
        raise ConfigError(
            f"The decoder ham reads maps from stride 8 on, and the encoder has the strides {list(strides)}. "
            "Take an encoder that goes deeper, such as mscan-t.",
            code="PW308",
        )
    decoder = LightHamburger(inputs, decoder_channels, classes, rank, dropout)
    decoder.apply(initialise_convolutions)
    initialise_classifier(decoder.classifier)
    return decoder
