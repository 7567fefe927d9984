"""Every encoder with every decoder: what fits works at odd sizes, and what does not says why."""

import pytest
import torch
from unfilled import unfilled

import pixelwise as pw
from pixelwise import models
from pixelwise.models import DECODERS, ENCODERS, MODELS, list_models

SMALL = (
    *("mit-b0", "resnet18", "mscan-t", "hrnet-w18", "hardnet-39ds", "unet", "vit-tiny", "efficientnet-lite0"),
    "dinov2-small",
)
"""The smallest of each kind; the larger ones differ in numbers alone."""
BASE = {decoder: name for name, design in reversed(MODELS.items()) for decoder in [design.decoder]}
"""A network that has the decoder by nature, so that its options are the usual ones."""
PLAIN = {"vit": "all maps have one stride, and the decoder climbs a pyramid"}


def options_of(encoder):
    if encoder.startswith("dinov2"):
        return {"image_size": 70, "dim": 48, "depth": 6, "heads": 3} if encoder in SMALL else {"image_size": 70}
    return {"image_size": 64} if encoder.startswith("vit") else {}


def pair(encoder, decoder, classes=3):
    return pw.create(BASE[decoder], classes=classes, encoder=encoder, decoder=decoder, **options_of(encoder))


def built(encoder, decoder):
    try:
        with torch.device("meta"), unfilled():
            return pair(encoder, decoder)
    except pw.ConfigError as refusal:
        return str(refusal)


def test_every_decoder_belongs_to_a_network():
    assert set(BASE) == set(DECODERS)


@pytest.fixture(scope="module")
def empty_encoders():
    """Encoders of the meta device that were built, by what was asked for."""
    return {}


@pytest.fixture
def encoders_once(empty_encoders, monkeypatch):
    """Build an encoder of the same arguments once: it has no values, and most decoders ask for the same."""
    make = models._made

    def make_once(build, *about, options):
        if build not in ENCODERS.values():
            return make(build, *about, options=options)
        key = (build, repr(about), repr(options))
        if key not in empty_encoders:
            empty_encoders[key] = make(build, *about, options=options)
        return empty_encoders[key]

    monkeypatch.setattr(models, "_made", make_once)


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_every_encoder_is_built_with_every_decoder_or_refused_with_a_reason(decoder, encoders_once):
    for encoder in ENCODERS:
        found = built(encoder, decoder)
        if isinstance(found, str):
            assert len(found.split()) >= 12, f"{encoder} with {decoder}: {found}"
            climbs = encoder.startswith(("vit", "dinov2"))
            assert climbs or decoder in ("setr-mla", "eomt"), f"{encoder} with {decoder}: {found}"
        else:
            assert found.architecture.options["encoder"] == encoder


@pytest.mark.parametrize("encoder", SMALL)
@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_a_pair_that_fits_goes_forward_and_backward_at_an_odd_size(encoder, decoder):
    torch.manual_seed(0)
    try:
        model = pair(encoder, decoder).train()
    except pw.ConfigError:
        pytest.skip("does not fit; see the test of refusals")
    image = torch.randn(2, 3, 45, 71, requires_grad=True)
    logits = model(image)
    assert logits.shape == (2, 3, 45, 71)
    logits.square().mean().backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().sum() > 0
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.parameters())


@pytest.mark.parametrize("name", list_models())
def test_a_network_is_built_again_from_its_architecture(name):
    with torch.device("meta"), unfilled():
        model = pw.create(name, classes=5, bands=4)
        about = model.architecture
        again = pw.create(about.name, classes=about.classes, bands=about.bands, **about.options)
    assert again.architecture == about
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes
