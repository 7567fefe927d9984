"""Encoders of other sizes than their papers', PSPNet's bins and UNet++'s mean of heads."""

import pytest
import torch

import pixelwise as pw
from pixelwise.models.option_checks import require_whole_numbers, sizes_of

SIZES = {
    "mit-b0": {"widths": [16, 32, 80, 64], "depths": [1, 2, 1, 1]},
    "mscan-t": {"widths": [16, 32, 48, 64], "depths": [1, 2, 1, 1]},
    "hardnet-39ds": {"widths": [32, 64, 96, 128], "depths": [2, 4, 4, 2], "growths": [8, 10, 12, 14]},
}
NETWORKS = {"mit-b0": "segformer-b0", "mscan-t": "segnext-t", "hardnet-39ds": "linknet"}


def of_size(encoder, **options):
    return pw.create(NETWORKS[encoder], classes=3, encoder=encoder, **options)


@pytest.mark.parametrize("encoder", SIZES)
def test_an_encoder_has_the_widths_and_depths_that_it_is_given(encoder):
    model = of_size(encoder, **SIZES[encoder])
    assert list(model.encoder.channels)[-4:] == SIZES[encoder]["widths"]
    maps = model.eval().encoder(torch.randn(1, 3, 64, 64))
    assert [one.shape[1] for one in maps] == list(model.encoder.channels)
    blocks = getattr(model.encoder, "stages", None) or [block.layers for block in model.encoder.blocks]
    assert [len(stage) for stage in blocks] == SIZES[encoder]["depths"]


@pytest.mark.parametrize("encoder", SIZES)
def test_a_size_is_kept_in_the_architecture_and_built_again(encoder):
    with torch.device("meta"):
        about = of_size(encoder, **SIZES[encoder]).architecture
        again = pw.create(about.name, classes=3, **about.options)
    assert {key: about.options[key] for key in SIZES[encoder]} == SIZES[encoder]
    assert again.architecture == about


@pytest.mark.parametrize("encoder", SIZES)
@pytest.mark.parametrize("wrong", [[1, 2], [0, 1, 1, 1]])
def test_a_size_that_fits_no_stage_is_refused(encoder, wrong):
    with pytest.raises(pw.ConfigError, match="depths must be a list of 4 whole numbers"):
        of_size(encoder, depths=wrong)


def test_widths_that_heads_cannot_share_are_refused():
    with pytest.raises(pw.ConfigError, match="81 is no multiple of 5"):
        of_size("mit-b0", widths=[16, 32, 81, 64])


@pytest.mark.parametrize("bins", [[1], [1, 2, 4, 8], [3, 5]])
def test_pspnet_pools_to_the_bins_that_it_is_given(bins):
    torch.manual_seed(0)
    model = pw.create("pspnet", classes=3, encoder="resnet18", bins=bins).eval()
    sides = []
    for layer in model.decoder.bins:
        layer.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[-1]))
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert sides == bins


@pytest.mark.parametrize("bins", [[], [0]])
def test_bins_that_are_no_sides_are_refused(bins):
    with torch.device("meta"), pytest.raises(pw.ConfigError, match="PSPNet's bins"):
        pw.create("pspnet", classes=3, encoder="resnet18", bins=bins)


@pytest.mark.parametrize("wrong", [[1, 2.5], "12", 4, None, [True, 2], {1: 2}, ["1", 2]])
def test_what_is_no_list_of_whole_numbers_is_refused(wrong):
    with pytest.raises(pw.ConfigError, match="an option must be a list of"):
        require_whole_numbers("an option", wrong)
    with pytest.raises(pw.ConfigError, match="an option must be a list of 2 whole numbers"):
        sizes_of("an option", wrong, (3, 4))


NARROW = {"filters": [4, 8, 8, 8, 8]}


def test_the_accurate_mode_of_unetpp_is_the_mean_of_its_heads():
    torch.manual_seed(0)
    model = pw.create("unetpp", classes=3, averaged=True, **NARROW).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        heads = [pw.prune(model, level)(image) for level in (1, 2, 3, 4)]
        assert torch.allclose(model(image), sum(heads) / 4, atol=1e-5)
        assert torch.allclose(pw.fuse(model)(image), sum(heads) / 4, atol=1e-5)
        assert pw.fuse(model).decode(image).aux == {}


def test_in_training_each_head_of_the_accurate_mode_learns_by_itself():
    torch.manual_seed(0)
    model = pw.create("unetpp", classes=3, averaged=True, **NARROW).train()
    decoded = model.decode(torch.randn(2, 3, 64, 64))
    assert set(decoded.aux) == {"level 1", "level 2", "level 3"}
    (gradient,) = torch.autograd.grad(decoded.logits.sum(), model.decoder.heads["1"].weight, allow_unused=True)
    assert gradient is None


def test_the_accurate_mode_needs_its_heads():
    with pytest.raises(pw.ConfigError, match="deep_supervision"):
        pw.create("unetpp", classes=3, averaged=True, deep_supervision=False)
