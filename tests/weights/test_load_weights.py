"""Weights of every layout of SegFormer, from state dicts, files and folders."""

import json
import pickle
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerModel

import pixelwise as pw
from pixelwise.weights.files import write_state

TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def peer():
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=7)).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                # Fresh weights hide mistakes behind zeros and ones.
                value.add_(torch.randn_like(value) * 0.05)
            if name.endswith("running_var"):
                value.abs_().add_(0.1)
    return network


def ours(**options):
    return pw.create("segformer-b0", **{"classes": 7, **options}).eval()


def hub_names(state):
    """The names that transformers 4.x wrote, from those of 5.x."""
    rules = [
        (r"segformer\.stages\.(\d)\.patch_embeddings\.", r"segformer.encoder.patch_embeddings.\1."),
        (r"segformer\.stages\.(\d)\.blocks\.(\d+)\.", r"segformer.encoder.block.\1.\2."),
        (r"segformer\.stages\.(\d)\.layer_norm\.", r"segformer.encoder.layer_norm.\1."),
        (r"\.layernorm_before\.", ".layer_norm_1."),
        (r"\.layernorm_after\.", ".layer_norm_2."),
        (r"\.attention\.q_proj\.", ".attention.self.query."),
        (r"\.attention\.k_proj\.", ".attention.self.key."),
        (r"\.attention\.v_proj\.", ".attention.self.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attention.self.sr."),
        (r"\.attention\.sequence_reduction\.layer_norm\.", ".attention.self.layer_norm."),
        (r"\.mlp\.fc1\.", ".mlp.dense1."),
        (r"\.mlp\.fc2\.", ".mlp.dense2."),
        (r"decode_head\.linear_projections\.", "decode_head.linear_c."),
    ]
    renamed = {}
    for name, value in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


def error(model, peer, size):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = peer(pixel_values=image).logits, model.decode(image).logits
    return float((got - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (77, 131)])
def test_a_folder_that_transformers_saved_gives_the_logits_of_transformers(peer, tmp_path, size):
    peer.save_pretrained(tmp_path)
    model = ours()
    report = pw.load_weights(model, tmp_path)
    assert report.missing == report.unexpected == ()
    assert "transformers" in report.layout
    assert error(model, peer, size) <= TOLERANCE
    assert error(pw.fuse(model), peer, size) <= TOLERANCE


def test_the_names_of_the_hub_are_read_like_those_of_today(peer):
    model = ours()
    report = pw.load_weights(model, hub_names(peer.state_dict()))
    assert report.missing == report.unexpected == ()
    assert error(model, peer, (77, 131)) <= TOLERANCE


def test_an_encoder_alone_fills_the_encoder_and_names_the_fresh_decoder(peer):
    model = ours()
    encoder = SegformerModel(peer.config)
    encoder.load_state_dict(
        {k.removeprefix("segformer."): v for k, v in peer.state_dict().items() if k.startswith("seg")}
    )
    fresh = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    report = pw.load_weights(model, encoder.state_dict())
    assert report.missing
    assert all(name.startswith("decoder.") for name in report.missing)
    assert "encoder only" in report.layout
    assert all(torch.equal(value, fresh[name]) for name, value in model.decoder.state_dict().items())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = encoder.eval()(image, output_hidden_states=True).hidden_states[-1]
        assert torch.allclose(model.encoder(image)[-1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
def test_files_of_every_kind_are_read(peer, tmp_path, suffix, wrapped):
    state = {f"module.{name}": value.clone() for name, value in peer.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, path)
    model = ours()
    assert pw.load_weights(model, path).missing == ()
    assert error(model, peer, (64, 64)) <= TOLERANCE


def test_shards_with_an_index_are_read_as_one(peer, tmp_path):
    state = {name: value.contiguous() for name, value in peer.state_dict().items()}
    names = sorted(state)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert pw.load_weights(ours(), tmp_path).missing == ()


def test_what_we_save_is_what_we_load(peer):
    model, again = ours(), ours()
    pw.load_weights(model, peer.state_dict())
    report = pw.load_weights(again, model.state_dict())
    assert report.layout == "pixelwise"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_another_class_count_is_refused_with_its_mend_and_leaves_the_network_as_it_was(peer):
    model = ours(classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = dict(model.architecture.options)
    with pytest.raises(pw.WeightsError, match=r"classes=7"):
        pw.load_weights(model, peer.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.architecture.options == options


def test_partial_loading_fills_what_fits_and_reports_the_rest(peer):
    model = ours(classes=5)
    report = pw.load_weights(model, peer.state_dict(), partial=True)
    assert set(report.missing) == {"decoder.classifier.weight", "decoder.classifier.bias"}
    assert set(report.unexpected) == {"decode_head.classifier.weight", "decode_head.classifier.bias"}


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ours(bands=4), "bands=3"),
        (lambda: pw.create("segformer-b1", classes=7), "another variant"),
    ],
)
def test_unfitting_networks_are_refused(peer, build, words):
    with pytest.raises(pw.WeightsError, match=words):
        pw.load_weights(build(), peer.state_dict())


def test_a_missing_and_a_strange_name_are_both_told(peer):
    state = dict(peer.state_dict())
    state["something.else"] = state.pop("decode_head.classifier.bias")
    with pytest.raises(pw.WeightsError, match=r"missing decoder\.classifier\.bias.*unexpected something\.else"):
        pw.load_weights(ours(), state)


class Hostile:
    def __reduce__(self):
        return print, ("this must never run",)


@pytest.mark.parametrize("content", ["hostile", "noise", "nothing"])
def test_files_that_are_no_weights_are_refused_without_running_them(tmp_path, content, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes({"hostile": pickle.dumps(Hostile()), "noise": b"\x01\x02 noise", "nothing": b""}[content])
    with pytest.raises(pw.WeightsError, match=re.escape(str(path))):
        pw.load_weights(ours(), path)
    assert "must never run" not in capsys.readouterr().out


def test_unknown_names_list_the_known_layouts():
    with pytest.raises(pw.WeightsError, match=r"no known layout.*paper.*transformers.*mmsegmentation"):
        pw.load_weights(ours(), {"conv1.weight": torch.zeros(3)})


def test_weights_may_be_read_by_whoever_may_read_any_file_of_their_maker(tmp_path):
    (tmp_path / "note").touch()
    pw.save_weights(ours(), tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "note").stat().st_mode


def test_equal_weights_are_equal_files_whatever_their_header_says(tmp_path):
    header = {"format": "pt", "pixelwise.origins": '[{"name": "Zürich"}]', "a": "1", "b": "\n"}
    layer = torch.nn.Linear(2, 3, bias=False)
    torch.nn.init.zeros_(layer.weight)
    for i in range(20):
        write_state(layer, tmp_path / f"{i}.safetensors", header)
    assert len({(tmp_path / f"{i}.safetensors").read_bytes() for i in range(20)}) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == header
        assert file.get_tensor("weight").tolist() == [[0, 0]] * 3
