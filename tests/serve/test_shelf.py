"""Models that are replaced while they answer."""

import shutil
import threading
import time

import numpy as np
import pytest
from small_server import EXPORTED, photo, png, serving, write_model

import pixelwise as pw
from pixelwise.errors import ConfigError
from pixelwise.serve.options import Folders, ServeOptions, Work
from pixelwise.serve.shelf import Shelf


def test_a_model_that_is_replaced_while_it_answers_fails_no_request(tmp_path):
    folder = write_model(tmp_path / "fields", seed=0)
    values = png(photo(1))
    digests = []
    for seed in (0, 1):
        other = write_model(tmp_path / f"other{seed}", seed=seed)
        digests.append(pw.load(other, device="cpu").model_hash[:16])
    options = ServeOptions(folders=Folders(tmp_path / "jobs"), work=Work(device="cpu", workers=2))
    found, stop = [], threading.Event()
    with serving(folder, options=options, every=0.02) as client:

        def ask():
            while not stop.is_set():
                found.append(client.send("/segment", image=("a.png", values)).status)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        assert client.get("/models")[0]["digest"] == digests[0]
        write_model(folder, seed=1)
        for _ in range(2000):
            if client.get("/models")[0]["digest"] == digests[1]:
                break
            time.sleep(0.01)
        stop.set()
        for thread in asking:
            thread.join()
        assert client.get("/models")[0]["digest"] == digests[1]
    assert len(found) > 4
    assert set(found) == {200}


def test_a_model_that_is_damaged_leaves_the_older_one_in_its_place(tmp_path):
    folder = write_model(tmp_path / "fields")
    shelf = Shelf([str(folder)], device="cpu")
    model = shelf.find("fields")
    before = model.predictor.model_hash
    (folder / "model.safetensors").write_bytes(b"nothing")
    assert not shelf.refresh(model, settle=0)
    assert "damaged" in model.problem
    assert model.predictor.model_hash == before
    shutil.rmtree(folder)
    assert not shelf.refresh(model, settle=0)
    write_model(folder, seed=1)
    assert shelf.refresh(model, settle=0)
    assert not model.problem
    assert model.predictor.model_hash != before
    assert not shelf.refresh(model, settle=0)


def test_a_runs_best_model_is_served_under_the_runs_name(tmp_path):
    write_model(tmp_path / "run" / "model")
    assert [each.name for each in Shelf([str(tmp_path / "run")], device="cpu")] == ["run"]
    assert [each.name for each in Shelf([str(tmp_path / "run" / "model")], device="cpu")] == ["run"]


def test_exported_files_are_served_beside_folders(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folder = write_model(tmp_path / "fields", network=EXPORTED)
    pw.export(folder, tmp_path / "fields.onnx")
    shelf = Shelf([f"folder={folder}", str(tmp_path / "fields.onnx")], device="cpu")
    assert [each.runtime.split()[0] for each in shelf] == ["torch", "onnxruntime"]
    one, other = (each.predictor.segment(photo(3)) for each in shelf)
    assert np.mean(one.labels == other.labels) > 0.999


@pytest.mark.parametrize("text", ["a b/c=x", "fields?=x", "="])
def test_a_name_that_no_address_can_hold_is_refused(text, tmp_path):
    folder = write_model(tmp_path / "fields")
    with pytest.raises((ConfigError, pw.WeightsError)):
        Shelf([text.replace("x", str(folder))], device="cpu")
