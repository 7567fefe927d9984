"""Encoders alone, our own files and folders, and what is said of files that cannot be loaded."""

import argparse
import pickle
from pathlib import Path

import golden
import pytest
import tomli_w
import torch

import pixelwise as pw
from pixelwise.weights import save_weights

GOLDENS = Path(__file__).parent.parent / "goldens"


def recorded(name):
    spec = golden.load(name, GOLDENS)
    return spec, {key: torch.from_numpy(value) for key, value in golden.weights(spec, "w1").items()}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(
    ("name", "maps"), [("segformer_b0_nvlabs", "c{}"), ("segformer_b0_mmseg122", "feat{}"), ("segformer_b0_hf", "")]
)
def test_an_imagenet_encoder_of_each_release_gives_its_recorded_maps(name, maps, prefix):
    spec, state = recorded(name)
    owner = "segformer." if name.endswith("hf") else "backbone."
    encoder = {
        (owner if prefix else "") + key.removeprefix(owner): value
        for key, value in state.items()
        if key.startswith(owner)
    }
    head = {"segformer_b0_nvlabs": "head.", "segformer_b0_hf": "classifier."}.get(name)
    if head:
        encoder |= {f"{head}weight": torch.zeros(1000, 256), f"{head}bias": torch.zeros(1000)}
    model = pw.create("segformer-b0", classes=4).eval()
    report = pw.load_weights(model, encoder)
    assert report.layout.endswith("(encoder only)")
    assert set(report.unused) == ({f"{head}weight", f"{head}bias"} if head else set())
    assert report.missing
    assert all(key.startswith("decoder.") for key in report.missing)
    with torch.no_grad():
        features = model.encoder(torch.from_numpy(golden.inputs(spec, "sq")))
    for i, feature in enumerate(features):
        output = {"c{}": f"c{i + 1}", "feat{}": f"feat{i}", "": f"hidden{i}"}[maps]
        assert golden.compare(spec, f"w1/eval/sq/{output}", feature.numpy()) <= 5e-6


@pytest.mark.parametrize("release", ["paper", "transformers", "mmsegmentation"])
@pytest.mark.parametrize("kind", ["file", "model folder", "run folder"])
def test_our_own_files_bring_their_release_along(tmp_path, release, kind):
    model = pw.create("segformer-b0", classes=4, release=release).eval()
    folder = {"file": tmp_path, "model folder": tmp_path, "run folder": tmp_path / "model"}[kind]
    save_weights(model, folder / "model.safetensors")
    if kind != "file":
        options = model.architecture.options
        card = {"architecture": {"name": "segformer-b0", "classes": 4, "bands": 3, "options": options}}
        (folder / "model.toml").write_text(tomli_w.dumps(card))
    other = pw.create("segformer-b0", classes=4).eval()
    report = pw.load_weights(other, tmp_path / "model.safetensors" if kind == "file" else tmp_path)
    assert report.missing == report.unexpected == ()
    assert other.architecture.options["release"] == release
    assert equal(model, other)
    image = torch.randn(1, 3, 40, 50)
    assert torch.equal(model(image), other(image))


def test_a_network_with_the_decoder_of_mmsegmentation_can_take_back_the_papers():
    model = pw.create("segformer-b0", classes=150)
    pw.load_weights(model, recorded("segformer_b0_mmseg122")[1])
    assert pw.load_weights(model, recorded("segformer_b0_nvlabs")[1]).missing == ()
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_752_694


def test_wrappers_before_every_name_are_taken_off():
    model, other = pw.create("segformer-b0", classes=4), pw.create("segformer-b0", classes=4)
    for prefix in ("module._orig_mod.", "_orig_mod.module.", "model."):
        pw.load_weights(other, {prefix + key: value for key, value in model.state_dict().items()})
        assert equal(model, other)


@pytest.mark.parametrize(
    ("built", "found"),
    [("segformer-b2", "segformer-b0"), ("segformer-b0", "segformer-b2"), ("segformer-b3", "segformer-b2")],
)
def test_weights_of_another_variant_are_refused_by_its_name_and_change_nothing(built, found):
    _, state = recorded(f"segformer_{found[-2:]}_nvlabs")
    model = pw.create(built, classes=150)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    architecture = model.architecture
    with pytest.raises(pw.WeightsError, match=found):
        pw.load_weights(model, state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.architecture == architecture


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"backbone.layers.0.1.0.attn.attn.in_proj_weight": torch.tensor(1.0)},
        lambda state: state | {"decode_head.fusion_conv.conv.weight": torch.zeros(3)},
        lambda state: {key: value for key, value in state.items() if "in_proj" not in key},
    ],
)
def test_damaged_tensors_are_the_users_error(change):
    _, state = recorded("segformer_b0_mmseg122")
    with pytest.raises(pw.WeightsError):
        pw.load_weights(pw.create("segformer-b0", classes=150), change(state))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", b"\x01\x02 noise", "damaged"),
        ("a.safetensors", b"\x01\x02 noise", "damaged"),
        ("model.safetensors.index.json", b"{", "weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": {"x": "gone.safetensors"}}', "gone.safetensors"),
        ("a.txt", b"", "a.txt"),
    ],
)
def test_damaged_files_are_named_with_their_mend(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    source = tmp_path if name.endswith(".json") else tmp_path / name
    with pytest.raises(pw.WeightsError, match=words):
        pw.load_weights(pw.create("segformer-b0", classes=4), source)


def test_a_checkpoint_that_would_run_code_names_what_it_would_run(tmp_path):
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(pw.WeightsError, match=r"argparse\.Namespace.*state_dict"):
        pw.load_weights(pw.create("segformer-b0", classes=4), tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "b.pth").write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    with pytest.raises(pw.WeightsError, match=r"b\.pth"):
        pw.load_weights(pw.create("segformer-b0", classes=4), tmp_path / "b.pth")


def test_a_missing_file_or_an_empty_folder_is_named(tmp_path):
    for source in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(pw.WeightsError, match=str(source)):
            pw.load_weights(pw.create("segformer-b0", classes=4), source)


def test_a_failed_save_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights(pw.create("segformer-b0", classes=4), path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("pixelwise.weights.files.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(pw.create("segformer-b0", classes=4), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
