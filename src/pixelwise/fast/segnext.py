"""SegNeXt's blocks for inference."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.fast.convolution import FusedConvolution, scale_and_shift
from pixelwise.models.segnext import Block

STRIP_ELEMENTS = 1 << 20
"""Largest number of values in a strip of the hidden map of a feed-forward layer: 4 MB in float32."""


class FusedBlock(nn.Module):
    """A `Block` for inference: eight convolutions and little else."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, gate, feed_forward = block.attention, block.attention.gate, block.feed_forward
        scale, shift = scale_and_shift(block.norm1)
        self.before = FusedConvolution(_after_norm(block.norm1, attention.before), nn.GELU())
        self.local = FusedConvolution(gate.local)
        self.strips = nn.ModuleList(
            nn.Sequential(*(FusedConvolution(part) for part in strip.children() if isinstance(part, nn.Conv2d)))
            for strip in gate.strips
        )
        self.mix = FusedConvolution(gate.mix)
        # The attention's own shortcut starts at the norm, so it is the image, scaled and shifted.
        self.after = FusedConvolution(_scaled(attention.after, block.scale1, block.scale1 * shift))
        self.scale = nn.Parameter(1 + block.scale1 * scale)
        self.expand = FusedConvolution(_after_norm(block.norm2, feed_forward.expand))
        self.depthwise = FusedConvolution(feed_forward.depthwise, nn.GELU())
        self.project = FusedConvolution(_scaled(feed_forward.project, block.scale2, None))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return a map of the same shape."""
        gated = self.before(image)
        total = local = self.local(gated)
        for strip in self.strips:
            across, down = strip.children()
            total = down(across(local), total)
        image = self.after(self.mix(total).mul_(gated), image * self.scale[:, None, None])
        height, width = image.shape[-2:]
        rows = STRIP_ELEMENTS // (len(image) * width * self.expand.out_channels)
        if rows < 1 or rows >= height:
            return self._fed_forward(image)
        # The hidden map is several times wider than the image: what stays in cache need not be written and read.
        parts = []
        for top in range(0, height, rows):
            above, below = max(0, top - 1), min(height, top + rows + 1)
            part = self._fed_forward(image[:, :, above:below])
            parts.append(part[:, :, top - above : top - above + rows])
        return torch.cat(parts, dim=2)

    def _fed_forward(self, image: Tensor) -> Tensor:
        return self.project(self.depthwise(self.expand(image)), image)


def _after_norm(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a 1x1 convolution that holds the norm before it."""
    assert convolution.bias is not None
    scale, shift = scale_and_shift(norm)
    merged = copy.deepcopy(convolution)
    merged.weight = nn.Parameter(convolution.weight * scale[:, None, None])
    merged.bias = nn.Parameter(convolution.bias + convolution.weight.flatten(1) @ shift)
    return merged


def _scaled(convolution: nn.Conv2d, scale: Float[Tensor, " D"], shift: Float[Tensor, " D"] | None) -> nn.Conv2d:
    """Return a convolution whose result is scaled and shifted."""
    assert convolution.bias is not None
    merged = copy.deepcopy(convolution)
    merged.weight = nn.Parameter(convolution.weight * scale[:, None, None, None])
    merged.bias = nn.Parameter(convolution.bias * scale + (0 if shift is None else shift))
    return merged
