"""Damaged, foreign and hostile files of weights: one sentence for the user, or the weights as they were."""

import io
import json
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

import pixelwise as pw
from pixelwise.labels import make_classes
from pixelwise.runs.model_folder import ModelCard, load_model, save_model

SEEDS = range(40)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pw.create("unet", classes=2, filters=[2, 2, 2, 2, 2]).eval()


def contents(model):
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    files = {"a.safetensors": save(state, {"format": "pt"})}
    for name, zipped in (("zip.pth", True), ("old.pth", False)):
        opened = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 1}, opened, _use_new_zipfile_serialization=zipped)
        files[name] = opened.getvalue()
    files["a.pdparams"] = pickle.dumps({name: value.numpy() for name, value in state.items()}, protocol=4)
    return files


def damaged(data, rng):
    data = bytearray(data)
    kind = rng.choice(["cut", "flip", "zero", "insert", "repeat", "numbers"])
    place = rng.choice([rng.randrange(len(data)), rng.randrange(min(200, len(data)))])
    if kind == "cut":
        del data[place:]
    elif kind == "zero":
        data[place : place + 64] = bytes(64)
    elif kind == "insert":
        data[place:place] = rng.randbytes(rng.randrange(1, 40))
    elif kind == "repeat":
        data += data[place : place + 4096]
    elif kind == "numbers":
        data[place : place + 8] = struct.pack("<Q", rng.choice([2**63, 2**40, 2**31, 0]))
    else:
        for _ in range(rng.choice([1, 8, 64])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("kind", ["a.safetensors", "zip.pth", "old.pth", "a.pdparams"])
def test_a_damaged_file_is_one_paragraph_or_whole_weights(model, tmp_path, kind):
    data, target, refused = contents(model)[kind], pw.create("unet", classes=2, filters=[2, 2, 2, 2, 2]), 0
    path = tmp_path / kind
    for seed in SEEDS:
        rng = random.Random(f"{kind} {seed}")
        path.write_bytes(damaged(data, rng))
        before = {name: value.clone() for name, value in target.state_dict().items()}
        said = None
        try:
            pw.load_weights(target, path, partial=rng.random() < 0.5)
        except pw.WeightsError as error:
            said = str(error)
        if said is None:
            assert all(torch.isfinite(value).all() for value in target.state_dict().values())
            continue
        refused += 1
        assert "\n" not in said
        assert len(said) < 2000
        assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert refused > len(SEEDS) // 4


@pytest.mark.parametrize("name", ["model.toml", "model.safetensors"])
def test_a_damaged_model_folder_is_one_paragraph_or_a_model(model, tmp_path, name):
    card = ModelCard(model.architecture, make_classes(["a", "b"]), (1, 2, 3), "uint8", (0.0,) * 3, (1.0,) * 3)
    save_model(tmp_path / "m", model, card)
    data = (tmp_path / "m" / name).read_bytes()
    for seed in SEEDS:
        (tmp_path / "m" / name).write_bytes(damaged(data, random.Random(f"{name} {seed}")))
        said = ""
        try:
            load_model(tmp_path / "m")
        except pw.errors.PixelwiseError as error:
            said = str(error)
        assert len(said) < 2000


def archive(members):
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return opened.getvalue()


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


PAIRS = b"2\x86" * 200
"""A pair of a pair of a pair: small in a pickle, and without end to whoever hashes or walks it."""
ODD = {
    "nothing.pth": b"",
    "nothing.safetensors": b"",
    "list.pth": pickle.dumps([1, 2, 3]),
    "text.pth": b"hello world, this is not a checkpoint",
    "page.pth": b"<!DOCTYPE html><html>Not found</html>",
    "pointer.pth": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "page.safetensors": b"<!DOCTYPE html><html>Not found</html>",
    "keras.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "memo.pth": b"\x80\x02}r\xff\xff\xff\x7f.",
    "long.pth": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "frame.pth": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.",
    "hashed.pth": b"\x80\x02}(K\x01\x85" + PAIRS + b"K\x01u.",
    "archive.pth": archive({"readme.txt": b"x"}),
    "bomb.pth": archive({"a/data.pkl": bytes(10**7), "a/version": b"3"}),
    "huge.safetensors": struct.pack("<Q", 2**62) + b"{}",
    "sizes.safetensors": safetensors(
        {"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "dtype.safetensors": safetensors({"a": {"dtype": "F1", "shape": [1], "data_offsets": [0, 1]}}, b"x"),
    "deep.safetensors": safetensors(b"[" * 100_000),
    "numpy.pdparams": pickle.dumps({"a.weight": np.array([object()])}),
    "twice.pth": pickle.dumps({"state_dict": {"state_dict": {}}}),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_one_paragraph_with_its_name(model, tmp_path, name):
    (tmp_path / name).write_bytes(ODD[name])
    for partial in (False, True):
        with pytest.raises(pw.WeightsError, match=name.replace(".", r"\.")):
            pw.load_weights(model, tmp_path / name, partial=partial)


def test_what_a_foreign_file_is_called(model, tmp_path):
    expected = {"list.pth": "holds a list", "page.pth": "web page", "pointer.pth": "Git LFS", "keras.h5": "HDF5"}
    expected |= {"pointer.safetensors": "Git LFS", "page.safetensors": "web page"}
    for name, words in expected.items():
        (tmp_path / name).write_bytes(ODD[name])
        with pytest.raises(pw.WeightsError, match=words) as caught:
            pw.load_weights(model, tmp_path / name)
        assert "damaged" not in str(caught.value)


def test_a_tensor_that_reaches_beyond_its_data_is_refused(model, tmp_path):
    opened = io.BytesIO()
    torch.save({"a.weight": torch.zeros(4)}, opened)
    with zipfile.ZipFile(opened) as made:
        members = {info.filename: made.read(info) for info in made.infolist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    for wrong in (b"K\x05\x85", b"J\xff\xff\xff\x7f\x85"):
        changed = {**members, pickled: members[pickled].replace(b"K\x04\x85", wrong)}
        assert changed != members
        with zipfile.ZipFile(tmp_path / "w.pth", "w") as made:
            for name, data in changed.items():
                made.writestr(name, data)
        with pytest.raises(pw.WeightsError, match="damaged"):
            pw.load_weights(model, tmp_path / "w.pth")
