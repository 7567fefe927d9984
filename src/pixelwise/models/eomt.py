"""EoMT: a plain transformer that segments by itself, with queries among the tokens of its last blocks.

Kerssies et al., Your ViT is Secretly an Image Segmentation Model, CVPR 2025 (arXiv 2503.19108). A query becomes a mask
and the class of that mask; there is no decoder beside the encoder. While it learns, a query attends only to the
patches of its mask so far. This is annealed away block by block, so that the trained network needs no masks inside and
is as fast as its encoder. Sections below are of that paper.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import normed
from pixelwise.models.option_checks import require_true_or_false, require_whole_number
from pixelwise.models.segmenter import Decoded, Masks
from pixelwise.models.vit import Mask, VisionTransformer, initialise_linear
from pixelwise.upsampling import recorded, strips, upsample, upsample_rows

EPSILON = 1e-6
"""Of the norms of the upscaling."""
ANNEALING_POWER = 0.9
"""Of the decay of a block's chance of masked attention (appendix)."""


class Upscaling(nn.Module):
    """Doubles a map: a transposed convolution, a GELU, a depthwise 3x3 convolution and a norm (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.LayerNorm(channels, eps=EPSILON)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Return a map of twice the height and width."""
        return normed(self.mix(F.gelu(self.expand(image))), self.norm)


class QueryDecoder(nn.Module):
    """Queries among the tokens of the encoder's last blocks, and what masks and classes are made with.

    Args:
        channels: of the encoder's tokens.
        queries: how many; each is a mask at most.
        query_blocks: in how many of the encoder's last blocks they take part.
        upscalings: how often patches are doubled before they are multiplied with queries.
        masked_attention: train with it, and with an answer before each of these blocks.
        full_size: logits are made from masks at full size, as the authors do; else at the masks' own.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        queries: int,
        query_blocks: int,
        upscalings: int,
        masked_attention: bool,
        full_size: bool,
    ) -> None:
        super().__init__()
        self.query_blocks, self.masked_attention, self.full_size = query_blocks, masked_attention, full_size
        self.queries = nn.Parameter(torch.randn(queries, channels))
        self.classifier = nn.Linear(channels, classes + 1)
        self.mask_embedding = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels), nn.GELU(),
            nn.Linear(channels, channels),
        )  # fmt: skip
        self.upscale = nn.Sequential(*(Upscaling(channels) for _ in range(upscalings)))
        self.register_buffer("mask_chances", torch.zeros(query_blocks))
        self.mask_chances: Tensor
        self.evaluated = [0.0] * query_blocks
        """The chances in evaluation, as numbers: while torch exports, the tensor has no values."""

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Refuse maps: this decoder works among the tokens of its encoder (`within`).

        Raises:
            ConfigError: always.
        """
        raise ConfigError("EoMT works inside its encoder and takes no maps. Call decode() of the whole network.")

    def within(self, encoder: VisionTransformer, image: Float[Tensor, "B C H W"]) -> Decoded:
        """Return the answers, and logits made from the last one (`class_logits`)."""
        tokens = encoder.embedded(image)
        size = (image.shape[-2] // encoder.patch, image.shape[-1] // encoder.patch)
        blocks = list(encoder.blocks)
        for block in blocks[: -self.query_blocks]:
            tokens = block(tokens)
        tokens = torch.cat([self.queries.expand(image.shape[0], -1, -1), tokens], dim=1)
        answers = []
        for block, chance in zip(blocks[-self.query_blocks :], self._chances(), strict=True):
            mask = None
            if chance > 0 or (self.training and self.masked_attention):
                answers.append(self.answer(encoder.norm(tokens), size))
                mask = self._attention_mask(tokens, answers[-1].masks, size, chance)
            tokens = block(tokens, mask)
        answers.append(self.answer(encoder.norm(tokens), size))
        covered = (image.shape[-2], image.shape[-1])
        large = self.full_size and not self.training
        return Decoded(class_logits(answers[-1], covered if large else None), answers=tuple(answers))

    def answer(self, tokens: Float[Tensor, "B N C"], size: tuple[int, int]) -> Masks:
        """Return the masks and classes of tokens that are normed: queries first, patches last (figure 2)."""
        queries = tokens[:, : len(self.queries)]
        patches = tokens[:, -size[0] * size[1] :].reshape(-1, *size, tokens.shape[-1]).permute(0, 3, 1, 2)
        pixels = self.upscale(patches)
        masks = (self.mask_embedding(queries) @ pixels.flatten(2)).reshape(-1, queries.shape[1], *pixels.shape[-2:])
        return Masks(masks, self.classifier(queries))

    def anneal(self, share: float) -> None:
        """Set each block's chance of masked attention for a share of the training that is done (section 3.3).

        The chance is 1 at first. Block after block, each in its own part of L + 2 equal ones, it falls to 0; the first
        and the last part have none. So do the authors' configurations.
        """
        parts = self.query_blocks + 2
        if self.masked_attention:
            done = [min(1.0, max(0.0, share * parts - 1 - i)) for i in range(self.query_blocks)]
            self.mask_chances.copy_(torch.tensor([(1 - one) ** ANNEALING_POWER for one in done]))

    def train(self, mode: bool = True) -> "QueryDecoder":
        """Begin or end training; at its end, keep the chances that evaluation has."""
        super().train(mode)
        if not mode:
            self.evaluated = self._chances()
        return self

    def _chances(self) -> list[float]:
        """Return each block's chance of masked attention; in evaluation 0 or 1, so that answers are not random."""
        if recorded():
            return self.evaluated
        if self.mask_chances.is_meta or not self.masked_attention:
            return [0.0] * self.query_blocks
        chances = self.mask_chances.tolist()
        return chances if self.training else [float(chance >= 0.5) for chance in chances]

    def _attention_mask(
        self, tokens: Float[Tensor, "B N C"], masks: Float[Tensor, "B Q _ _"], size: tuple[int, int], chance: float
    ) -> Mask:
        """Return who attends to whom: of the patches, a query sees those of its mask, or by chance all."""
        if chance <= 0:
            return None
        batch, length, count = tokens.shape[0], tokens.shape[1], len(self.queries)
        inside = F.interpolate(masks, size, mode="bilinear").flatten(2) > 0
        if chance < 1:
            inside |= torch.rand(batch, count, 1, device=tokens.device) > chance
        allowed = torch.ones(batch, 1, length, length, dtype=torch.bool, device=tokens.device)
        allowed[:, 0, :count, -inside.shape[2] :] = inside
        return allowed


def class_logits(answer: Masks, size: tuple[int, int] | None = None) -> Float[Tensor, "B K _ _"]:
    """Return the logarithm of each class's score: what all masks give it, each by its class's probability (equation 1).

    The score of a class at a pixel is the sum over masks of the mask's sigmoid times the class's probability. Of its
    logarithm, the softmax is the share of a class in all scores, and the highest logit is the highest score.

    Args:
        answer: masks and their classes.
        size: height and width that the masks are upsampled to before their sigmoid, bilinear; None: as they are.
    """
    dtype = torch.promote_types(answer.masks.dtype, torch.float32)
    # Autocast would multiply in half precision. The meta device knows no autocast.
    whole = nullcontext() if answer.masks.is_meta else torch.autocast(answer.masks.device.type, enabled=False)
    with whole:
        probabilities = answer.classes.to(dtype).softmax(dim=-1)[..., :-1].transpose(1, 2)
        masks = answer.masks.to(dtype)
        if size is None:
            return _log_scores(probabilities, masks)
        if recorded():
            # Strips would be those of the size at hand.
            return _log_scores(probabilities, upsample(masks, size))
        rows = [upsample_rows(masks, size, top, bottom) for top, bottom in strips(masks.shape, size)]
        return torch.cat([_log_scores(probabilities, strip) for strip in rows], dim=2)


def _log_scores(probabilities: Float[Tensor, "B K Q"], masks: Float[Tensor, "B Q h w"]) -> Float[Tensor, "B K h w"]:
    scores = probabilities @ masks.sigmoid().flatten(2)
    logs = scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
    return logs.reshape(-1, probabilities.shape[1], *masks.shape[-2:])


def eomt(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    queries: int = 100,
    query_blocks: int = 3,
    masked_attention: bool = True,
    full_size: bool = True,
) -> QueryDecoder:
    """Build what EoMT adds to a plain transformer, with fresh weights.

    Args:
        channels, strides: of the encoder's maps. The encoder is a ViT, such as DINOv2.
        queries: how many masks there are at most (100 for semantic maps, 200 for panoptic ones in the paper).
        query_blocks: how many of the encoder's last blocks see the queries (3 for small and base, 4 for large, 5 for
            giant).
        masked_attention: train with masked attention, annealed away, and with an answer before each of these blocks.
        full_size: logits are made at full size, where masks are upsampled before they are weighed, as the authors do.
            False: at the masks' size, about a quarter; that takes a sixteenth of memory and differs along borders.

    Raises:
        ConfigError: an option that is wrong.
    """
    require_whole_number("eomt: queries", queries)
    require_whole_number("eomt: query_blocks", query_blocks)
    require_true_or_false("eomt: masked_attention", masked_attention)
    require_true_or_false("eomt: full_size", full_size)
    # Patches of 16 pixels are doubled twice, to a quarter of the image.
    upscalings = max(1, int(math.log2(strides[-1])) - 2)
    decoder = QueryDecoder(
        channels[-1],
        classes,
        queries=queries,
        query_blocks=query_blocks,
        upscalings=upscalings,
        masked_attention=masked_attention,
        full_size=full_size,
    )
    initialise_linear(decoder.classifier)
    return decoder


def require_transformer(name: str, encoder_name: str, encoder: nn.Module, decoder: QueryDecoder) -> None:
    """Check that queries can stand among the tokens of an encoder.

    Raises:
        ConfigError: it is no plain transformer, or has too few blocks.
    """
    if not isinstance(encoder, VisionTransformer):
        raise ConfigError(
            f"{name}: queries stand among the tokens of one of our own plain transformers, and {encoder_name} is none "
            "of them. Take encoder='dinov2-small' or another of the DINOv2 and ViT encoders, or another decoder.",
            code="PW308",
        )
    if decoder.query_blocks > len(encoder.blocks):
        raise ConfigError(
            f"{name}: query_blocks = {decoder.query_blocks}, but {encoder_name} has {len(encoder.blocks)} blocks. Give "
            "that many or fewer."
        )
