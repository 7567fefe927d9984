"""LinkNet, against the recorded outputs of the reference implementations."""

import golden
import pytest
import torch
from meeting import worst_errors

import pixelwise as pw
from pixelwise.models.upsampling import upsample

NETWORKS = {
    "linknet_resnet18": ("linknet", 19),
    "linknet_resnet18_eps": ("linknet", 19),
}


def outputs(model, image, run):
    maps = model.encoder(image)
    decoded = model.decode(image)
    full = model(image)
    found = {"logits": full, "out": full, "log_softmax": full.log_softmax(dim=1)}
    found |= dict.fromkeys(("logits_head", "logits_s8", "logits_low"), decoded.logits)
    found |= {f"feat{i}": one for i, one in enumerate(maps[1:])}
    for aux in decoded.aux.values():
        found |= {"aux0": aux, "aux_s8": aux, "aux": upsample(aux, image.shape[-2:])}
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_recorded_output_of_the_references_is_met(name, record_property):
    network, classes = NETWORKS[name]
    errors = worst_errors(name, lambda: pw.create(network, classes=classes), outputs)
    record_property(f"{name} plain", max(errors.values()))
    assert max(errors.values()) <= 5e-6


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.endswith("_eps")])
def test_the_fused_network_meets_the_recorded_logits_with_the_recorded_parameters(name, record_property):
    network, classes = NETWORKS[name]
    spec = golden.load(name)
    model = pw.create(network, classes=classes).eval()
    pw.load_weights(model, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()})
    assert sum(p.numel() for p in model.parameters()) == spec["params"]
    found = outputs(pw.fuse(model), torch.from_numpy(golden.inputs(spec, "ns")), "eval")
    logits = next(key for key in spec["outputs"] if key.startswith("w1/eval/ns/logits") or key == "w1/eval/ns/out")
    error = golden.compare(spec, logits, found[logits.rpartition("/")[2]].detach().numpy())
    record_property(f"{name} fused", float(error))
    assert error <= 5e-6


@pytest.mark.parametrize(("size", "gmacs"), [((512, 512), 10.876), ((512, 1024), 21.75), ((352, 640), 9.35)])
def test_operations_are_those_recorded(size, gmacs):
    with torch.device("meta"):
        found = pw.cost(pw.create("linknet", classes=19), size=size).flops / 2e9
    assert found == pytest.approx(gmacs, rel=1e-3)


def test_the_size_that_the_paper_measures_needs_no_padding():
    model = pw.create("linknet", classes=3)
    assert model.padded_size((360, 640)) == (360, 640)


@pytest.mark.parametrize("bands", [1, 4, 13])
@pytest.mark.parametrize("port", ["pytorch", "lua"])
def test_odd_sizes_and_other_bands_train_every_parameter(bands, port):
    model = pw.create("linknet", classes=3, bands=bands, port=port)
    logits = model(torch.randn(2, bands, 77, 131))
    assert logits.shape == (2, 3, 77, 131)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("encoder", ["resnet18", "resnet50", "mit-b0", "hardnet-39ds", "fchardnet-70", "mscan-t"])
@pytest.mark.parametrize("size", [(32, 32), (77, 131)])
def test_a_batch_is_answered_as_its_single_images_plain_and_fused(encoder, size):
    model = pw.create("linknet", classes=3, encoder=encoder).eval()
    fast = pw.fuse(model)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        whole = model(images)
        singles = torch.cat([model(image[None]) for image in images])
        largest = whole.abs().max()
        assert (whole - singles).abs().max() <= 1e-5 * largest
        assert (whole - fast(images)).abs().max() <= 1e-5 * largest


def test_the_releases_differ_in_rectifiers_and_epsilons_alone():
    # Of ResNet's maps none is negative, nor are what is added to them, so there the rectifiers change nothing.
    port = pw.create("linknet", classes=3, encoder="mit-b0").eval()
    paper = pw.create("linknet", classes=3, encoder="mit-b0", port="lua").eval()
    paper.load_state_dict(port.state_dict())
    epsilons = [
        [m.eps for m in model.decoder.modules() if isinstance(m, torch.nn.BatchNorm2d)] for model in (port, paper)
    ]
    assert epsilons[0] == [1e-5] * 14
    assert epsilons[1] == [1e-3] * 12 + [1e-5, 1e-3]
    image = torch.randn(1, 3, 64, 64)
    for module in paper.decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    with torch.no_grad():
        assert not torch.allclose(port(image), paper(image), rtol=1e-3)
        paper.decoder.rectified = False
        assert torch.equal(port(image), paper(image))


@pytest.mark.parametrize(
    ("options", "words"), [({"port": "caffe"}, "pytorch, lua"), ({"output_stride": 16}, "4, 8, 16 and so on")]
)
def test_what_cannot_be_is_said(options, words):
    with pytest.raises(pw.ConfigError, match=words):
        pw.create("linknet", classes=3, **options)
