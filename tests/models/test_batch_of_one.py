"""One image a step: a network learns, or says that it needs a larger batch."""

import pytest
import torch
from test_every_network import LIGHTER, NAMES

import pixelwise as pw

POOLING = {"pspnet", "deeplabv3", "deeplabv3plus"}
"""They pool whole images and norm what comes of it."""
ENCODERS = ("efficientnet-lite0", "mscan-t", "resnet18", "hardnet-39ds", "hrnet-w18", "mit-b0")


def refusal(model, side):
    try:
        decoded = model.train().decode(torch.randn(1, 3, side, side))
    except pw.DataError as problem:
        return str(problem)
    assert torch.isfinite(decoded.logits).all()
    return None


@pytest.mark.parametrize("name", NAMES)
def test_a_step_with_one_small_image_works_or_names_the_batch(name):
    torch.manual_seed(0)
    found = refusal(pw.create(name, classes=3, **LIGHTER.get(name, {})), 32)
    assert found is None or "[train].batch_size to at least 2" in found


@pytest.mark.parametrize("encoder", ENCODERS)
def test_so_it_does_with_any_encoder(encoder):
    torch.manual_seed(0)
    found = refusal(pw.create("segformer-b0", classes=3, encoder=encoder, decoder="all-mlp"), 32)
    assert found is None or "[train].batch_size to at least 2" in found


@pytest.mark.parametrize("name", ["segnext-t", "linknet", "fchardnet-70", "deeplabv3plus"])
def test_only_networks_that_pool_images_refuse_a_large_one(name):
    torch.manual_seed(0)
    options = {"encoder": "resnet18"} if name == "deeplabv3plus" else {}
    assert (refusal(pw.create(name, classes=3, **options), 128) is not None) == (name in POOLING)


def test_a_network_that_has_learnt_looks_at_single_images():
    torch.manual_seed(0)
    model = pw.create("unet", classes=3, encoder="efficientnet-lite0").eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)
