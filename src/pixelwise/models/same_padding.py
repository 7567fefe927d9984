"""Strided convolutions that pad as little as they can, and on the right and below first: PaddlePaddle's 'same'.

Where the stride divides the size, a 3x3 convolution of stride 2 then sees one pixel further right and below than one
that pads all sides alike, so weights of the one give wrong answers in the other.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.models.layers import ConvNorm


def padded_as_same(image: Float[Tensor, "B C H W"], kernel: int, stride: int) -> Float[Tensor, "B C _ _"]:
    """Pad with zeros so that a convolution without padding gives sizes of H/stride, rounded up."""
    pads = []
    for side in (image.shape[-1], image.shape[-2]):
        total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
        pads += [total // 2, total - total // 2]
    return F.pad(image, pads)


class SameConvNorm(nn.Module):
    """A `ConvNorm` padded so; its tensors have the same names."""

    def __init__(self, brick: ConvNorm) -> None:
        super().__init__()
        self.convolution, self.norm, self.activation = brick.convolution, brick.norm, brick.activation
        self.kernel, self.stride = brick.convolution.kernel_size[0], brick.convolution.stride[0]
        self.convolution.padding = (0, 0)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride], sizes rounded up."""
        image = padded_as_same(image, self.kernel, self.stride)
        return self.activation(self.norm(self.convolution(image)))


def pad_as_same(network: nn.Module) -> None:
    """Let all strided `ConvNorm` of a network pad so."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ConvNorm) and child.convolution.stride[0] > 1:
                setattr(parent, name, SameConvNorm(child))
