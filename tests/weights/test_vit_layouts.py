"""Names of plain transformers: ImageNet encoders, SETR, Segmenter and DEPICT."""

from pathlib import Path

import golden
import pytest
import torch
from unfilled import unfilled

import pixelwise as pw
from pixelwise.weights import save_weights

GOLDENS = Path(__file__).parent.parent / "goldens"

RELEASES = {
    "segmenter_tiny_linear": ("segmenter-linear", "Segmenter with a linear decoder, the paper's release"),
    "segmenter_tiny_mask": ("segmenter-mask", "Segmenter with a mask transformer, the paper's release"),
    "segmenter_t_mask_mmseg122": ("segmenter-mask", "Segmenter with a mask transformer, mmsegmentation"),
    "depict_sa_tiny": ("depict-sa", "DEPICT-SA, the paper's release"),
    "depict_ca_tiny": ("depict-ca", "DEPICT-CA, the paper's release"),
    "setr_naive_dim192_img128": ("setr-naive", "SETR-Naive, the paper's release"),
    "setr_pup_dim192_img128": ("setr-pup", "SETR-PUP, the paper's release"),
    "setr_mla_dim192_img128": ("setr-mla", "SETR-MLA, the paper's release"),
}


def recorded(name):
    spec = golden.load(name, GOLDENS)
    return spec, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()}


def classes_of(name):
    return 19 if name.startswith("setr") else 150


@pytest.mark.parametrize("name", RELEASES)
def test_each_release_makes_the_round_trip(tmp_path, name):
    network, layout = RELEASES[name]
    _, state = recorded(name)
    # The large network, until the weights say which one it is.
    with unfilled():
        model = pw.create(network, classes=classes_of(name)).eval()
    report = pw.load_weights(model, {f"module.{key}": value for key, value in state.items()})
    assert report.layout == layout
    assert report.missing == report.unexpected == ()
    assert all(".conv_seg." in key or key.startswith("encoder.head.") for key in report.unused)
    assert len(report.matched) + len(report.unused) == len(state)
    assert report.adopted["encoder"] == ("vit-large", "vit-tiny")
    save_weights(model, tmp_path / "model.safetensors")
    about = model.architecture
    other = pw.create(about.name, classes=about.classes, bands=about.bands, **about.options).eval()
    assert pw.load_weights(other, tmp_path / "model.safetensors").layout == "pixelwise"
    image = torch.randn(1, 3, 70, 90)
    assert torch.equal(model(image), other(image))


def imagenet_encoder(image_size, distilled):
    """A small ViT under the names of timm."""
    _, state = recorded("segmenter_tiny_linear")
    state = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    tokens = (2 if distilled else 1) + (image_size // 16) ** 2
    state["pos_embed"] = torch.randn(1, tokens, 192)
    if distilled:
        state |= {"dist_token": torch.randn(1, 1, 192), "head_dist.weight": torch.zeros(1000, 192)}
    return state


@pytest.mark.parametrize("distilled", [False, True])
def test_an_imagenet_encoder_of_another_image_size_is_loaded_without_its_classifiers(distilled):
    model = pw.create("segmenter-mask", classes=4, encoder="vit-tiny").eval()
    report = pw.load_weights(model, imagenet_encoder(224, distilled))
    assert report.layout == "ViT, timm (encoder only)"
    assert all(key.startswith("decoder.") for key in report.missing)
    assert all(key.startswith("head") for key in report.unused)
    options = model.architecture.options
    assert (options["image_size"], options["distilled"], options["epsilon"]) == (224, distilled, 1e-6)
    assert model(torch.randn(1, 3, 70, 90)).shape == (1, 4, 70, 90)


def test_setr_takes_an_imagenet_encoder_but_its_last_norm():
    model = pw.create("setr-pup", classes=4, encoder="vit-tiny")
    with pytest.raises(pw.WeightsError, match=r"norm\.weight"):
        pw.load_weights(model, imagenet_encoder(224, False))
    report = pw.load_weights(model, imagenet_encoder(224, False), partial=True)
    assert report.unexpected == ("norm.weight", "norm.bias")
    assert not model.architecture.options["final_norm"]


def test_a_transformer_of_no_known_size_is_built_from_the_shapes():
    _, state = recorded("setr_naive_dim192_img128")
    kept = {
        key: value for key, value in state.items() if not key.startswith(("backbone.blocks.10.", "backbone.blocks.11."))
    }
    model = pw.create("setr-naive", classes=19, encoder="vit-tiny")
    assert pw.load_weights(model, kept).missing == ()
    assert len(model.encoder.blocks) == 10
    assert model.encoder.taps == (4, 6, 8, 9)
    assert model.encoder.blocks[0].attention.heads == 3


def test_a_linear_decoder_of_mmsegmentation_is_told_from_a_mask_transformer():
    _, state = recorded("segmenter_t_mask_mmseg122")
    state = {key: value for key, value in state.items() if key.startswith("backbone.")}
    state |= {"decode_head.conv_seg.weight": torch.randn(150, 192, 1, 1), "decode_head.conv_seg.bias": torch.randn(150)}
    model = pw.create("segmenter-linear", classes=150, encoder="vit-tiny")
    report = pw.load_weights(model, state)
    assert report.layout == "Segmenter with a linear decoder, mmsegmentation"
    assert torch.equal(model.decoder.classifier.bias, state["decode_head.conv_seg.bias"])


@pytest.mark.parametrize("network", ["segmenter-linear", "segformer-b0", "pspnet"])
def test_weights_of_another_network_are_refused_and_change_nothing(network):
    _, state = recorded("segmenter_tiny_mask")
    model = pw.create(network, classes=150, **({"encoder": "vit-tiny"} if network.startswith("segmenter") else {}))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(pw.WeightsError):
        pw.load_weights(model, state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("setr_naive_dim192_img128", lambda state: state | {"decode_head.conv_0.weight": torch.tensor(1.0)}),
        ("setr_mla_dim192_img128", lambda state: {k: v for k, v in state.items() if k != "backbone.pos_embed"}),
        ("segmenter_tiny_mask", lambda state: state | {"encoder.pos_embed": torch.zeros(1, 0, 192)}),
        ("depict_sa_tiny", lambda state: state | {"decoder.net.layers.0.fn.proj": torch.tensor(1.0)}),
    ],
)
def test_damaged_tensors_are_the_users_error(name, change):
    _, state = recorded(name)
    with pytest.raises(pw.WeightsError):
        pw.load_weights(pw.create(RELEASES[name][0], classes=classes_of(name), encoder="vit-tiny"), change(state))


def test_another_number_of_classes_loads_all_but_what_depends_on_it():
    _, state = recorded("setr_naive_dim192_img128")
    model = pw.create("setr-naive", classes=4, encoder="vit-tiny")
    with pytest.raises(pw.WeightsError, match="classes=19"):
        pw.load_weights(model, state)
    report = pw.load_weights(model, state, partial=True)
    assert all(".classifier." in key for key in report.missing)
