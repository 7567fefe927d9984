"""Networks whose stride divides no tile, such as transformers with patches of 14 pixels."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_network import card_of
from torch import nn

import pixelwise as pw
from pixelwise.inference.augmented import averaged_logits, cell_size, output_stride
from pixelwise.models import Architecture, Decoded, Segmenter
from pixelwise.predictor import Predictor
from pixelwise.upsampling import resampled_part


class Patches(nn.Module):
    """The mean of each patch."""

    def __init__(self, patch):
        super().__init__()
        self.multiple = self.patch = patch
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return self.scale * F.avg_pool2d(image, self.patch)


class TwoClasses(nn.Module):
    def __init__(self, align_corners):
        super().__init__()
        self.align_corners = align_corners

    def forward(self, maps):
        return Decoded(torch.cat([maps[:, :1], -maps[:, :1]], dim=1))


def network(patch, *, align_corners=False):
    return Segmenter(Patches(patch), TwoClasses(align_corners), Architecture("patches", 2, 3)).eval()


def ramp(height, width):
    """An image whose value grows evenly, so that every way to sample it says where it was sampled."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.broadcast_to(0.01 * rows + 0.03 * columns, (1, 3, height, width)).copy()


@pytest.mark.parametrize(("patch", "stride"), [(14, 8), (7, 4), (16, 16), (12, 8), (40, 32), (1, 1)])
def test_tiles_are_blended_on_the_largest_grid_that_fits(patch, stride):
    assert cell_size(network(patch)) == Fraction(patch)
    assert output_stride(network(patch)) == stride


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (1.5, 0.75)])
def test_logits_of_odd_patches_are_resampled_to_the_places_of_the_cells(flips, scales):
    image = ramp(224, 160)
    found = averaged_logits(network(14), image, stride=8, flips=flips, scales=scales)[0, 0]
    centres = [8 * np.arange(side // 8) + 3.5 for side in (224, 160)]
    wanted = torch.from_numpy(0.01 * centres[0][:, None] + 0.03 * centres[1][None]).float()
    assert found.shape == wanted.shape
    # Near the rim lie half patches, and patches that the network padded with zeros.
    assert (found - wanted)[3:-3, 3:-4].abs().max() < 1e-4 if scales == (1.0,) else 0.1


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_part_of_a_resampled_map_is_what_the_whole_holds_there(align_corners):
    logits = torch.from_numpy(ramp(10, 12))
    found = resampled_part(logits, (40, 48), (30, 36), (30, 36), align_corners=align_corners)
    whole = F.interpolate(logits, size=(40, 48), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(found, whole[..., :30, :36], rtol=1e-4, atol=1e-5)
    assert torch.equal(
        resampled_part(logits, (40, 48), (40, 48), (20, 24), align_corners=align_corners),
        F.interpolate(logits, size=(20, 24), mode="bilinear", align_corners=align_corners),
    )


@pytest.mark.parametrize(("height", "width"), [(150, 200), (64, 64), (40, 33)])
def test_tiles_decide_as_the_network_does_on_the_whole_image(height, width):
    model = network(14)
    predictor = Predictor(model, card_of(model), "0123abcd")
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 2, (8, 8)), np.ones((28, 28)))[:height, :width]
    image = np.broadcast_to((blocks * 200).astype(np.uint8)[..., None], (height, width, 3))
    whole = predictor.segment(image, tile=224, overlap=0).labels
    tiled = predictor.segment(image, tile=64, overlap=32).labels
    assert whole.shape == tiled.shape == (height, width)
    assert (whole == tiled).mean() > (0.99 if max(height, width) <= 64 else 0.85)


def test_the_houses_own_transformer_with_patches_of_14_predicts_too():
    model = pw.create("setr-naive", classes=3, encoder="vit-tiny", patch=14, image_size=56).eval()
    image = torch.randn(1, 3, 64, 96)
    found = averaged_logits(model, image.numpy(), stride=output_stride(model), flips=False, scales=(1.0,))
    assert found.shape == (1, 3, 8, 12)
    with torch.no_grad():
        full = model(image)
    # The centre of a cell lies between its fourth and fifth pixel.
    wanted = sum(full[..., i::8, j::8] for i in (3, 4) for j in (3, 4)) / 4
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()
