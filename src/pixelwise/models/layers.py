"""Bricks that several papers share."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import DataError
from pixelwise.models.fused_convolution import FusedConvolution
from pixelwise.models.resized_convolution import convolve_resized, pays
from pixelwise.models.trained_linear import product


class ConvNorm(nn.Module):
    """A convolution, a batch norm and, unless it is left out, a rectifier: the brick of most convolutional networks.

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
        self.norm = nn.BatchNorm2d(outputs, eps=epsilon) if norm else nn.Identity()
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride], sizes rounded up.

        Raises:
            DataError: in training, a single value per channel, which has no variance to normalise by.
        """
        image = self.convolution(image)
        if self.training and image.shape[0] * image.shape[2] * image.shape[3] == 1 and self.norm.training:
            raise DataError(
                "A batch of one image leaves a single value per channel to a batch norm of this network, which pools "
                "whole images, so there is no variance to divide by. Raise [train].batch_size to at least 2."
            )
        return self.activation(self.norm(image))

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
    """Give one convolution the first weights of He et al. 2015 (arXiv 1502.01852, eq. 10, by outputs); for `apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
