"""SegFormer's decoder for inference.

It works on a few rows of the map at a time: what lies between two products is made, read and forgotten within
a processor's cache.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelwise.fast.convolution import scale_and_shift
from pixelwise.fast.linear import linear_of
from pixelwise.models.segformer import AllMLPDecoder
from pixelwise.models.segmenter import Decoded
from pixelwise.upsampling import upsample

STRIP_ELEMENTS = 1 << 19
"""Values of the widest map in a strip of rows: 2 MB in float32."""


class FusedAllMLPDecoder(nn.Module):
    """An `AllMLPDecoder` for inference: one matrix per feature map, with the batch norm inside."""

    def __init__(self, projections: Sequence[nn.Module], matrices: Sequence[nn.Module], classifier: nn.Conv2d) -> None:
        super().__init__()
        self.projections, self.matrices = nn.ModuleList(projections), nn.ModuleList(matrices)
        self.classifier = classifier

    def forward(self, features: list[Float[Tensor, "B _ _ _"]]) -> Decoded:
        """Return logits at the stride of the finest map."""
        total, *parts = (
            matrix(projection(feature.permute(0, 2, 3, 1)))
            for feature, projection, matrix in zip(
                features[-len(self.matrices) :], self.projections, self.matrices, strict=True
            )
        )
        batch, height, width, channels = total.shape
        wide = [upsample(part.permute(0, 3, 1, 2), (part.shape[1], width)).permute(0, 2, 3, 1) for part in parts]
        matrices = [resizing_matrix(height, part[0]) for part in wide]
        # Line by line, with a plane for each class in a line, as the argmax reads them.
        logits = total.new_empty(batch, height, self.classifier.out_channels, width)
        assert self.classifier.bias is not None
        # Under autocast products have another type than weights.
        weight, bias = self.classifier.weight.flatten(1).to(total.dtype), self.classifier.bias.to(total.dtype)
        for image, top, bottom in strips(total, width * channels):
            strip = total[image, top:bottom]
            for part, matrix in zip(wide, matrices, strict=True):
                add_resized(strip, part[image], top, matrix)
            columns = strip.relu_().transpose(1, 2)
            torch.baddbmm(bias[:, None], weight.expand(bottom - top, -1, -1), columns, out=logits[image, top:bottom])
        return Decoded(logits.transpose(1, 2), features=total.permute(0, 3, 1, 2))


def fused_decoder(decoder: AllMLPDecoder) -> FusedAllMLPDecoder:
    """Return a decoder's form for inference."""
    matrices, projections = [], []
    scale, shift = scale_and_shift(decoder.norm)
    for projection, fuse in zip(decoder.projections, decoder.fuse_slices(), strict=True):
        fuse = scale[:, None] * fuse
        if isinstance(projection, nn.Linear):
            shift = shift + fuse @ projection.bias
            projections.append(nn.Identity())
            matrices.append(fuse @ projection.weight)
        else:
            projections.append(_folded_projection(projection))
            matrices.append(fuse)
    # Upsampling keeps a constant, so the shift is added where the map is smallest.
    linears = [*(linear_of(matrix, None) for matrix in matrices[:-1]), linear_of(matrices[-1], shift)]
    return FusedAllMLPDecoder(projections, linears, decoder.classifier)


def _folded_projection(projection: nn.Module) -> nn.Module:
    """mmsegmentation's convolution, batch norm and ReLU, as a linear map and a ReLU over channels-last maps."""
    assert isinstance(projection, nn.Sequential)
    convolution, norm = projection[0], projection[1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    scale, shift = scale_and_shift(norm)
    return nn.Sequential(linear_of(scale[:, None] * convolution.weight.flatten(1), shift), nn.ReLU())


def strips(tokens: Float[Tensor, "B h w D"], row: int) -> Iterator[tuple[int, int, int]]:
    """Cut maps into strips of rows: number of the image, first row, first row below.

    Args:
        row: how many numbers a row of the widest map has.
    """
    height = tokens.shape[1]
    # Other devices want few large steps.
    count = -(-height * row // STRIP_ELEMENTS) if tokens.device.type == "cpu" else 1
    edges = [height * i // count for i in range(count + 1)]
    for image in range(len(tokens)):
        for top, bottom in pairwise(edges):
            if top < bottom:
                yield image, top, bottom


def resizing_matrix(height: int, like: Float[Tensor, "h ..."]) -> Float[Tensor, "H h"]:
    """Return the matrix that resizes the rows of a map to ``height`` rows (bilinear, edges on edges)."""
    h = len(like)
    centre = (torch.arange(height, device=like.device, dtype=torch.float64) + 0.5) * (h / height) - 0.5
    rows = torch.arange(h, device=like.device)
    # Beyond the rim the outermost row stands for the ones that lack.
    return (1 - (centre.clamp(0, h - 1)[:, None] - rows).abs()).clamp(min=0).to(like.dtype)


def add_resized(
    total: Float[Tensor, "n W C"], part: Float[Tensor, "h W C"], top: int, matrix: Float[Tensor, "H h"]
) -> None:
    """Add the rows from ``top`` on of a map that is resized by a `resizing_matrix`, in place."""
    n, (height, h) = len(total), matrix.shape
    first = max(0, int((top + 0.5) * (h / height) - 0.5))
    last = min(h, int((top + n - 0.5) * (h / height) - 0.5) + 2)
    total.flatten(1).addmm_(matrix[top : top + n, first:last], part[first:last].flatten(1))
