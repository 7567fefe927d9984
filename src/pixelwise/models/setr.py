"""SETR: a plain transformer instead of a convolutional encoder, and three ways back to the image's resolution.

Zheng et al., Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers, CVPR 2021
(arXiv 2012.15840). The encoder is the plain `vit`; the decoders are those of section 3.3.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models.layers import (
    ConvNorm,
    initialise_classifier,
    initialise_convolutions,
    normed,
    over_joined,
    pointwise,
    resize,
)
from pixelwise.models.option_checks import require_one_of, require_positive, require_whole_number
from pixelwise.models.segmenter import Decoded

AUXILIARY_WEIGHT = 0.4
"""Of each auxiliary head in the loss."""


class UpsamplingHead(nn.Module):
    """Convolutions with upsampling in between, from one map to logits: Naive and PUP, and their auxiliary heads.

    Args:
        level: which of the encoder's maps.
        norm: over the channels of each cell.
        layers: convolutions.
        factors: for each of them, how much larger its result is made, bilinear.
        classifier: a 1x1 convolution.
        enlargement: how much larger the logits are made. The release does so before the classifier, which is the same
            function, as both are linear and the weights of bilinear upsampling add up to 1.
        auxiliary: heads for training, on other maps.
    """

    def __init__(
        self,
        level: int,
        norm: nn.LayerNorm,
        layers: Iterable[nn.Module],
        factors: Sequence[int],
        classifier: nn.Conv2d,
        *,
        enlargement: int = 1,
        auxiliary: Iterable["UpsamplingHead"] = (),
    ) -> None:
        super().__init__()
        self.level = level
        self.norm = norm
        self.layers = nn.ModuleList(layers)
        self.factors = tuple(factors)
        self.classifier = classifier
        self.enlargement = enlargement
        self.auxiliary = nn.ModuleList(auxiliary)
        self.aux_weights = {f"aux{i}": AUXILIARY_WEIGHT for i in range(len(self.auxiliary))}

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride that is reached."""
        image = normed(features[self.level], self.norm)
        size = image.shape[-2:]
        for layer, factor in zip(self.layers, self.factors, strict=True):
            image = over_joined(layer, [image], size)
            size = (factor * size[0], factor * size[1])
        image = resize(image, size)
        logits = enlarged(pointwise(image, self.classifier), self.enlargement)
        aux = {f"aux{i}": head(features).logits for i, head in enumerate(self.auxiliary)}
        return Decoded(logits, aux, image)


class AggregationHead(nn.Module):
    """Multi-level feature aggregation (MLA, figure 1c): four maps of one stride, added from the last to the first.

    Args:
        norms: of the four maps, over the channels of each cell.
        projections: 1x1 convolutions of the maps.
        smoothings: 3x3 convolutions of the sums.
        streams: what each sum passes before it is made four times larger.
        classifier: of the four concatenated.
        auxiliary: classifiers of the sums, for training.
    """

    def __init__(
        self,
        norms: Iterable[nn.Module],
        projections: Iterable[nn.Module],
        smoothings: Iterable[nn.Module],
        streams: Iterable[nn.Module],
        classifier: nn.Conv2d,
        auxiliary: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)
        self.projections = nn.ModuleList(projections)
        self.smoothings = nn.ModuleList(smoothings)
        self.streams = nn.ModuleList(streams)
        self.classifier = classifier
        self.auxiliary = nn.ModuleList(auxiliary)
        self.aux_weights = {f"aux{i}": AUXILIARY_WEIGHT for i in range(len(self.auxiliary))}

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at a quarter of the maps' stride."""
        sums = self.sums(features)
        height, width = sums[0].shape[-2:]
        wide = torch.cat(
            [
                resize(stream(part), (4 * height, 4 * width), align_corners=True)
                for part, stream in zip(sums, self.streams, strict=True)
            ],
            dim=1,
        )
        aux = {f"aux{i}": head(part) for i, (part, head) in enumerate(zip(sums, self.auxiliary, strict=False))}
        return Decoded(self.classifier(wide), aux, wide)

    def sums(self, features: list[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D h w"]]:
        """Return the four aggregated maps, that of the earliest block first."""
        maps = [
            projection(normed(feature, norm))
            for feature, norm, projection in zip(features[-4:], self.norms, self.projections, strict=True)
        ]
        for i in (2, 1, 0):
            maps[i] = maps[i] + maps[i + 1]
        return [smoothing(part) for part, smoothing in zip(maps, self.smoothings, strict=True)]


def enlarged(image: Float[Tensor, "B C H W"], factor: int) -> Float[Tensor, "B C h w"]:
    """Make a map ``factor`` times larger, bilinear."""
    return resize(image, (factor * image.shape[-2], factor * image.shape[-1]))


def setr_naive(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    kernel: int = 1,
    aux_kernel: int = 1,
    epsilon: float = 1e-6,
) -> UpsamplingHead:
    """Build the naive decoder with fresh weights: two convolutions on the last map, and the logits are upsampled.

    Args:
        channels, strides: of the encoder's maps; auxiliary heads stand on the last four.
        decoder_channels: between the convolutions.
        kernel, aux_kernel: 1 or 3, of the first convolution, and of that of the auxiliary heads.
        epsilon: of the layer norm before it, above 0.

    Raises:
        ConfigError: an option that is wrong.
    """
    _require("setr-naive", decoder_channels, kernel, aux_kernel, epsilon)
    auxiliary = [
        _head(i, channels[i], classes, decoder_channels, (aux_kernel,), (1,), epsilon) for i in _last_four(channels)
    ]
    return _head(-1, channels[-1], classes, decoder_channels, (kernel,), (1,), epsilon, auxiliary=auxiliary)


def setr_pup(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    kernel: int = 3,
    aux_kernel: int = 3,
    epsilon: float = 1e-6,
) -> UpsamplingHead:
    """Build the decoder with progressive upsampling (figure 1b) with fresh weights.

    The last map is doubled after each of three convolutions; the fourth gives the logits, which are doubled again with
    the resize to full size.

    Args:
        channels, strides: of the encoder's maps; auxiliary heads stand on the last four.
        decoder_channels: of the convolutions.
        kernel, aux_kernel: 1 or 3, of the convolutions, and of those of the auxiliary heads.
        epsilon: of the layer norm before them, above 0.

    Raises:
        ConfigError: an option that is wrong.
    """
    _require("setr-pup", decoder_channels, kernel, aux_kernel, epsilon)
    auxiliary = [
        # Four times, so from stride 16 to 4; the finer maps of a pyramid less.
        _head(
            i,
            channels[i],
            classes,
            decoder_channels,
            (aux_kernel,),
            (1,),
            epsilon,
            enlargement=min(4, max(1, strides[i] // 4)),
        )
        for i in _last_four(channels)
    ]
    return _head(-1, channels[-1], classes, decoder_channels, (kernel,) * 4, (2, 2, 2, 1), epsilon, auxiliary=auxiliary)


def setr_mla(
    channels: Sequence[int],
    strides: Sequence[int],
    classes: int,
    *,
    decoder_channels: int = 256,
    stream_channels: int = 128,
    epsilon: float = 1e-6,
) -> AggregationHead:
    """Build the decoder with multi-level feature aggregation (figure 1c) with fresh weights.

    Args:
        channels, strides: of the encoder's maps; the last four must have one stride.
        decoder_channels: of the sums.
        stream_channels: of each sum's stream.
        epsilon: of the layer norms, above 0.

    Raises:
        ConfigError: an option that is wrong, or an encoder whose last four maps differ in stride.
    """
    require_positive("setr-mla: epsilon", epsilon)
    require_whole_number("setr-mla: decoder_channels", decoder_channels)
    require_whole_number("setr-mla: stream_channels", stream_channels)
    if len(strides) < 4 or len(set(strides[-4:])) > 1:
        raise ConfigError(
            f"setr-mla adds four maps of one stride without resizing them, but this encoder's strides are "
            f"{', '.join(map(str, strides))}. Take a plain transformer, such as encoder='vit-small', or "
            "decoder='setr-pup'.",
            code="PW308",
        )
    head = AggregationHead(
        [nn.LayerNorm(width, eps=epsilon) for width in channels[-4:]],
        [ConvNorm(width, decoder_channels, 1) for width in channels[-4:]],
        [ConvNorm(decoder_channels, decoder_channels) for _ in range(4)],
        [
            nn.Sequential(ConvNorm(decoder_channels, stream_channels), ConvNorm(stream_channels, stream_channels))
            for _ in range(4)
        ],
        nn.Conv2d(4 * stream_channels, classes, 3, padding=1),
        [nn.Conv2d(decoder_channels, classes, 1, bias=False) for _ in range(4)],
    )
    head.apply(initialise_convolutions)
    for classifier in (head.classifier, *head.auxiliary):
        initialise_classifier(classifier)
    return head


def _head(
    level: int,
    inputs: int,
    classes: int,
    channels: int,
    kernels: Sequence[int],
    factors: Sequence[int],
    epsilon: float,
    *,
    enlargement: int = 1,
    auxiliary: Iterable[UpsamplingHead] = (),
) -> UpsamplingHead:
    layers = [ConvNorm(inputs if i == 0 else channels, channels, kernel, bias=True) for i, kernel in enumerate(kernels)]
    classifier = nn.Conv2d(channels, classes, 1)
    nn.ModuleList(layers).apply(initialise_convolutions)
    initialise_classifier(classifier)
    norm = nn.LayerNorm(inputs, eps=epsilon)
    return UpsamplingHead(level, norm, layers, factors, classifier, enlargement=enlargement, auxiliary=auxiliary)


def _last_four(channels: Sequence[int]) -> list[int]:
    """Return the places of the last four maps, or of all if there are fewer, counted from the last."""
    return list(range(-min(4, len(channels)), 0))


def _require(name: str, channels: object, kernel: object, aux_kernel: object, epsilon: object) -> None:
    require_positive(f"{name}: epsilon", epsilon)
    require_whole_number(f"{name}: decoder_channels", channels)
    require_one_of(f"{name}: kernel", kernel, (1, 3))
    require_one_of(f"{name}: aux_kernel", aux_kernel, (1, 3))
