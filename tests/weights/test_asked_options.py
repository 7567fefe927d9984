"""What the user wrote stands beside weights, or is refused with both values; what he did not is taken from them."""

import pytest
import tomli_w
import torch
from unfilled import unfilled

import pixelwise as pw
from pixelwise.labels import make_classes
from pixelwise.runs.model_folder import ModelCard, load_model, save_model

SMALL = {"filters": [4, 8, 16, 32, 64]}
VIT = {"encoder": "vit-tiny", "dim": 64, "depth": 6, "image_size": 64}

# network, its other options, the option, what the weights were trained with, what is asked for
STANDS = [
    ("deeplabv3", {"encoder": "resnet18"}, "output_stride", 16, 8),
    ("deeplabv3", {"encoder": "resnet18"}, "multi_grid", [1, 2, 4], [1, 1, 1]),
    ("deeplabv3", {"encoder": "resnet18"}, "auxiliary", True, False),
    ("deeplabv3plus", {"encoder": "resnet18"}, "output_stride", 16, 8),
    ("deeplabv3-cascade", {"encoder": "resnet18"}, "output_stride", 16, 8),
    ("pspnet", {"encoder": "resnet18"}, "dilation", "whole", "late"),
    ("pspnet", {"encoder": "resnet18"}, "align_corners", True, False),
    ("pspnet", {"encoder": "resnet18"}, "auxiliary", True, False),
    ("hrnet-w18", {}, "align_corners", True, False),
    ("segnext-t", {}, "rank", 16, 8),
    ("unetpp", SMALL, "deep_supervision", True, False),
    ("unetpp", SMALL, "level", 4, 2),
    ("unet3p", SMALL, "deep_supervision", True, False),
    ("unet3p", SMALL, "guided", True, False),
    ("segmenter-linear", VIT, "position_resize", "bicubic", "bilinear"),
    ("segmenter-linear", VIT, "image_size", 64, 96),
    ("segformer-b0", {}, "release", "paper", "transformers"),
    ("segformer-b0", {}, "drop_path", 0.3, 0.0),
]
REFUSED = [
    ("deeplabv3", {"encoder": "resnet18"}, "auxiliary", False, True),
    ("deeplabv3", {"encoder": "resnet18"}, "decoder_channels", 64, 32),
    ("deeplabv3", {"encoder": "resnet18"}, "release", "paper", "mmsegmentation"),
    ("pspnet", {"encoder": "resnet18"}, "stem", "7x7", "deep-64"),
    ("pspnet", {}, "encoder", "resnet18", "resnet34"),
    ("unetpp", SMALL, "deep_supervision", False, True),
    ("unetpp", SMALL, "level", 2, 4),
    ("unet", {}, "filters", [4, 8, 16, 32, 64], [4, 8, 16, 32, 32]),
    ("unet3p", SMALL, "guided", False, True),
    ("segmenter-linear", VIT, "patch", 16, 8),
    ("segformer-b0", {}, "release", "mmsegmentation", "paper"),
]
OPTIONS = ("name", "others", "option", "trained", "asked")


def build(name, others, **more):
    torch.manual_seed(0)
    return pw.create(name, classes=3, **{**others, **more}).eval()


def bare(name, others, **more):
    """Build a network to load weights into: every value is seen to come from them."""
    with unfilled():
        return build(name, others, **more)


def saved(tmp_path, model):
    pw.save_weights(model, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def folder_of(tmp_path, model):
    classes = make_classes(["a", "b", "c"])
    card = ModelCard(model.architecture, classes, (1, 2, 3), "uint8", (0.0,) * 3, (1.0,) * 3)
    save_model(tmp_path / "model", model, card)
    return tmp_path / "model"


@pytest.mark.parametrize(OPTIONS, STANDS)
def test_what_was_asked_for_stands_where_the_weights_fill_it(tmp_path, name, others, option, trained, asked):
    source = build(name, others, **{option: trained})
    model = bare(name, others, **{option: asked})
    report = pw.load_weights(model, saved(tmp_path, source))
    assert model.architecture.options[option] == asked
    assert (report.missing, report.unexpected) == ((), ())
    assert report.kept[option] == (asked, trained)
    assert any(option in note and repr(asked) in note and repr(trained) in note for note in report.notes)
    theirs = source.state_dict()
    for key, value in model.state_dict().items():
        if key != "encoder.positions":
            assert torch.equal(value, theirs[key])


@pytest.mark.parametrize(OPTIONS, REFUSED)
def test_what_needs_other_tensors_is_refused_with_both_values(tmp_path, name, others, option, trained, asked):
    path = saved(tmp_path, build(name, others, **{option: trained}))
    model = bare(name, others, **{option: asked})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(pw.WeightsError) as caught:
        pw.load_weights(model, path)
    assert f"{option}={asked!r}" in str(caught.value)
    assert f"{option}={trained!r}" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(OPTIONS, [case for case in STANDS + REFUSED if case[3] != case[4]])
def test_what_nobody_asked_for_is_taken_from_the_weights_and_said(tmp_path, name, others, option, trained, asked):
    source = build(name, others, **{option: trained})
    model = bare(name, {key: value for key, value in others.items() if key not in ("dim", "depth")})
    before = model.architecture.options.get(option)
    report = pw.load_weights(model, saved(tmp_path, source))
    assert model.architecture.options[option] == trained
    assert report.adopted.get(option) == (None if before == trained else (before, trained))
    assert any(option in note and repr(trained) in note for note in report.notes) == (before != trained)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(image), source(image))


def test_the_recipe_of_deeplab_trained_at_16_and_evaluated_at_8(tmp_path):
    source = build("deeplabv3", {"encoder": "resnet18"}, output_stride=16)
    folder = folder_of(tmp_path, source)
    image = torch.randn(1, 3, 128, 128)
    for model in (
        load_model(folder, options={"output_stride": 8})[0],
        build("deeplabv3", {"encoder": "resnet18"}, output_stride=8),
    ):
        if model.architecture.asked != ("output_stride",):
            pw.load_weights(model, folder)
        assert model.encoder(image)[-1].shape[-1] == 16
        rates = [branch.convolution.dilation for branch in model.decoder.aspp.branches][1:]
        assert rates == [(12, 12), (24, 24), (36, 36)]
        for key, value in model.state_dict().items():
            assert torch.equal(value, source.state_dict()[key])


def test_a_foreign_layouts_conventions_give_way_to_what_was_asked_for():
    source = build("deeplabv3", {"encoder": "resnet18"}, output_stride=8, auxiliary=True)
    kept = {
        "decoder.mix.convolution": "classifier.1",
        "decoder.mix.norm": "classifier.2",
        "decoder.classifier": "classifier.4",
        "decoder.auxiliary.mix.convolution": "aux_classifier.0",
        "decoder.auxiliary.mix.norm": "aux_classifier.1",
        "decoder.auxiliary.classifier": "aux_classifier.4",
        "decoder.aspp.pooled.convolution": "classifier.0.convs.4.1",
        "decoder.aspp.pooled.norm": "classifier.0.convs.4.2",
        "decoder.aspp.project.convolution": "classifier.0.project.0",
        "decoder.aspp.project.norm": "classifier.0.project.1",
        "encoder.stem.0.convolution": "backbone.conv1",
        "encoder.stem.0.norm": "backbone.bn1",
    }
    state = {}
    for key, value in source.state_dict().items():
        for ours, theirs in kept.items():
            key = f"{theirs}{key.removeprefix(ours)}" if key.startswith(f"{ours}.") else key
        for i in range(4):
            key = key.replace(f"encoder.stages.{i}.", f"backbone.layer{i + 1}.")
            key = key.replace(f"decoder.aspp.branches.{i}.convolution", f"classifier.0.convs.{i}.0")
            key = key.replace(f"decoder.aspp.branches.{i}.norm", f"classifier.0.convs.{i}.1")
        for j in range(2):
            key = key.replace(f".layers.{j}.convolution", f".conv{j + 1}").replace(f".layers.{j}.norm", f".bn{j + 1}")
        key = key.replace(".shortcut.convolution", ".downsample.0").replace(".shortcut.norm", ".downsample.1")
        state[key] = value
    wanted = {"output_stride": 16, "multi_grid": [1, 2, 1], "dilation": "whole", "auxiliary": False}
    model = build("deeplabv3", {"encoder": "resnet18"}, **wanted)
    report = pw.load_weights(model, state)
    assert report.layout == "DeepLabV3, torchvision"
    assert {key: model.architecture.options[key] for key in wanted} == wanted
    assert set(report.kept) == {"output_stride", "dilation", "auxiliary"}
    assert any(name.startswith("aux_classifier.") for name in report.unused)
    free = build("deeplabv3", {"encoder": "resnet18"})
    report = pw.load_weights(free, state)
    assert report.adopted["output_stride"] == (16, 8)
    assert report.adopted["auxiliary"] == (False, True)
    with pytest.raises(pw.WeightsError, match=r"release='mmsegmentation'.*release='paper'"):
        pw.load_weights(build("deeplabv3", {"encoder": "resnet18"}, release="mmsegmentation"), state)


def test_partial_keeps_what_was_asked_for_and_reports_what_starts_fresh(tmp_path):
    path = saved(tmp_path, build("deeplabv3", {"encoder": "resnet18"}))
    model = build("deeplabv3", {"encoder": "resnet18"}, auxiliary=True)
    report = pw.load_weights(model, path, partial=True)
    assert report.encoder_complete
    assert report.missing
    assert all(name.startswith("decoder.auxiliary.") for name in report.missing)
    other = pw.load_weights(build("segformer-b0", {}), saved(tmp_path, build("segformer-b1", {})), partial=True)
    assert (other.encoder_complete, other.network) == (False, "segformer-b1")


def test_resized_position_embeddings_answer_at_their_size_as_before(tmp_path):
    source = build("segmenter-linear", VIT)
    with torch.no_grad():
        source.encoder.positions.normal_()
    model = build("segmenter-linear", {**VIT, "image_size": 96})
    pw.load_weights(model, saved(tmp_path, source))
    image = torch.randn(1, 3, 96, 96)
    assert model.encoder.positions.shape[1] == 1 + 36
    assert torch.allclose(model(image), source(image), atol=1e-6)


@pytest.mark.parametrize(OPTIONS, STANDS)
def test_a_model_folder_is_read_with_other_options(tmp_path, name, others, option, trained, asked):
    source = build(name, others, **{option: trained})
    model, card, _ = load_model(folder_of(tmp_path, source), options={option: asked})
    assert model.architecture.options[option] == card.architecture.options[option] == asked
    assert not model.training
    expected = bare(name, others, **{option: asked})
    pw.load_weights(expected, source.state_dict(), partial=True)
    image = torch.randn(1, 3, 96, 96)
    if option not in ("image_size",):
        with torch.no_grad():
            assert torch.equal(model(image), expected(image))


@pytest.mark.parametrize(OPTIONS, REFUSED)
def test_a_model_folder_refuses_options_that_need_other_tensors(tmp_path, name, others, option, trained, asked):
    folder = folder_of(tmp_path, build(name, others, **{option: trained}))
    with pytest.raises(pw.WeightsError) as caught:
        load_model(folder, options={option: asked})
    assert f"{option}={asked!r}" in str(caught.value)
    assert f"{option}={trained!r}" in str(caught.value)


def test_a_model_folder_refuses_unknown_options_and_values(tmp_path):
    folder = folder_of(tmp_path, build("deeplabv3", {"encoder": "resnet18"}))
    with pytest.raises(pw.ConfigError, match="output_strid"):
        load_model(folder, options={"output_strid": 8})
    with pytest.raises(pw.ConfigError, match="output_stride"):
        load_model(folder, options={"output_stride": 7})


def test_files_remember_what_was_asked_for_and_older_ones_are_read(tmp_path):
    source = build("deeplabv3", {"encoder": "resnet18"}, output_stride=8)
    folder = folder_of(tmp_path, source)
    model, card, _ = load_model(folder)
    assert set(model.architecture.asked) == set(card.architecture.asked) == {"encoder", "output_stride"}
    architecture = {"name": "deeplabv3", "classes": 3, "bands": 3, "options": source.architecture.options}
    table = {
        "architecture": architecture,
        "classes": {"names": ["a", "b", "c"], "palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2]]},
        "bands": [1, 2, 3],
        "dtype": "uint8",
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }
    (folder / "model.toml").write_text(tomli_w.dumps(table))
    older, card, _ = load_model(folder)
    assert card.architecture == source.architecture
    assert all(
        torch.equal(a, b) for a, b in zip(older.state_dict().values(), source.state_dict().values(), strict=True)
    )


def test_a_network_says_which_options_were_asked_for():
    with torch.device("meta"):
        assert pw.create("deeplabv3", classes=3).architecture.asked == ()
        model = pw.create("hmsa", classes=3, network="deeplabv3", encoder="resnet18", output_stride=8)
    assert set(model.architecture.asked) == {"network", "encoder", "output_stride"}
