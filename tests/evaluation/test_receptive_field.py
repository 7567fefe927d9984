"""What a network sees, against networks whose field is known, and what is written of it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_network import small_network

import pixelwise as pw
from pixelwise.evaluation.receptive_field import Field, analyze, effective_receptive_fields


@pytest.mark.parametrize(("stride", "reach"), [(4, 0), (4, 1), (8, 1)])
def test_a_convolution_sees_its_kernel_and_nothing_else(stride, reach):
    network = small_network(stride=stride, reach=reach)
    field = effective_receptive_fields(network, 120 * [torch.randn(1, 3, 64, 64)])[0]
    # The gradient of each channel is its kernel, whatever the image.
    expected = network.encoder.convolution.weight.detach().square().sum(dim=(0, 1)).sqrt().numpy()
    top = 32 - reach * stride
    side = (2 * reach + 1) * stride
    seen = field.gradient[top : top + side, top : top + side]
    assert np.allclose(seen, expected / expected.sum(), rtol=0.5)
    assert field.gradient.sum() == pytest.approx(seen.sum())


class Normed(torch.nn.Module):
    """The convolution of a small network, and a layer norm over its channels."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.channels, self.strides = encoder, encoder.channels, encoder.strides
        self.norm = torch.nn.LayerNorm(encoder.channels[-1])

    def forward(self, image):
        return [self.norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for one in self.encoder(image)]


def test_a_layer_norm_changes_nothing_of_where_a_convolution_looks():
    network = small_network(classes=16, stride=4, reach=1)
    plain = network.encoder.convolution.weight.detach()
    # Far more is seen of the kernel's left half.
    plain[..., 6:] *= 0.01
    network.encoder = Normed(network.encoder)
    field = effective_receptive_fields(network, [torch.randn(1, 3, 64, 64) for _ in range(20)])[0]
    assert field.gradient[28:40, 28:34].sum() > 0.95
    assert field.gradient[28:40, 28:40].sum() == pytest.approx(1)


RADII = {
    "unet": (5, 14, 32, 68, 140),
    "resnet18": (7, 43, 99, 211, 435),
}
"""Sides of the fields by the arithmetic of kernels and strides (Dumoulin and Visin 2016, arXiv 1603.07285)."""


@pytest.mark.parametrize("encoder", RADII)
def test_convolutional_stages_see_as_far_as_their_kernels_reach(encoder):
    torch.manual_seed(0)
    options = {"filters": [4, 8, 8, 8, 8]} if encoder == "unet" else {}
    network = pw.create("unet", classes=3, encoder=encoder, **options)
    images = [torch.randn(1, 3, 192, 192) for _ in range(2)]
    for field, side in zip(effective_receptive_fields(network, images), RADII[encoder], strict=False):
        rows, columns = np.nonzero(field.gradient)
        for places in (rows, columns):
            reached = places.max() - places.min() + 1
            assert reached <= side
            # ReLUs may shut the corners of a large field; a small one is seen whole.
            assert side > 100 or reached >= 0.9 * side


KINDS = {
    "segformer-b0": {},
    "segnext-t": {},
    "segmenter-mask": {"encoder": "vit-tiny", "image_size": 64},
    "setr-pup": {"encoder": "vit-tiny", "image_size": 64},
    "depict-ca": {"encoder": "vit-tiny", "image_size": 64},
    "hrnet-w18": {},
    "fchardnet-70": {},
    "linknet": {},
}


@pytest.mark.parametrize("name", KINDS)
def test_where_there_is_no_gradient_a_pixel_changes_nothing_and_where_there_is_much_it_does(name):
    torch.manual_seed(0)
    network = pw.create(name, classes=3, **KINDS[name]).double().eval()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    fields = effective_receptive_fields(network, [image])
    with torch.no_grad():
        before = network.encoder(image)
    for i, (field, plain) in enumerate(zip(fields, before, strict=False)):
        most = np.unravel_index(field.gradient.argmax(), field.gradient.shape)
        least = np.unravel_index(field.gradient.argmin(), field.gradient.shape)
        moved = []
        for row, column in (most, least):
            changed = image.clone()
            changed[..., row, column] += 1e-4
            with torch.no_grad():
                difference = network.encoder(changed)[i] - plain
            moved.append(difference[..., plain.shape[-2] // 2, plain.shape[-1] // 2].norm().item() / 1e-4)
        assert moved[0] > 3 * moved[1]
        assert field.gradient.min() > 0 or moved[1] == 0


def test_a_segformer_sees_wider_from_stage_to_stage():
    torch.manual_seed(0)
    network = pw.create("segformer-b0", classes=3)
    fields = effective_receptive_fields(network, [torch.randn(1, 3, 128, 128) for _ in range(4)])
    assert [field.stage for field in fields] == ["stage 1", "stage 2", "stage 3", "stage 4", "head"]
    sides = [field.side(0.5) for field in fields[:4]]
    assert sides == sorted(set(sides))
    assert network.training, "the network is left as it was"


def test_the_side_of_a_field_is_that_of_the_smallest_square():
    gradient = np.zeros((9, 9))
    gradient[4, 4], gradient[4, 6] = 0.6, 0.4
    field = Field("one", gradient)
    assert (field.side(0.5), field.side(0.6), field.side(0.61), field.side(1.0)) == (1, 1, 5, 5)


def test_the_picture_has_a_row_per_network_and_the_table_every_layer(tmp_path):
    analyze(["segformer-b0", "segformer-b1"], tmp_path / "out", images=1, size=64)
    picture = Image.open(tmp_path / "out" / "fields.png")
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert picture.height == 2 * (224 + 48)
    assert [one["name"] for one in found] == ["segformer-b0", "segformer-b1"]
    with torch.device("meta"):
        whole = pw.cost(pw.create("segformer-b0", classes=19), size=(64, 64))
    for key in ("parameters", "flops", "activation_bytes", "traffic_bytes"):
        assert sum(layer[key] for layer in found[0]["layers"].values()) == getattr(whole, key)
    rows = found[0]["convolutions"]
    assert found[0]["cio"] == sum(row["cio"] for row in rows)
    assert found[0]["macs_over_cio"] == pytest.approx(sum(row["macs"] for row in rows) / found[0]["cio"])
    # The first layer by hand: 7x7 of stride 4 from 3 to 32 channels.
    first = rows[0]
    assert first["cio"] == 3 * 64 * 64 + 32 * 16 * 16
    assert first["macs"] == 3 * 32 * 49 * 16 * 16


def test_what_is_neither_run_nor_network_is_named(tmp_path):
    with pytest.raises(pw.ConfigError, match="neither a run"):
        analyze([str(tmp_path)], tmp_path / "out")
