"""Bricks that several papers share."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import ConfigError, DataError
from pixelwise.models.fused_convolution import FusedConvolution
from pixelwise.models.resized_convolution import convolve_resized, pays
from pixelwise.models.trained_linear import product


class BatchNorm(nn.BatchNorm2d):
    """A batch norm that refuses in a sentence what torch refuses with a traceback: one value per channel."""

    def forward(self, input: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the normalised map.

        Raises:
            DataError: in training, a single value per channel, which has no variance to divide by.
        """
        if self.training and input.numel() == input.shape[1]:
            raise DataError(
                "A batch of one image leaves one value per channel to a batch norm, with no variance to divide by. "
                "Raise [train].batch to at least 2. The network pools the whole image, or the crop is so small that "
                "its coarsest map has one pixel; then a larger [train].crop helps too."
            )
        return super().forward(input)


class ConvNorm(nn.Module):
    """A convolution, a batch norm and, unless it is left out, a ReLU: the brick of most convolutional networks.

    Padding keeps the size at stride 1. With ``norm=False`` the batch norm is left out.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        activation: type[nn.Module] | None = nn.ReLU,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias)
        self.norm = BatchNorm(outputs, eps=epsilon) if norm else nn.Identity()
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride], sizes rounded up."""
        return self.activation(self.norm(self.convolution(image)))

    def fused(self) -> FusedConvolution:
        """Return the same function with the batch norm folded into the convolution, for inference."""
        merged = self.convolution if isinstance(self.norm, nn.Identity) else folded(self.convolution, self.norm)
        assert isinstance(merged, nn.Conv2d)
        return FusedConvolution(merged, self.activation)


class AuxiliaryHead(nn.Module):
    """A 3x3 convolution and a classifier on an inner map, for training alone (PSPNet, section 3.3)."""

    def __init__(self, inputs: int, channels: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.mix = ConvNorm(inputs, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, image: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        """Return logits at the map's own stride."""
        return self.classifier(self.dropout(self.mix(image)))


class DropPath(nn.Module):
    """Adds a branch to all but a random share of images (stochastic depth, Huang et al. 2016, arXiv 1603.09382)."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, image: Float[Tensor, "B ..."], branch: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Return image + branch, or the image where that is left out; what is kept grows, so that the mean stays."""
        if not self.training or self.chance == 0:
            return image + branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.chance
        return torch.addcmul(image, branch, kept.to(branch.dtype) / (1 - self.chance))


def require_whole_numbers(
    name: str, values: object, *, count: int | None = None, least: int = 1, most: int = 64
) -> Sequence[int]:
    """Return an option that is a list of whole numbers from ``least`` on: ``count`` of them, or 1 to ``most``.

    Raises:
        ConfigError: it is something else.
    """
    if (
        isinstance(values, list | tuple)
        and (len(values) == count if count else 1 <= len(values) <= most)
        and all(isinstance(one, int) and not isinstance(one, bool) and one >= least for one in values)
    ):
        return values
    number = "a list of whole numbers" if count is None else f"a list of {count} whole numbers"
    raise ConfigError(f"{name} must be {number} from {least} on, such as {[least] * (count or 1)}, not {values!r}.")


def sizes_of(name: str, given: object, own: Sequence[int], *, least: int = 1) -> Any:
    """Return the sizes of an encoder's stages: those that a user gave, or the variant's own if he gave none.

    Args:
        name: of the encoder and its option, for messages.
        given: as many whole numbers as ``own`` has, at least ``least`` each; empty: the variant's own.

    Raises:
        ConfigError: something else.
    """
    if isinstance(given, list | tuple) and not given:
        return tuple(own)
    return tuple(require_whole_numbers(name, given, count=len(own), least=least))


def drop_path_chances(largest: float, blocks: int) -> list[float]:
    """Return the chance of each block to be left out: it grows linearly from 0 in the first to ``largest``."""
    return [largest * i / max(1, blocks - 1) for i in range(blocks)]


def resize(
    image: Float[Tensor, "B C h w"], size: tuple[int, int] | torch.Size, *, align_corners: bool = False
) -> Float[Tensor, "B C H W"]:
    """Resize to ``size`` (height, width), bilinear; what has that size already is returned as it is."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=align_corners)


def over_joined(
    layer: nn.Module,
    maps: Sequence[Float[Tensor, "B _ _ _"]],
    size: tuple[int, int] | torch.Size,
    *,
    align_corners: bool = False,
) -> Float[Tensor, "B D H W"]:
    """Apply a `ConvNorm`, or its folded form, to maps that are resized to ``size`` and joined in their order."""
    size = (size[0], size[1])
    if isinstance(layer, FusedConvolution) and pays(layer, maps, size):
        return convolve_resized(layer, maps, size, align_corners=align_corners)
    return layer(_joined(maps, size, align_corners))


def _joined(maps: Sequence[Tensor], size: tuple[int, int], align_corners: bool) -> Tensor:
    resized = [resize(one, size, align_corners=align_corners) for one in maps]
    return resized[0] if len(resized) == 1 else torch.cat(resized, dim=1)


def pointwise(image: Float[Tensor, "B C H W"], convolution: nn.Conv2d) -> Float[Tensor, "B D H W"]:
    """Apply a 1x1 convolution to a channels-last map as the matrix product that it is."""
    product = F.linear(image.permute(0, 2, 3, 1), convolution.weight.flatten(1), convolution.bias)
    return product.permute(0, 3, 1, 2)


class PlanesOfTokens(torch.autograd.Function):
    """The product of tokens [B,N,C] and each image's own matrix [B,D,C], plus [D]: a plane per channel, [B,D,N].

    torch's own gradient by the tokens would be planes too, and whatever reads it beside tokens would be slow.
    """

    @staticmethod
    def forward(ctx, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the planes."""
        ctx.save_for_backward(tokens, weight)
        planes = [product(own, image, None) for own, image in zip(weight, tokens, strict=True)]
        return torch.stack(planes).add_(bias[:, None])

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients by tokens, matrices and bias."""
        (gradient,) = grad_outputs
        # Under autocast the product was taken in half precision, of saved tensors that are not.
        tokens, weight = (saved.to(gradient.dtype) for saved in ctx.saved_tensors)
        by_weight = torch.stack([product(own, image.T, None) for own, image in zip(gradient, tokens, strict=True)])
        return torch.bmm(gradient.transpose(1, 2), weight), by_weight, gradient.sum(dim=(0, 2))


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Return what a batch norm multiplies with and adds, in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def folded(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    """Return one convolution, plain or transposed, that equals it and the batch norm after it, in evaluation."""
    assert isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    scale, shift = scale_and_shift(norm)
    merged = copy.deepcopy(convolution)
    # Outputs are the first axis of a convolution's weight, and the second of a transposed one's (without groups).
    by_output = scale[:, None, None, None] if isinstance(convolution, nn.Conv2d) else scale[:, None, None]
    merged.weight = nn.Parameter(convolution.weight * by_output)
    merged.bias = nn.Parameter(shift if convolution.bias is None else shift + convolution.bias * scale)
    return merged


def linear_of(weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None) -> nn.Linear:
    """Return a linear layer that holds these tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias)
    return linear


def initialise_convolutions(module: nn.Module) -> None:
    """Give one convolution normal weights of variance 2 / outputs, and no bias; for `apply`.

    Outputs are the values that one input value goes into (He et al. 2015, arXiv 1502.01852, section 2.2, backward
    case).
    """
    if isinstance(module, nn.Conv2d):
        _initialise_normal(module, module.weight[0, 0].numel() * module.out_channels / module.groups)
    elif isinstance(module, nn.ConvTranspose2d):
        initialise_by_inputs(module)


def initialise_by_inputs(module: nn.Module) -> None:
    """Give one convolution normal weights of variance 2 / inputs, and no bias; for `apply`.

    Inputs are the values that make one output value (He et al. 2015, section 2.2, forward case; U-Net, section 3: the
    "incoming nodes of one neuron"). So a map keeps its variance from layer to layer without a norm too.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        inputs = module.weight[0, 0].numel() * module.in_channels / module.groups
        if isinstance(module, nn.ConvTranspose2d):
            # Only one in stride x stride places of the kernel reaches a given output.
            inputs /= module.stride[0] * module.stride[1]
        _initialise_normal(module, inputs)


def initialise_classifier(layer: nn.Module, *, deviation: float = 0.01) -> None:
    """Start a classifier with small normal weights and no bias.

    So all classes start about equally likely, and the first cross-entropy of K classes is near ln K; the rules for
    hidden layers make logits of deviation 1 to 100. mmsegmentation starts its classifiers with a deviation of 0.01, and
    SegFormer, SegNeXt and SETR were trained with it. The papers of the other networks do not say how theirs start;
    there it is our choice.

    Args:
        layer: a convolution.
        deviation: 0.001 where the layer reads thousands of values, or maps that sums have made large.
    """
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _initialise_normal(layer: nn.Conv2d | nn.ConvTranspose2d, count: float) -> None:
    nn.init.normal_(layer.weight, std=math.sqrt(2 / count))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
