"""Where weights are in a checkpoint, what stands beside them, and what releases are called that are not read."""

import collections
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

import pixelwise as pw
from pixelwise.weights.files import read_state
from pixelwise.weights.pickles import Stored, read_pickle

OPTIONS = {"filters": [2, 4, 4, 8, 8]}


def small(seed=0):
    torch.manual_seed(seed)
    return pw.create("unet", classes=2, **OPTIONS).eval()


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def loaded(source, tmp_path, **more):
    torch.save(source, tmp_path / "weights.pth")
    model = small(seed=1)
    return model, pw.load_weights(model, tmp_path / "weights.pth", **more)


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state", "student", "anything"])
@pytest.mark.parametrize("averaged", [None, "model_ema", "teacher", "state_dict_ema"])
def test_weights_are_found_under_their_key_and_averaged_ones_are_named(tmp_path, key, averaged):
    source, other = small(), small(seed=2)
    checkpoint = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, key: source.state_dict()}
    if averaged:
        checkpoint[averaged] = other.state_dict()
    if key == "anything" and averaged:
        model, report = loaded(checkpoint, tmp_path)
        assert equal(model, other)
        assert report.part == averaged
        return
    model, report = loaded(checkpoint, tmp_path)
    assert equal(model, source)
    assert report.part == key
    assert report.others == ((averaged,) if averaged else ())
    assert any(averaged in note and key in note for note in report.notes) if averaged else not report.notes


@pytest.mark.parametrize("key", ["model_ema", "ema", "teacher", "swa_model"])
def test_averaged_weights_are_taken_where_there_are_no_others(tmp_path, key):
    source = small()
    model, report = loaded({key: source.state_dict(), "step": 1}, tmp_path)
    assert equal(model, source)
    assert report.part == key


def test_a_nested_checkpoint_is_followed_down(tmp_path):
    source = small()
    model, report = loaded({"checkpoint": {"model": {"state_dict": source.state_dict()}}, "args": {"lr": 1}}, tmp_path)
    assert equal(model, source)
    assert report.part == "checkpoint.model.state_dict"


def test_parts_of_unknown_names_are_refused_with_these_names(tmp_path):
    with pytest.raises(pw.WeightsError, match=r"'left', 'right'"):
        loaded({"left": small().state_dict(), "right": small().state_dict()}, tmp_path)
    with pytest.raises(pw.WeightsError, match=r"no tensors.*'epoch', 'note'"):
        loaded({"epoch": 1, "note": "x"}, tmp_path)


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("module.", {"n_averaged": torch.tensor(3)}),
        ("model.", {"criterion.weight": torch.ones(2)}),
        ("net.", {"loss.weight": torch.ones(2), "val_iou.confmat": torch.zeros(2, 2)}),
        ("_orig_mod.", {"step": torch.tensor(1)}),
        ("module._orig_mod.model.", {"epoch": torch.tensor(3)}),
        ("lightning_module.segmentor.", {}),
    ],
)
def test_a_wrappers_prefix_is_taken_off_beside_odd_tensors(tmp_path, prefix, beside):
    source = small()
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items()} | beside
    model, report = loaded(state, tmp_path, partial=True)
    assert equal(model, source)
    assert report.missing == ()
    assert report.unexpected == tuple(beside)


def test_torchs_own_wrappers_are_taken_off(tmp_path):
    source = small()
    for wrapped in (torch.optim.swa_utils.AveragedModel(source), nn.DataParallel(source), torch.compile(source)):
        model, _ = loaded(wrapped.state_dict(), tmp_path, partial=True)
        assert equal(model, source)


def test_of_a_network_and_its_average_in_one_state_dict_the_network_is_taken(tmp_path):
    source, other = small(), small(seed=2)
    state = {f"model.{name}": value for name, value in source.state_dict().items()}
    state |= {f"ema_model.module.{name}": value for name, value in other.state_dict().items()}
    model, report = loaded(state, tmp_path)
    assert equal(model, source)
    assert report.others == ("ema_model.module.",)
    state = {name.replace("ema_model.module.", "twin."): value for name, value in state.items()}
    with pytest.raises(pw.WeightsError, match=r"several networks.*model\. and twin\."):
        loaded(state, tmp_path)


def foreign_module(monkeypatch):
    """A module like mmengine's, that is there when a checkpoint is written and not when it is read."""
    module = types.ModuleType("mmengine_like")

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)

    class ConfigDict(dict):
        pass

    for kind in (HistoryBuffer, ConfigDict):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_skipped(tmp_path, monkeypatch, zipped):
    module = foreign_module(monkeypatch)
    config = module.ConfigDict(lr=1)
    config["steps"] = [1, 2]
    source = small()
    checkpoint = {
        "meta": {"cfg": config, "seed": np.int64(3), "best": np.float64(0.5), "when": collections.Counter("ab")},
        "message_hub": {"log_scalars": {"loss": module.HistoryBuffer()}, "kinds": {int, str}},
        "state_dict": source.state_dict(),
        "optimizer": torch.optim.AdamW(source.parameters()).state_dict(),
        "param_schedulers": [{"last": np.float32(1)}],
    }
    torch.save(checkpoint, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, module.__name__)
    model = small(seed=1)
    assert pw.load_weights(model, tmp_path / "weights.pth").missing == ()
    assert equal(model, source)


DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_as_torch_reads_them(tmp_path, zipped):
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    tensors = {dtype: (base * 20).to(getattr(torch, dtype)) for dtype in DTYPES}
    tensors |= {"part": base[2:5, 1:7:2], "turned": base.T, "empty": torch.empty(0, 3), "number": torch.tensor(2.5)}
    tensors |= {"shared": base, "parameter": nn.Parameter(torch.randn(3)), "last": nn.Linear(2, 3).weight}
    torch.save(tensors, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
    expected = torch.load(tmp_path / "t.pth", weights_only=True)
    found = read_pickle(tmp_path / "t.pth")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(found[name], Stored)
        got = found[name].load()
        assert (got.dtype, got.shape, found[name].shape) == (value.dtype, value.shape, tuple(value.shape))
        assert torch.equal(got, value.detach())


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_are_read_as_numpy_reads_them(tmp_path, protocol):
    rng = np.random.default_rng(0)
    arrays = {
        code: np.asarray(rng.integers(0, 2, (3, 4)) if code == "b1" else rng.normal(size=(3, 4)) * 9).astype(code)
        for code in ("f4", "f8", "f2", "i8", "i4", "u1", "b1", ">f4")
    }
    arrays |= {"columns": np.asfortranarray(arrays["f4"]), "number": np.array(3.0), "pair": ("name", arrays["f8"])}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(arrays, protocol=protocol))
    found = read_pickle(tmp_path / "a.pdparams")
    for name, value in arrays.items():
        value = value[1] if isinstance(value, tuple) else value
        assert np.array_equal(found[name].load().numpy(), value)


class Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs_wherever_it_stands(tmp_path, zipped, capsys):
    source = small()
    marker = tmp_path / "marker"
    state = dict(source.state_dict())
    checkpoint = {
        "state_dict": state,
        "a": Calls(print, "ran"),
        "b": Calls(open, str(marker), "w"),
        "c": [Calls(exec, "1")],
    }
    torch.save(checkpoint, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    model = small(seed=1)
    pw.load_weights(model, tmp_path / "w.pth")
    assert equal(model, source)
    assert not marker.exists()
    assert capsys.readouterr().out == ""


FOREIGN = {
    "U-Net, segmentation_models": {
        "encoder.conv1.weight",
        "decoder.blocks.0.conv1.0.weight",
        "segmentation_head.0.weight",
    },
    "SegFormer, segmentation_models.*non-commercial": {
        "encoder.patch_embed1.proj.weight",
        "encoder.block1.0.attn.kv.weight",
        "decoder.mlp_stage.0.linear.weight",
        "segmentation_head.0.weight",
    },
    "FPN, segmentation_models": {
        "encoder.conv1.weight",
        "decoder.seg_blocks.0.block.0.block.0.weight",
        "segmentation_head.0.bias",
    },
    r"DeepLabV3\+, segmentation_models": {
        "encoder.conv1.weight",
        "decoder.aspp.0.convs.0.0.weight",
        "decoder.block2.0.0.weight",
        "segmentation_head.0.weight",
    },
    "ViT, torchvision": {
        "class_token",
        "conv_proj.weight",
        "encoder.layers.encoder_layer_0.ln_1.weight",
        "heads.head.weight",
    },
}


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_release_that_is_not_read_is_called_by_its_name(name, prefix):
    for partial in (False, True):
        with pytest.raises(pw.WeightsError, match=name) as caught:
            pw.load_weights(small(), {f"{prefix}{key}": torch.zeros(2) for key in FOREIGN[name]}, partial=partial)
        assert "pixelwise)" not in str(caught.value)


def test_a_vit_of_transformers_is_called_by_its_name():
    network = ViTModel(
        ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32)
    )
    for prefix in ("", f"{network.base_model_prefix}."):
        with pytest.raises(pw.WeightsError, match="ViT, transformers"):
            pw.load_weights(small(), {f"{prefix}{name}": value for name, value in network.state_dict().items()})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.clone().fill_(float("nan")), "NaN"),
        (lambda value: value.clone().fill_(float("inf")), "NaN or infinite"),
        (lambda value: value.double() + 1e200, "NaN or infinite"),
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: value.to(torch.complex64), "complex64"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_what_is_no_number_is_refused_by_name(change, words, partial):
    state = small().state_dict()
    state["decoder.classifier.weight"] = change(state["decoder.classifier.weight"])
    with pytest.raises(pw.WeightsError, match=f"decoder.classifier.weight.*{words}"):
        pw.load_weights(small(), state, partial=partial)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken(dtype):
    source = small()
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in source.state_dict().items()
    }
    model = small(seed=1)
    assert pw.load_weights(model, state).missing == ()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype))


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_share_their_numbers_in_a_file_share_them_in_memory(tmp_path, zipped):
    numbers = torch.arange(12.0)
    state = {"a": numbers[:6].view(2, 3), "b": numbers[2:], "alone": torch.arange(3)}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read = read_state(tmp_path / "w.pth").tensors
    assert all(torch.equal(read[name], value) for name, value in state.items())
    assert read["a"].untyped_storage().data_ptr() == read["b"].untyped_storage().data_ptr()
