"""ResNet's blocks for inference."""

from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.fast.convolution import FusedConvolution, folded_brick
from pixelwise.models.layers import ConvNorm
from pixelwise.models.resnet import BasicBlock, Bottleneck


class FusedResidual(nn.Module):
    """A block for inference, whose last convolution takes in the sum with the shortcut and the ReLU."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        *before, last = [folded_brick(layer) for layer in block.layers if isinstance(layer, ConvNorm)]
        self.before, self.last = nn.Sequential(*before), FusedConvolution(last, nn.ReLU())
        shortcut = block.shortcut
        self.shortcut = folded_brick(shortcut) if isinstance(shortcut, ConvNorm) else shortcut

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Return [B,D,H/stride,W/stride]."""
        return self.last(self.before(image), self.shortcut(image))
