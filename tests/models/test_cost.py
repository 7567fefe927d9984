"""Cost, against counts by hand."""

import pytest
import torch
from torch import Tensor, nn

import pixelwise as pw
from pixelwise.models import Architecture, Decoded, Segmenter


class OneConvolution(nn.Module):
    channels, strides = (8,), (4,)

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 4, 4)

    def forward(self, image: Tensor) -> list[Tensor]:
        # A view costs nothing, and a change in place makes nothing.
        return [self.convolution(image).flatten(2).unflatten(2, (image.shape[2] // 4, -1)).relu_()]


class First(nn.Module):
    def forward(self, maps: list[Tensor]) -> Decoded:
        return Decoded(maps[0])


def test_a_convolution_and_a_change_in_place_are_counted_as_by_hand():
    model = Segmenter(OneConvolution(), First(), Architecture("one", 8, 3))
    found = pw.cost(model, size=(64, 32))
    image, output, weights = 3 * 64 * 32, 8 * 16 * 8, 3 * 8 * 16 + 8
    assert found.parameters == weights
    assert found.flops == 2 * output * 3 * 16
    assert found.activation_bytes == 4 * output
    assert found.traffic_bytes == 4 * (image + weights + output) + 4 * (output + output)


def flops_by_hand(classes, height, width):
    """SegFormer-B0 with the rearranged decoder, from the paper's formulas."""
    total, inputs, finest = 0, 3, -(-height // 4) * -(-width // 4)
    patches, reductions = (7, 3, 3, 3), (8, 4, 2, 1)
    for i, channels in enumerate((32, 64, 160, 256)):
        height, width = (-(-side // (4 if i == 0 else 2)) for side in (height, width))
        tokens = height * width
        r = reductions[i]
        context = (height // r) * (width // r)
        block = 2 * tokens * channels**2  # query and output
        block += 2 * context * channels**2  # key and value
        block += context * channels**2 * r * r if r > 1 else 0
        block += 2 * tokens * context * channels  # attention
        block += 8 * tokens * channels**2 + 9 * tokens * 4 * channels  # Mix-FFN
        total += tokens * channels * inputs * patches[i] ** 2 + 2 * block
        total += tokens * channels * 256  # the decoder's product for this map
        total += 256 * 256 * channels  # and the making of its matrix
        inputs = channels
    return 2 * (total + finest * 256 * classes)


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
def test_operations_are_those_of_the_formulas_attention_included(size):
    assert pw.cost(pw.create("segformer-b0", classes=19), size=size).flops == flops_by_hand(19, *size)


def test_the_rearranged_decoder_halves_the_published_graph():
    with torch.device("meta"):
        found = pw.cost(pw.create("segformer-b0", classes=150), size=(512, 512))
    assert found.flops < 0.5 * 16_775_643_136


def test_nothing_need_be_computed():
    with torch.device("meta"):
        empty = pw.create("segformer-b0", classes=19)
    assert pw.cost(empty, size=(96, 64)) == pw.cost(pw.create("segformer-b0", classes=19), size=(96, 64))


def test_a_fused_network_moves_less():
    model = pw.create("segformer-b0", classes=19)
    plain, fused = pw.cost(model, size=(64, 64)), pw.cost(pw.fuse(model), size=(64, 64))
    assert fused.traffic_bytes < plain.traffic_bytes
    assert fused.activation_bytes < plain.activation_bytes


def test_a_fused_network_costs_the_same_wherever_its_weights_are():
    model = pw.create("fchardnet-70", classes=6)
    fused = pw.fuse(model)
    assert pw.cost(fused, size=(64, 64)).flops > 0.5 * pw.cost(model, size=(64, 64)).flops
    assert pw.cost(fused, size=(64, 64)) == pw.cost(fused.to("meta"), size=(64, 64))
