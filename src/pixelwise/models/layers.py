"""Bricks that several papers share."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.errors import DataError
from pixelwise.processes import own_share, world
from pixelwise.upsampling import has_size, recorded


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
                "Raise [train].batch_size to at least 2. The network pools the whole image, or the crop is so small "
                "that its coarsest map has one pixel; then a larger [train].crop_size helps too.",
                code="PW609",
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
        # Drawn for the whole batch, which several processes may share.
        images = world() * len(branch)
        kept = own_share(torch.rand(images, *[1] * (branch.ndim - 1), device=branch.device)) >= self.chance
        return torch.addcmul(image, branch, kept.to(branch.dtype) / (1 - self.chance))


def drop_path_chances(largest: float, blocks: int) -> list[float]:
    """Return the chance of each block to be left out: it grows linearly from 0 in the first to ``largest``."""
    return [largest * i / max(1, blocks - 1) for i in range(blocks)]


def resize(
    image: Float[Tensor, "B C h w"], size: tuple[int, int] | torch.Size, *, align_corners: bool = False
) -> Float[Tensor, "B C H W"]:
    """Resize to ``size`` (height, width), bilinear; what has that size already is returned as it is."""
    if has_size(image, size):
        return image
    return F.interpolate(image, size=tuple(size), mode="bilinear", align_corners=align_corners)


def adaptive_mean(image: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B C side side"]:
    """Return the means of ``side`` x ``side`` parts of equal size, which share rows where they do not divide the image.

    The recorded form, for images of any size, is the same as two products: pooling is linear, rows then columns.
    """
    if not recorded():
        return F.adaptive_avg_pool2d(image, side)
    rows, columns = (_shares(length, side, image) for length in image.shape[-2:])
    return rows @ image @ columns.transpose(0, 1)


def _shares(length: int, parts: int, like: Tensor) -> Float[Tensor, "parts length"]:
    """Return how much of each part's mean a row is; part i goes from floor(i n / parts) to ceil((i + 1) n / parts)."""
    first = torch.arange(parts, device=like.device)[:, None]
    begin, end = first * length // parts, ((first + 1) * length + parts - 1) // parts
    row = torch.arange(length, device=like.device)
    return ((row >= begin) & (row < end)).to(like.dtype) / (end - begin).to(like.dtype)


def recorded_bicubic(
    grid: Float[Tensor, "B C n n"], size: tuple[int, int] | torch.Size, *, added: float, antialias: bool
) -> Float[Tensor, "B C H W"]:
    """Resize a square grid to ``size`` as `F.interpolate` does, bicubic, as two products that a graph has for any size.

    Args:
        added: to both sides of ``size``, where these are divided by the grid's; a size that is the grid's own stays.
        antialias: smooth where the grid shrinks, with another kernel.
    """
    side = int(grid.shape[-1])
    height, width = (torch.zeros((), device=grid.device) + length for length in size)
    more = added * (1 - ((height == side) & (width == side)).float())
    rows, columns = (
        _cubic_shares(torch.arange(length, device=grid.device), side, count + more, antialias)
        for length, count in zip(size, (height, width), strict=True)
    )
    if not antialias:
        # Beyond the rim, the outermost cell is repeated.
        grid = F.pad(grid, (2, 2, 2, 2), mode="replicate")
    return rows @ grid @ columns.transpose(0, 1)


def _cubic_shares(row: Tensor, side: int, length: Tensor, antialias: bool) -> Float[Tensor, "length _"]:
    """Return how much of each row each of ``side`` cells is; without ``antialias`` with two cells beyond either end."""
    factor, margin = side / length, 0 if antialias else 2
    stretch = factor.clamp(min=1) if antialias else 1
    centre = (row[:, None] + 0.5) * factor - 0.5
    cells = torch.arange(-margin, side + margin, device=row.device)
    # Torch has a kernel of its own for either, and shares that add up to 1 where it smooths.
    share = _cubic((cells - centre) / stretch, -0.5 if antialias else -0.75)
    return share / share.sum(dim=1, keepdim=True) if antialias else share


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Return Keys's kernel of cubic convolution (1981, equation 15, where a is -1/2)."""
    d = distance.abs()
    near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


SMALLEST_MAP = 8
"""Cells of a map of stride 4 of the smallest image, 32 x 32."""


def block_means(image: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B C _ _"]:
    """Return the means of blocks of ``side`` x ``side``, or of the image's shorter side if that is less.

    Rows and columns that fill no block are left out. The recorded form of large blocks is the same as two products, so
    that it holds for images smaller than a block too: of those a recorded pooling would return nothing.
    """
    height, width = image.shape[-2:]
    if not recorded():
        side = min(side, height, width)
    if not recorded() or side <= SMALLEST_MAP:
        return F.avg_pool2d(image, side, side)
    side = _least(side, height, width)
    rows, columns = (_blocks(length, side, image) for length in (height, width))
    return rows @ image @ columns.transpose(0, 1)


def _least(number: Any, *lengths: Any) -> Any:
    """Return the least of some numbers; lengths are tensors while torch traces, and symbols while it exports."""
    for length in lengths:
        if isinstance(length, Tensor):
            number = torch.minimum(length, torch.as_tensor(number))
        else:
            number = torch.sym_min(length, number)
    return number


def _blocks(length: Any, side: Any, like: Tensor) -> Float[Tensor, "blocks length"]:
    """Return how much of each block's mean a row is."""
    block = torch.arange(length // side, device=like.device)[:, None]
    row = torch.arange(length, device=like.device)
    return (row // side == block).to(like.dtype) / side


def over_joined(
    layer: nn.Module,
    maps: Sequence[Float[Tensor, "B _ _ _"]],
    size: tuple[int, int] | torch.Size,
    *,
    align_corners: bool = False,
) -> Float[Tensor, "B D H W"]:
    """Apply a layer to maps that are resized to ``size`` and joined in their order.

    A layer that knows a way without resizing or joining has a method of this name.
    """
    size = (size[0], size[1])
    shortcut = getattr(layer, "over_joined", None)
    if shortcut is not None:
        return shortcut(maps, size, align_corners=align_corners)
    return layer(joined(maps, size, align_corners=align_corners))


def joined(
    maps: Sequence[Float[Tensor, "B _ _ _"]], size: tuple[int, int], *, align_corners: bool
) -> Float[Tensor, "B C H W"]:
    """Return maps, resized to ``size`` and joined in their order."""
    resized = [resize(one, size, align_corners=align_corners) for one in maps]
    return resized[0] if len(resized) == 1 else torch.cat(resized, dim=1)


def pointwise(image: Float[Tensor, "B C H W"], convolution: nn.Conv2d) -> Float[Tensor, "B D H W"]:
    """Apply a 1x1 convolution to a channels-last map as the matrix product that it is."""
    product = F.linear(image.permute(0, 2, 3, 1), convolution.weight.flatten(1), convolution.bias)
    return product.permute(0, 3, 1, 2)


def fitted_to_bands(weight: Float[Tensor, "D C k l"], bands: int) -> Float[Tensor, "D N k l"]:
    """Fit the weight of a first convolution to other bands.

    The bands of the weights come first and new ones start at 0, so that the answer is at first that of the old bands;
    of fewer bands the first are kept, and a single one takes the sum over all, so that a grey image is answered as its
    copies were.
    """
    fitted = weight.new_zeros(len(weight), bands, *weight.shape[2:])
    shared = min(bands, weight.shape[1])
    fitted[:, :shared] = weight.sum(dim=1, keepdim=True) if bands == 1 else weight[:, :shared]
    return fitted


def normed(image: Float[Tensor, "B C H W"], norm: nn.Module) -> Float[Tensor, "B C H W"]:
    """Apply a layer norm over the channels of each cell."""
    return norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def initialise_convolutions(module: nn.Module) -> None:
    """Give one convolution normal weights of variance 2 / outputs, and no bias; for `apply`.

    Outputs are the values that one input value goes into (He et al. 2015, arXiv 1502.01852, section 2.2, backward
    case).
    """
    if isinstance(module, nn.Conv2d):
        outputs = module.weight[0, 0].numel() * module.out_channels / module.groups
        _initialise_normal(module, math.sqrt(2 / outputs))
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
        _initialise_normal(module, math.sqrt(2 / inputs))


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
    _initialise_normal(layer, deviation)


def _initialise_normal(layer: nn.Conv2d | nn.ConvTranspose2d, deviation: float) -> None:
    # On the meta device there is nothing to draw, which torch takes long to find out.
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
