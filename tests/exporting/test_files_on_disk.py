"""What an export leaves alone, and what it leaves behind."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from small_network import card_of
from test_export import FAMILIES, SEGFORMER, saved, session

import pixelwise as pw
from pixelwise.data.contract import Contract
from pixelwise.exporting import onnx as onnx_module
from pixelwise.exporting.network import ExportedNetwork
from pixelwise.exporting.outputs import require_own, write_certificate
from pixelwise.hub.licences import Origin
from pixelwise.runs.model_folder import replace_card, save_model

SMALL = ("unet", {"filters": [4, 8]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    saved(folder / "model", *SMALL)
    pw.export(folder / "model", folder / "model.xml")
    return folder


@pytest.mark.parametrize(("out", "theirs"), [("a.onnx", "a.onnx"), ("a.pt2", "a.pt2"), ("a.xml", "a.bin")])
def test_a_file_of_somebody_else_is_kept(folder, tmp_path, out, theirs):
    (tmp_path / theirs).write_bytes(b"mine")
    with pytest.raises(pw.ConfigError, match=rf"{theirs} is there and not an export"):
        pw.export(folder / "model", tmp_path / out)
    assert (tmp_path / theirs).read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == [theirs]


def test_an_export_of_ours_is_replaced(folder):
    before = (folder / "model.xml").read_bytes()
    require_own(folder / "model.xml", folder / "model.bin")
    pw.export(folder / "model", folder / "model.xml", outputs=["labels", "logits"])
    assert (folder / "model.xml").read_bytes() != before
    pw.load(folder / "model.xml")


@pytest.mark.parametrize("out", ["a.onnx", "a.xml", "a.pt2"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of a file")
def test_a_full_disk_is_told_and_nothing_is_left(folder, tmp_path, out):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(pw.ConfigError, match="Free space on that disk"):
            pw.export(folder / "model", tmp_path / out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_export_are_named(folder, tmp_path):
    torch.manual_seed(7)
    other = pw.create(SMALL[0], classes=4, **SMALL[1]).eval()
    save_model(tmp_path / "other", other, card_of(other))
    pw.export(tmp_path / "other", tmp_path / "other.xml")
    shutil.copy(folder / "model.xml", tmp_path / "other.xml")
    with pytest.raises(pw.WeightsError, match=r"other.bin is not the file that .*other.xml was written with"):
        pw.load(tmp_path / "other.xml")


def test_certificates_that_others_wrote_meanwhile_are_kept(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(b"model_sha256")
        require_own(tmp_path / name, None)
    for name in ("a.onnx", "b.onnx"):
        write_certificate(tmp_path / name, {"relative_difference": 0})
    assert set(json.loads((tmp_path / "certificate.json").read_text())) == {"a.onnx", "b.onnx"}


def test_a_folder_for_transformers_replaces_nothing_but_such_a_folder(tmp_path):
    _, card = saved(tmp_path / "model", *SEGFORMER)
    origin = Origin("theirs", "https://example.org", "CC-BY-NC-4.0", "no", "By others.", "")
    replace_card(tmp_path / "model", replace(card, origins=(origin,)))
    exports = tmp_path / "exports"
    exports.mkdir()
    (exports / "certificate.json").write_text('{"a.onnx": {"relative_difference": 0}}')
    (exports / "a.onnx").write_bytes(b"model_sha256")
    with pytest.raises(pw.ConfigError, match="so it is kept"):
        pw.export(tmp_path / "model", exports, to="transformers")
    assert (exports / "a.onnx").is_file()
    out = tmp_path / "for-transformers"
    pw.export(tmp_path / "model", out, to="transformers")
    assert "CC-BY-NC-4.0" in (out / "NOTICE.txt").read_text()
    (out / "README.md").write_text("written by hand")
    with pytest.raises(pw.ConfigError, match=r"README\.md, which no export wrote"):
        pw.export(tmp_path / "model", out, to="transformers")
    assert (out / "README.md").read_text() == "written by hand"


def test_confidence_alone_has_no_labels_to_compare_and_the_model_knows_its_resolution(tmp_path):
    _, card = saved(tmp_path / "model", *SEGFORMER)
    replace_card(tmp_path / "model", replace(card, contract=Contract((0.0,) * 3, (255.0,) * 3, pixel=0.25)))
    made = pw.export(tmp_path / "model", tmp_path / "sure.onnx", outputs=["confidence"])
    told = made.certificate.to_dict()
    assert (told["equal_labels"], told["miou_torch"], told["miou_export"]) == (None, None, None)
    assert json.loads(session(made.path).get_modelmeta().custom_metadata_map["ground_resolution"]) == 0.25


def test_an_exporter_that_fails_is_told_in_a_sentence(folder, tmp_path, monkeypatch, capfd):
    def failing(*_, **__):
        torch._C._jit_onnx_log("a graph of a thousand lines")
        raise TypeError("no such operator\nand so on")

    monkeypatch.setattr(onnx_module.torch.onnx, "export", failing)
    with pytest.raises(pw.PixelwiseError, match=r"unet cannot be exported to onnx .*\(no such operator\).*--size 64"):
        pw.export(folder / "model", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_labels_of_many_classes_have_16_bits_in_a_program_of_torch(monkeypatch):
    model = pw.create("unet", classes=300, **FAMILIES["unet"]).eval()
    from pixelwise.exported.about import About
    from pixelwise.exported.options import ExportOptions

    about = About(card_of(model), "", ExportOptions(("labels",)), 1, model.multiple, False)
    (labels,) = ExportedNetwork(model, about).eval()(torch.zeros(1, 3, 32, 32))
    assert labels.dtype == torch.uint16
