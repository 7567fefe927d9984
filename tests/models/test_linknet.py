"""LinkNet, against the recorded outputs of the reference implementations."""

import pytest
import torch

import pixelwise as pw


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
