"""Exported files against the networks that they were made from, by the runtimes' own calls."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from small_network import card_of
from torch import nn

import pixelwise as pw
from pixelwise.cli import commands
from pixelwise.config import ModelConfig
from pixelwise.exporting import export as module
from pixelwise.exporting.layers import NETWORK, layers_of
from pixelwise.hub.licences import Origin, records
from pixelwise.models import Architecture, Decoded, Segmenter
from pixelwise.runs.model_folder import save_model
from pixelwise.training.first_weights import first_weights

VIT = {"encoder": "vit-tiny", "dim": 32, "depth": 6, "heads": 2, "image_size": 64}
FAMILIES = {
    "segformer-b0": {"widths": [8, 16, 20, 32], "depths": [1, 1, 1, 1], "decoder_channels": 16},
    "unet": {"filters": [4, 8, 8, 8, 8]},
    "unet3p": {"filters": [4, 8, 8], "level": 2, "decoder_channels": 4},
    "linknet": {},
    "pspnet": {"encoder": "resnet18", "decoder_channels": 16},
    "segmenter-mask": VIT,
    "setr-naive": {"encoder": "dinov2-small", "dim": 32, "depth": 6, "heads": 2, "image_size": 56},
    "eomt-s": {"dim": 32, "depth": 6, "heads": 2, "image_size": 64, "queries": 6},
}
SEGFORMER = ("segformer-b0", FAMILIES["segformer-b0"])


def saved(folder, name, options, *, classes=4, bands=3, **card):
    torch.manual_seed(0)
    model = pw.create(name, classes=classes, bands=bands, **options).eval().requires_grad_(False)
    card = card_of(model, **card)
    save_model(folder, model, card)
    return model, card


def raw(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def normalised(image, card):
    mean, std = (np.array(values)[:, None, None] for values in (card.mean, card.std))
    return torch.from_numpy(((image - mean) / std).astype(np.float32))


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("name", "options"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_file_takes_raw_images_of_any_size_and_gives_the_networks_logits(tmp_path, name, options):
    model, card = saved(tmp_path / "model", name, options)
    made = pw.export(tmp_path / "model", tmp_path / "model.onnx")
    file = session(tmp_path / "model.onnx")
    for shape in ((1, 3, 64, 64), (2, 3, 75, 101), (1, 3, 122, 32)):
        image = raw(*shape)
        found = file.run(["logits"], {"image": image})[0]
        wanted = model.decode(normalised(image, card)).logits.numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    assert made.certificate.sound
    # What int8 is for has the network's names.
    products = layers_of(onnx.load(made.path)).products
    assert all(node.startswith(NETWORK) for node in products)
    assert len(products) > 3


def test_labels_and_confidence_come_from_8_bit_images_with_channels_last(tmp_path):
    model, card = saved(tmp_path / "model", *SEGFORMER)
    path = tmp_path / "labels.onnx"
    pw.export(tmp_path / "model", path, outputs=("confidence", "labels"), dtype="uint8", layout="nhwc")
    image = raw(2, 3, 61, 70)
    labels, confidence = session(path).run(None, {"image": np.moveaxis(image, 1, -1).astype(np.uint8)})
    chances = model(normalised(image, card)).softmax(dim=1)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, chances.argmax(dim=1).numpy())
    np.testing.assert_allclose(confidence, chances.amax(dim=1).numpy(), atol=1e-5)


def test_16_bit_images_and_labels_of_many_classes_have_16_bits_in_the_file(tmp_path):
    model, card = saved(tmp_path / "model", *SEGFORMER, classes=300, dtype="uint16")
    path = tmp_path / "many.onnx"
    pw.export(tmp_path / "model", path, outputs=("labels",), dtype="uint16")
    image = raw(1, 3, 40, 52)
    labels = session(path).run(None, {"image": image.astype(np.uint16)})[0]
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, model(normalised(image, card)).argmax(dim=1).numpy())


def test_the_file_for_deepness_reads_as_the_plugin_reads_it(tmp_path):
    model, card = saved(tmp_path / "model", *SEGFORMER)
    path = tmp_path / "qgis.onnx"
    pw.export(tmp_path / "model", path, purpose="deepness", resolution=0.5)
    file = session(path)
    # Deepness reads each of its keys as JSON.
    keys = ("model_type", "class_names", "resolution", "tile_size", "tiles_size", "tiles_overlap", "seg_thresh")
    keys += ("seg_small_segment", "standardization_mean", "standardization_std")
    texts = file.get_modelmeta().custom_metadata_map
    told = {key: json.loads(texts[key]) for key in keys}
    assert str(told["model_type"]).capitalize() == "Segmentor"
    assert [told["class_names"][str(i)] for i in range(4)] == list(card.classes.names)
    assert float(told["resolution"]) == 50
    assert int(told["tile_size"]) == int(told["tiles_size"]) == card.tile
    assert int(told["tiles_overlap"]) == 50
    assert float(told["seg_thresh"]) == int(told["seg_small_segment"]) == 0
    assert file.get_inputs()[0].shape == [1, 3, card.tile, card.tile]
    # The plugin divides by 255, then takes the mean away and divides by the deviation.
    image = raw(1, 3, card.tile, card.tile)
    mean, std = (np.array(told[f"standardization_{key}"])[:, None, None] for key in ("mean", "std"))
    found = file.run(None, {"image": ((image / 255 - mean) / std).astype(np.float32)})[0]
    wanted = model(normalised(image, card)).softmax(dim=1).numpy()
    assert found.shape == (1, 4, card.tile, card.tile)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_metadata_and_certificate_tell_what_is_in_the_file(tmp_path):
    _, card = saved(tmp_path / "model", *SEGFORMER)
    made = pw.export(tmp_path / "model", tmp_path / "model.onnx")
    told = session(made.path).get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(card.classes.names)
    assert json.loads(told["mean"]) == list(card.mean)
    assert told["units"] == "uint8"
    kept = json.loads((tmp_path / "certificate.json").read_text())["model.onnx"]
    shapes = [(case["batch"], case["height"], case["width"]) for case in kept["cases"]]
    assert any(height % 2 and width % 2 for _, height, width in shapes)
    assert any(batch == 2 for batch, _, _ in shapes)
    assert kept["relative_difference"] <= kept["bound"] == 1e-4
    assert kept["equal_labels"] >= kept["bound_of_labels"] == 0.9999
    assert json.loads(told["certificate"])["cases"] == kept["cases"]
    onnx.checker.check_model(str(made.path), full_check=True)


class Remembering(nn.Module):
    """An encoder that a trace gets wrong: what it computes of one image becomes a constant."""

    channels, strides = (3,), (4,)

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return [self.factor * nn.functional.avg_pool2d(image, 4, ceil_mode=True) * float(image.abs().mean())]


class Same(nn.Module):
    def forward(self, maps):
        return Decoded(maps[0])


def test_a_file_that_would_answer_otherwise_is_not_written_and_the_place_is_named(tmp_path, monkeypatch):
    model = Segmenter(Remembering(), Same(), Architecture("remembering", 3, 3)).eval()
    monkeypatch.setattr(module, "load_model", lambda run, options: (model, card_of(model), "0123"))
    with pytest.raises(pw.PixelwiseError, match="It begins at map 1 of the encoder's 1") as refused:
        pw.export(tmp_path, tmp_path / "model.onnx")
    assert "not written" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_transformers_loads_the_folder_with_labels_and_gives_the_same_logits(tmp_path):
    transformers = pytest.importorskip("transformers")
    model, card = saved(tmp_path / "model", *SEGFORMER)
    pw.export(tmp_path / "model", tmp_path / "folder", to="transformers")
    theirs = transformers.SegformerForSemanticSegmentation.from_pretrained(tmp_path / "folder").eval()
    assert theirs.config.id2label == dict(enumerate(card.classes.names))
    processor = json.loads((tmp_path / "folder" / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == list(card.mean)
    image = normalised(raw(1, 3, 75, 101), card)
    wanted = model.decode(image).logits
    with torch.no_grad():
        found = theirs(pixel_values=image).logits
    # Its layer norms have another epsilon than the paper's.
    assert float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


ORIGIN = Origin("mit-b0", "a hub", "NVIDIA-SegFormer", "no", "Made by somebody.", "00ff")


@pytest.mark.parametrize("to", ["onnx", "transformers"])
def test_an_export_names_what_the_model_descends_from(tmp_path, to):
    if to == "transformers":
        pytest.importorskip("transformers")
    saved(tmp_path / "model", *SEGFORMER, origins=(ORIGIN,))
    out = tmp_path / f"m.{to}"
    told = CliRunner().invoke(commands, ["export", str(tmp_path / "model"), str(out), "--to", to])
    assert "descends from mit-b0 (NVIDIA-SegFormer)" in told.output
    named = CliRunner().invoke(commands, ["licences", str(out), "--json"])
    assert json.loads(named.stdout) == records([ORIGIN])
    if to == "transformers":
        # Whoever trains from the folder is bound too.
        for weights in (out, out / "model.safetensors"):
            with pytest.raises(pw.WeightsError, match='accept_licence = "NVIDIA-SegFormer"'):
                first_weights(ModelConfig(weights=weights))
        assert "Made by somebody." in (out / "NOTICE.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("out", "more", "said"),
    [
        ("model", {}, "does not tell what to export to"),
        ("model.xml", {"to": "onnx"}, "ends in .onnx"),
        ("model.onnx", {"outputs": ("classes",)}, "'classes' is no output"),
        ("model.onnx", {"layout": "chw"}, "layout of an exported file is one of nchw, nhwc"),
        ("model.onnx", {"size": (16, 64)}, "at least 32"),
        ("model.onnx", {"dtype": "uint8"}, "trained on uint16"),
        ("model.onnx", {"purpose": "deepness"}, "8-bit images alone"),
        ("model.onnx", {"purpose": "arcgis"}, "'deepness'"),
        ("folder", {"to": "transformers", "dtype": "uint16"}, "Leave the other options out"),
    ],
)
def test_what_does_not_work_is_said_in_a_sentence(tmp_path, out, more, said):
    saved(tmp_path / "model-16", *SEGFORMER, dtype="uint16")
    with pytest.raises(pw.ConfigError, match=said):
        pw.export(tmp_path / "model-16", tmp_path / out, **more)


def test_networks_that_cannot_be_exported_so_say_why(tmp_path):
    saved(tmp_path / "unet", "unet", FAMILIES["unet"])
    with pytest.raises(pw.ConfigError, match="Only a SegFormer goes out to transformers, and this is unet"):
        pw.export(tmp_path / "unet", tmp_path / "folder", to="transformers")
    architecture = Architecture("hmsa", 3, 3)
    model = Segmenter(Remembering(), Same(), architecture)
    with pytest.raises(pw.ConfigError, match=r"hmsa cannot be exported for images of all sizes: .* --size 64 64"):
        module._fitting("onnx", module.ExportOptions(), model, replace(card_of(model), architecture=architecture))


def test_somebody_elses_certificate_and_folder_are_kept(tmp_path):
    saved(tmp_path / "model", *SEGFORMER)
    (tmp_path / "certificate.json").write_text('{"of": "somebody"}')
    with pytest.raises(pw.ConfigError, match="Move it"):
        pw.export(tmp_path / "model", tmp_path / "model.onnx")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(pw.ConfigError, match="so it is kept"):
        pw.export(tmp_path / "model", tmp_path / "folder", to="transformers")
    assert (tmp_path / "certificate.json").read_text() == '{"of": "somebody"}'
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"
