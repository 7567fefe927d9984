"""Encoders that timm builds: with timm where it is installed, and with a stand-in of its interface everywhere."""

import json
import sys
import types

import pytest
import torch
from real_timm import import_timm
from small_backbones import fill_cache
from torch import nn

import pixelwise as pw
from pixelwise.models import rebuilt
from pixelwise.models.library_encoder import versions_apart

REAL = {
    # timm's networks for tests: their maps' channels and strides by feature_info, and which are taken here
    "test_efficientnet": ((16, 24, 32, 48, 64), (2, 4, 8, 16, 32), [0, 1, 2, 3, 4]),
    "test_mambaout": ((16, 32, 48, 64), (4, 8, 16, 32), [0, 1, 2, 3]),  # channels last
    "test_vit": ((64,) * 4, (16,) * 4, [0, 2, 3, 5]),
}


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def create(name, **options):
    return pw.create("segmenter-linear", classes=3, encoder=f"timm:{name}", **options)


@pytest.mark.parametrize("name", REAL)
def test_timms_own_maps_are_met_with_any_bands_and_size(name):
    timm = import_timm()
    encoder = create(name, bands=5).eval().encoder
    channels, strides, taken = REAL[name]
    assert (encoder.channels, encoder.strides, encoder.kept["out_indices"]) == (channels, strides, taken)
    assert encoder.channels_last == (name == "test_mambaout",) * len(channels)
    flexible = {"dynamic_img_size": True} if name == "test_vit" else {}
    theirs = timm.create_model(name, in_chans=5, **flexible).eval()
    ours = {key.removeprefix("model."): value for key, value in encoder.backbone.state_dict().items()}
    # features_only names the stages of some networks with an underscore.
    weights = {key: ours.get(key, ours.get(key.replace("stages.", "stages_", 1))) for key in theirs.state_dict()}
    found = theirs.load_state_dict({key: value for key, value in weights.items() if value is not None}, strict=False)
    assert all(key.startswith(("head", "norm", "fc_norm", "conv_head", "bn2", "classifier")) for key in found[0])
    image = noise(2, 5, 64, 96)
    with torch.no_grad():
        wanted = theirs.forward_intermediates(image, indices=taken, intermediates_only=True)
        found = encoder(image)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_folder_and_a_repository_are_read_with_their_weights_and_licence(tmp_path, monkeypatch):
    timm = import_timm()
    torch.manual_seed(0)
    theirs = timm.create_model("test_efficientnet", num_classes=7).eval()
    folder = tmp_path / "theirs"
    timm.models.save_for_hf(theirs, folder, safe_serialization=True)
    about = json.loads((folder / "config.json").read_text())
    about["pretrained_cfg"]["license"] = "mit"
    (folder / "config.json").write_text(json.dumps(about))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    fill_cache(tmp_path / "cache", "someone/tiny", folder)
    image = noise(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs.forward_intermediates(image, intermediates_only=True)
        for name in (str(folder), "someone/tiny"):
            model = create(name, pretrained=True).eval()
            for one, other in zip(model.encoder(image), wanted, strict=True):
                torch.testing.assert_close(one, other)
            assert model.encoder.recipe.licence == "mit"
        four, three = create(str(folder), bands=4, pretrained=True).eval().encoder, model.encoder
        for one, other in zip(four(noise(1, 4, 64, 64)), three(noise(1, 4, 64, 64)[:, :3]), strict=True):
            torch.testing.assert_close(one, other)
    (folder / "model.safetensors").unlink()
    with pytest.raises(pw.WeightsError, match="does not find the weights"):
        create(str(folder), pretrained=True)
    with pytest.raises(pw.ConfigError, match="someone/else"):
        create("someone/else")


def test_a_name_that_timm_does_not_know_is_refused_and_a_network_of_one_size_gets_windows():
    import_timm()
    with pytest.raises(pw.ConfigError, match=r"timm .* does not build timm:convnext_gigantic"):
        create("convnext_gigantic")
    with torch.device("meta"):
        assert create("hiera_tiny_224").encoder.window == 224
    with pytest.raises(pw.ConfigError, match=r"out_indices = \[7\]"):
        create("test_efficientnet", out_indices=[7])


class FeatureInfo:
    def __init__(self, chosen):
        self.info = [{"num_chs": 8 * 2**i, "reduction": 2 * 2**i} for i in range(5)]
        self.chosen = chosen

    def channels(self):
        return [self.info[i]["num_chs"] for i in self.chosen]


class StandInNet(nn.Module):
    """Five convolutions of stride 2, the last two maps with their channels last."""

    def __init__(self, bands, chosen, drop_path_rate):
        super().__init__()
        widths = [bands, 8, 16, 32, 64, 128]
        self.stages = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, 2) for i in range(5))
        self.feature_info, self.drop = FeatureInfo(chosen), drop_path_rate
        self.pretrained_cfg = {"input_size": (3, 64, 64), "license": "mit"}

    def forward(self, image):
        maps = []
        for i, stage in enumerate(self.stages):
            image = stage(image)
            maps.append(image.permute(0, 2, 3, 1) if i >= 3 else image)
        return [maps[i] for i in self.feature_info.chosen]


@pytest.fixture
def stand_in(monkeypatch):
    """A module with the part of timm's interface that is used."""
    asked = []

    def create_model(name, *, pretrained, features_only, in_chans=3, out_indices=range(5), drop_path_rate=0.0):
        if name != "five_convolutions" or max(out_indices) > 4:
            raise RuntimeError(f"Unknown model ({name})")
        assert features_only
        asked.append(pretrained)
        net = StandInNet(in_chans, list(out_indices), drop_path_rate)
        if pretrained:
            with torch.no_grad():
                [parameter.fill_(0.01) for parameter in net.parameters()]
        return net

    module = types.ModuleType("timm")
    module.create_model, module.__version__ = create_model, "9.9"
    monkeypatch.setitem(sys.modules, "timm", module)
    return asked


def test_the_adapter_asks_a_stand_in_for_channels_strides_layouts_and_bands(stand_in):
    model = pw.create("unet", classes=3, bands=6, encoder="timm:five_convolutions", drop_path=0.3).eval()
    encoder = model.encoder
    assert (encoder.channels, encoder.strides) == ((8, 16, 32, 64, 128), (2, 4, 8, 16, 32))
    assert encoder.channels_last == (False, False, False, True, True)
    assert (encoder.multiple, encoder.window, encoder.backbone.drop) == (32, 0, 0.3)
    with torch.no_grad():
        assert [tuple(each.shape[1:]) for each in encoder(noise(1, 6, 32, 64))] == [
            (8, 16, 32),
            (16, 8, 16),
            (32, 4, 8),
            (64, 2, 4),
            (128, 1, 2),
        ]
    model.train()(noise(2, 6, 45, 71)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())
    assert stand_in == [False] * len(stand_in)
    assert rebuilt(model.architecture, {}).encoder.backbone.drop == 0.3


def test_a_stand_ins_weights_are_fitted_to_other_bands_and_taken_no_second_time(stand_in):
    model = create("five_convolutions", bands=4, pretrained=True, out_indices=[1, 3])
    first = model.encoder.backbone.stages[0].weight
    assert (first[:, :3] == 0.01).all()
    assert (first[:, 3] == 0).all()
    assert model.encoder.strides == (4, 16)
    assert model.encoder.recipe.licence == "mit"
    count = sum(stand_in)
    again = rebuilt(model.architecture, {})
    assert sum(stand_in) == count
    assert again.encoder.strides == (4, 16)
    assert versions_apart(again) == ""
    recipe = json.loads(model.architecture.options["library_config"])
    options = {"library_config": json.dumps({**recipe, "version": "9.8"})}
    assert "saved with 9.8" in versions_apart(rebuilt(model.architecture, options))


@pytest.mark.parametrize(
    "problem",
    [RuntimeError("operator torchvision::nms does not exist"), ModuleNotFoundError("No module named 'torchvision'")],
)
def test_a_timm_that_does_not_start_is_said(monkeypatch, problem):
    def failing(name):
        raise problem

    monkeypatch.setattr("pixelwise.models.timm_library.find_spec", lambda name: "there")
    monkeypatch.setattr("importlib.import_module", failing)
    with pytest.raises(pw.MissingExtraError, match=rf"does not start \({problem}\).*torchvision of the same source"):
        create("convnextv2_tiny")


def test_a_timm_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(pw.MissingExtraError, match=r"pip install 'pixelwise\[timm\]'"):
        create("convnextv2_tiny")


def test_a_recipe_gives_no_argument_that_reads_files(stand_in):
    model = create("five_convolutions")
    recipe = json.loads(model.architecture.options["library_config"])
    recipe["about"]["arguments"] = {"checkpoint_path": "/etc/passwd", "pretrained": True, "drop_path_rate": 0.2}
    stand_in.clear()
    assert rebuilt(model.architecture, {"library_config": json.dumps(recipe)}).encoder.backbone.drop == 0.2
    assert not any(stand_in)
