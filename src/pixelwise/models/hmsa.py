"""Hierarchical multi-scale attention: a network looks at an image in several sizes, and learns which to trust.

Tao, Sapra, Catanzaro: Hierarchical Multi-Scale Attention for Semantic Segmentation, 2020 (arXiv 2005.10821). Sections
and equations below are of that paper.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import ConvNorm, initialise_classifier, initialise_convolutions, resize
from pixelwise.models.option_checks import require_positive
from pixelwise.models.segmenter import MINIMUM_SIZE, Architecture, Decoded, Segmenter


class ScalePyramid(nn.Module):
    """The network's encoder on several sizes of the image."""

    def __init__(
        self, network: nn.Module, multiple: int, scales: Sequence[float], training_scales: Sequence[float]
    ) -> None:
        super().__init__()
        self.network, self.multiple_inside = network, multiple
        self.scales, self.training_scales = tuple(scales), tuple(training_scales)
        self.channels, self.strides = network.channels, network.strides

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Return the image and, for each scale from the largest down, the image at that scale and the encoder's maps.

        The encoder sees zeros right and below, where the network pads, or cannot look at so small an image.
        """
        maps = [image]
        for scale in sorted(self.training_scales if self.training else self.scales, reverse=True):
            size = (max(1, math.floor(image.shape[-2] * scale)), max(1, math.floor(image.shape[-1] * scale)))
            scaled = resize(image, size)
            rows, columns = padded(size, self.multiple_inside, smallest_side(self.network))
            maps += [scaled, *self.network(F.pad(scaled, (0, columns - size[1], 0, rows - size[0])))]
        return maps


class HierarchicalDecoder(nn.Module):
    """The network's decoder on each size, and the mixture of its answers (section 3.1, eq. 1).

    From the largest size down, what a size says is weighed by its own attention against all that was said before.
    Logits and attention are first upsampled to the size of their image, as in the authors' release.
    """

    def __init__(self, network: nn.Module, multiple: int, smallest: int, maps: int, features: int) -> None:
        super().__init__()
        self.network, self.multiple_inside, self.smallest, self.maps = network, multiple, smallest, maps
        self.upsampling_aligned: bool = getattr(network, "align_corners", False)
        self.aux_weights: dict[str, float] = dict(getattr(network, "aux_weights", {}))
        self.attention = nn.Sequential(
            ConvNorm(features, 256, 3), ConvNorm(256, 256, 3), nn.Conv2d(256, 1, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the size of the image, and auxiliary logits that are mixed alike."""
        image, *features = features
        mixed: dict[str, Tensor] = {}
        for i in range(0, len(features), self.maps + 1):
            scaled, *maps = features[i : i + self.maps + 1]
            decoded, size = self.network(maps), (scaled.shape[-2], scaled.shape[-1])
            answers = self.answers(decoded, size)
            if not mixed:
                mixed = answers
                if self.training:
                    # Nothing is weighed against the largest size; but the norms inside count what they are shown.
                    self.trust(decoded, size)
                continue
            trust = self.trust(decoded, size)
            if scaled.shape[-2] >= image.shape[-2]:
                for name, answer in answers.items():
                    before = resize(mixed[name], size)
                    mixed[name] = trust * answer + (1 - trust) * before
            else:
                larger = mixed["logits"].shape[-2:]
                doubt = 1 - resize(trust, larger)
                for name, answer in answers.items():
                    mixed[name] = resize(trust * answer, larger) + doubt * mixed[name]
        full = {name: resize(one, image.shape[-2:]) for name, one in mixed.items()}
        return Decoded(full.pop("logits"), full)

    def answers(self, decoded: Decoded, size: tuple[int, int]) -> dict[str, Float[Tensor, "B K H W"]]:
        """Return logits and auxiliary logits by name, for an image of ``size`` and at its size."""
        dense = {name: aux for name, aux in decoded.aux.items() if name in self.aux_weights and aux.ndim == 4}
        return {name: self._upsampled(part, size) for name, part in {"logits": decoded.logits, **dense}.items()}

    def trust(self, decoded: Decoded, size: tuple[int, int]) -> Float[Tensor, "B 1 H W"]:
        """Return the attention, 0 to 1, for an image of ``size`` and at its size."""
        assert decoded.features is not None
        return self._upsampled(self.attention(decoded.features), size)

    def _upsampled(self, part: Float[Tensor, "B D h w"], size: tuple[int, int]) -> Float[Tensor, "B D H W"]:
        covered = padded(size, self.multiple_inside, self.smallest)
        return resize(part, covered, align_corners=self.upsampling_aligned)[..., : size[0], : size[1]]


def padded(size: tuple[int, int], multiple: int, smallest: int) -> tuple[int, int]:
    """Return the size of the image that a network is given for one of ``size``."""
    height, width = (-(-max(side, smallest) // multiple) * multiple for side in size)
    return height, width


def smallest_side(encoder: nn.Module) -> int:
    """Return the shortest side of an image that an encoder can look at."""
    return getattr(encoder, "smallest", MINIMUM_SIZE)


def hierarchical(
    network: Segmenter,
    architecture: Architecture,
    *,
    maps: int,
    features: int,
    scales: Sequence[float] = (0.5, 1.0, 2.0),
    training_scales: Sequence[float] = (0.5, 1.0),
) -> Segmenter:
    """Put hierarchical attention around a network.

    Args:
        network: any; its encoder and decoder are taken over.
        architecture: of the result.
        maps: how many its encoder returns.
        features: channels of the map that the network's classifier sees.
        scales: sizes of the image to look at in evaluation, as multiples; they may be changed later as
            ``model.encoder.scales``.
        training_scales: those in training (section 3.1: 0.5 and 1).

    Raises:
        ConfigError: no scale, or one that is not positive.
    """
    for name, values in (("scales", scales), ("training_scales", training_scales)):
        if not isinstance(values, list | tuple) or not values:
            raise ConfigError(f"hmsa's {name} are a list of numbers, such as [0.5, 1.0], not {values!r}.")
        for value in values:
            require_positive(f"Each of hmsa's {name}", value)
    encoder = ScalePyramid(network.encoder, network.multiple, scales, training_scales)
    decoder = HierarchicalDecoder(network.decoder, network.multiple, smallest_side(network.encoder), maps, features)
    decoder.attention.apply(initialise_convolutions)
    # The sigmoid starts near 1/2, where it learns; by the rule of hidden layers it would start at 0 or 1.
    initialise_classifier(decoder.attention[-2])
    return Segmenter(encoder, decoder, architecture)
