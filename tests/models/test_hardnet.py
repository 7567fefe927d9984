"""FC-HarDNet against its recorded outputs, and the encoders HarDNet against their published sizes."""

import golden
import pytest
import torch
from meeting import on_the_way, worst_errors

import pixelwise as pw
from pixelwise.models.cio import convolutional_traffic
from pixelwise.models.hardnet import VARIANTS, links

ENCODERS = list(VARIANTS)


def outputs(model, image, run):
    _, decoded, full = on_the_way(model, image)
    return {"logits_s4": decoded.logits, "logits": full}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["fchardnet_70", "fchardnet_70_eps"])
def test_every_recorded_output_of_the_reference_is_met(name, fused, record_property):
    errors = worst_errors(name, lambda: pw.create("fchardnet-70", classes=19), outputs, fused=fused)
    record_property(f"{name} {'fused' if fused else 'plain'}", max(errors.values()))
    assert max(errors.values()) <= 5e-6


def test_parameters_are_as_many_as_recorded():
    model = pw.create("fchardnet-70", classes=19)
    assert sum(p.numel() for p in model.parameters()) == golden.load("fchardnet_70")["params"]


@pytest.mark.parametrize(("size", "gmacs"), [((1024, 2048), 35.22), ((512, 512), 4.402)])
def test_operations_are_those_recorded(size, gmacs):
    with torch.device("meta"):
        found = pw.cost(pw.create("fchardnet-70", classes=19), size=size).flops / 2e9
    assert found == pytest.approx(gmacs, rel=2e-4)


def test_layers_are_linked_as_in_figure_1_of_the_paper():
    assert [links(layer) for layer in range(1, 9)] == [
        [0],
        [1, 0],
        [2],
        [3, 2, 0],
        [4],
        [5, 4],
        [6],
        [7, 6, 4, 0],
    ]


@pytest.mark.parametrize(
    ("encoder", "millions", "gmacs"),
    [("hardnet-39ds", 3.5, 0.44), ("hardnet-68", 17.6, 4.3), ("hardnet-85", 36.7, 9.1)],
)
def test_encoders_with_a_classifier_of_images_have_the_published_size_and_cost(encoder, millions, gmacs):
    with torch.device("meta"):
        model = pw.create("fchardnet-70", classes=2, encoder=encoder)
        classifier = torch.nn.Linear(model.encoder.channels[-1], 1000)
    parameters = [*model.encoder.parameters(), *classifier.parameters()]
    assert sum(p.numel() for p in parameters) / 1e6 == pytest.approx(millions, abs=0.05)
    macs = sum(row.macs for row in convolutional_traffic(model, (224, 224)) if "encoder" in row.name)
    assert macs / 1e9 == pytest.approx(gmacs, rel=0.03)


@pytest.mark.parametrize(
    ("encoder", "bands"),
    [("fchardnet-70", 1), ("fchardnet-70", 4), ("fchardnet-70", 13), *((encoder, 4) for encoder in ENCODERS[:3])],
)
def test_odd_sizes_and_other_bands_train_every_parameter(encoder, bands):
    model = pw.create("fchardnet-70", classes=3, bands=bands, encoder=encoder)
    logits = model(torch.randn(2, bands, 77, 131))
    assert logits.shape == (2, 3, 77, 131)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [(32, 32), (77, 131)])
def test_a_batch_is_answered_as_its_single_images_plain_and_fused(encoder, size):
    model = pw.create("fchardnet-70", classes=3, encoder=encoder).eval()
    fast = pw.fuse(model)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        whole = model(images)
        singles = torch.cat([model(image[None]) for image in images])
        largest = whole.abs().max()
        assert (whole - singles).abs().max() <= 1e-5 * largest
        assert (whole - fast(images)).abs().max() <= 1e-5 * largest
    assert pw.fuse(fast)(images).shape == whole.shape


@pytest.mark.parametrize("encoder", ["resnet18", "mit-b0", "efficientnet-lite0", "mscan-t", "hrnet-w18"])
def test_other_encoders_fit_the_decoder(encoder):
    model = pw.create("fchardnet-70", classes=3, encoder=encoder)
    logits = model(torch.randn(2, 3, 77, 131))
    assert logits.shape == (2, 3, 77, 131)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())


@pytest.mark.parametrize("network", ["linknet", "segformer-b0", "segnext-t"])
@pytest.mark.parametrize("encoder", ["hardnet-39ds", "fchardnet-70", "efficientnet-lite0"])
def test_the_encoders_fit_other_decoders(network, encoder):
    model = pw.create(network, classes=3, encoder=encoder)
    logits = model(torch.randn(2, 3, 77, 131))
    assert logits.shape == (2, 3, 77, 131)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in model.decoder.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "resnet18", "output_stride": 8}, "4, 8, 16 and so on"),
        ({"growth": [10, 16, 18]}, "growth"),
        ({"growth": [10, 16, 18, 1]}, "growth"),
        ({"layers": [4, 4, 8, 0]}, "layers"),
        ({"weighting": 0.5}, "weighting"),
    ],
)
def test_what_cannot_be_is_said(options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create("fchardnet-70", classes=3, **options)
