"""What holds of every network: bands, batches, labels, fused forms, and a step of training."""

import copy
from types import SimpleNamespace

import pytest
import torch

import pixelwise as pw
from pixelwise.models import list_models

LIGHTER = {
    "setr-naive": {"encoder": "vit-tiny", "image_size": 64},
    "setr-pup": {"encoder": "vit-tiny", "image_size": 64},
    "setr-mla": {"encoder": "vit-tiny", "image_size": 64},
    "segmenter-linear": {"encoder": "vit-tiny", "image_size": 64},
    "segmenter-mask": {"encoder": "vit-tiny", "image_size": 64},
    "depict-sa": {"encoder": "vit-tiny", "image_size": 64},
    "depict-ca": {"encoder": "vit-tiny", "image_size": 64},
    **{f"eomt-{size}": {"dim": 48, "depth": 6, "heads": 3, "image_size": 64, "queries": 8} for size in "sbl"},
    "hmsa": {"network": "hrnet-w18-ocr"},
}
HEAVIER = ("-b1", "-b2", "-b3", "-b4", "-b5", "-s", "-b", "-l", "w30", "w32", "w40", "w44", "w48", "w64", "w48-ocr")
NAMES = [name for name in list_models() if not name.removesuffix("-ocr").endswith(HEAVIER) or name == "eomt-s"]
"""The smallest of each family; the larger ones differ in numbers alone."""


def small(name, **options):
    torch.manual_seed(0)
    return pw.create(name, classes=3, **LIGHTER.get(name, {}), **options)


def with_statistics(model):
    """Give batch norms the statistics of noise, so that folding them is not folding nothing."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(1 + 0.3 * torch.rand(module.num_features, generator=generator))
    if getattr(model, "architecture", None) is not None and model.architecture.name == "hmsa":
        # These statistics let values grow to 1e5, where a sigmoid turns their rounding into another choice.
        model.decoder.attention[-2].weight.data.mul_(1e-5)
    return model.eval()


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_reaches_the_encoder_and_every_head(name, bands):
    model = small(name, bands=bands).train()
    decoded = model.decode(torch.randn(2, bands, 64, 64))
    assert set(model.aux_weights) == set(decoded.aux)
    before = [p.detach().clone() for p in model.parameters()]
    loss = decoded.logits.square().mean() + sum(aux.square().mean() for aux in decoded.aux.values())
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert moved > 0.5 * len(before)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    """A network that no test changes, so that it is built once for all tests of it."""
    return with_statistics(small(request.param))


@pytest.fixture(scope="module")
def exact(network):
    return copy.deepcopy(network).double()


@pytest.fixture(scope="module")
def fused(network):
    return pw.fuse(network)


@pytest.fixture(scope="module")
def answers(network, exact):
    """An image of each size, with the answers in double and in single precision."""
    found = {}
    for size in SIZES:
        image = noise(2, *size)
        with torch.no_grad():
            found[size] = (image, exact(image.double()), network(image))
    return found


SIZES = [(64, 96), (77, 131)]


def noise(count, height, width):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def rounding(exact, plain):
    """Return how far a fused network may be: where the plain one amplifies rounding (norms of cosines over three
    classes), so may it."""
    return max(1e-5 * exact.abs().max(), 2 * (plain - exact).abs().max())


@torch.no_grad()
def test_a_batch_gives_the_answers_of_its_single_images(network):
    images = noise(3, 70, 90)
    together = network(images)
    alone = torch.cat([network(image[None]) for image in images])
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_the_fused_network_is_the_same_function(fused, answers, size):
    image, exact, plain = answers[size]
    assert (fused(image) - exact).abs().max() <= rounding(exact, plain)
    assert fused.decode(image[:1, :, :32, :32]).aux == {}


@torch.no_grad()
def test_the_fused_network_is_the_same_function_without_onednns_operators(network, answers, monkeypatch):
    image, exact, plain = (each[:1] for each in answers[64, 96])
    fused = pw.fuse(network)
    fused(image)
    # Weights are in oneDNN's order by now.
    with torch.backends.mkldnn.flags(enabled=False):
        assert (fused(image) - exact).abs().max() <= rounding(exact, plain)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    for one in (fused, pw.fuse(network)):
        assert (one(image) - exact).abs().max() <= rounding(exact, plain)


@torch.no_grad()
def test_the_label_map_is_the_argmax_of_the_full_size_logits(network):
    image = noise(1, 75, 81)
    logits, labels = network(image), network.label_map(image)
    best = logits.max(dim=1).values
    chosen = logits.gather(1, labels.long()[:, None])[:, 0]
    # Rounding may swap classes that are equal to it.
    assert (best - chosen).max() <= 1e-5 * logits.abs().max()


@torch.no_grad()
def test_two_calls_give_the_same_bits(network):
    image = noise(1, 64, 64)
    assert torch.equal(network(image), network(image))
