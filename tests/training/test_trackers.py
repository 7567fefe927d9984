import importlib.util
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from types import ModuleType

import numpy as np
import pytest
from small_run import small_config, write_scenes

from pixelwise.errors import MissingExtraError
from pixelwise.evaluation.pictures import load_pictures
from pixelwise.labels import IGNORE
from pixelwise.runs.model_folder import read_card
from pixelwise.training import mlflow_run
from pixelwise.training.trackers import GAP, beside_each_other, kept_names, send_report
from pixelwise.training.train import train


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def tracked(scenes, folder, *names, **train):
    config = small_config(scenes, folder, **train)
    return config.model_copy(update={"run": config.run.model_copy(update={"track": list(names)})})


def records(path):
    """Read a file of TFRecords: length (8), its checksum (4), data, their checksum (4)."""
    text = path.read_bytes()
    while text:
        (length,) = struct.unpack("<Q", text[:8])
        yield text[12 : 12 + length]
        text = text[16 + length :]


def test_tensorboard_has_numbers_pictures_and_the_configuration(scenes, tmp_path):
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    run = train(small_config(scenes, tmp_path / "run"))
    (path,) = (run.folder / "events").iterdir()
    values = {}
    for record in records(path):
        event = events.Event.FromString(record)
        for value in event.summary.value:
            values.setdefault(value.tag, []).append((event.step, value))
    for key in ("loss", "learning_rate", "mIoU", "IoU/bright", "waited"):
        ours = [(row["step"], pytest.approx(row[key], abs=1e-6)) for row in run.log if row.get(key) is not None]
        assert [(step, value.simple_value) for step, value in values[key]] == ours
    shown = [(step, value.image) for step, value in values["validation/1"]]
    assert [step for step, _ in shown] == [2, 4]
    assert (shown[0][1].height, shown[0][1].width) == (32, 3 * 32 + 2 * GAP)
    (((step, text),),) = (found for tag, found in values.items() if "configuration" in tag)
    assert step == 0
    assert b"    crop_size = 32" in text.tensor.string_val[0]


def test_tensorboard_hides_what_a_run_wrote_that_begins_again(scenes, tmp_path):
    events = pytest.importorskip("tensorboardX.proto.event_pb2")

    def stop(event):
        if getattr(event, "step", 0) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_config(scenes, tmp_path / "run"), report=stop)
    run = train(small_config(scenes, tmp_path / "run"), resume=True)
    newest = max((run.folder / "events").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    found = [events.Event.FromString(record) for record in records(newest)]
    # TensorBoard drops what earlier files have from the step of a start on.
    starts = [each.step for each in found if each.session_log.status == events.SessionLog.START]
    assert starts == [1]


def test_image_truth_and_prediction_stand_side_by_side(scenes, tmp_path):
    run = train(small_config(scenes, tmp_path / "run", steps=1))
    (picture,), _ = load_pictures(run.folder / "samples.npz")
    classes = read_card(run.folder / "model")[0].classes
    drawn = beside_each_other(picture, classes)
    counted = picture.truth != IGNORE
    palette = np.array(classes.palette, np.uint8)
    truth, prediction = drawn[:, 32 + GAP : 64 + GAP], drawn[:, 64 + 2 * GAP :]
    for part, labels in ((truth, picture.truth), (prediction, picture.prediction)):
        assert (part[counted] == palette[labels[counted]]).all()


def check_mlflow(scenes, tmp_path):
    """Train, go on, and read back what the store has with MLflow's own client."""
    from mlflow import MlflowClient

    config = tracked(scenes, tmp_path / "run", "mlflow")
    run = train(config)
    client, known = MlflowClient(), kept_names(run.folder)["mlflow"]
    found = client.get_run(known)
    assert found.info.status == "FINISHED"
    assert found.data.params["train.crop_size"] == "32"
    for key in ("loss", "mIoU", "IoU/dark"):
        ours = [(row["step"], row[key]) for row in run.log if row.get(key) is not None]
        assert sorted((each.step, each.value) for each in client.get_metric_history(known, key)) == ours
    assert "config.toml" in {each.path for each in client.list_artifacts(known)}
    assert [each.path for each in client.list_artifacts(known, "model")] == ["model/model.toml"]
    assert len(client.list_artifacts(known, "validation/1")) == 2
    (run.folder / "report.html").write_text("<p>")
    send_report(run.folder, config, print)
    assert "report.html" in {each.path for each in client.list_artifacts(known)}
    longer = config.model_copy(update={"train": config.train.model_copy(update={"steps": 6})})
    train(longer, resume=True)
    assert kept_names(run.folder)["mlflow"] == known
    assert max(each.step for each in client.get_metric_history(known, "loss")) == 6


def test_mlflow_shows_a_run_that_goes_on_as_running(tmp_path):
    said = []

    class Client:
        def __getattr__(self, name):
            return lambda known, *values, **named: said.append((name, known, *values, *named.items()))

    module = ModuleType("mlflow")
    module.MlflowClient, module.entities = Client, None
    run = mlflow_run.MLflowRun(module, "run", "an old name", {}, said.append)
    run.end("FINISHED", [])
    assert said == [("update_run", "an old name", ("status", "RUNNING")), ("set_terminated", "an old name", "FINISHED")]


def test_mlflow_gets_a_run_into_a_local_store(scenes, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_mlflow(scenes, tmp_path)


@pytest.mark.skipif(not importlib.util.find_spec("flask"), reason="the server comes with the whole of mlflow, 850 MB")
def test_mlflow_gets_a_run_over_a_real_server(scenes, tmp_path, monkeypatch):
    pytest.importorskip("mlflow.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/store.db"]
    command += ["--artifacts-destination", str(tmp_path / "kept")]
    with subprocess.Popen(command, cwd=tmp_path) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"{address}/health")
                    break
                except OSError:
                    time.sleep(0.1)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            check_mlflow(scenes, tmp_path)
        finally:
            server.terminate()


def test_a_server_that_does_not_answer_is_said_once_and_the_run_is_whole(scenes, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setattr(mlflow_run, "EVERY", 0.001)
        said = []
        run = train(tracked(scenes, tmp_path / "run", "mlflow", steps=6), report=said.append)
    assert [row["step"] for row in run.log] == [1, 2, 3, 4, 5, 6]
    about = [text for text in said if "MLflow" in str(text)]
    assert about[-1] == "MLflow did not take all numbers of this run. They are in log.jsonl."
    assert len(about) <= 2
    assert kept_names(run.folder) == {}


def test_weights_and_biases_get_a_run_offline(scenes, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for key, value in {"MODE": "offline", "SILENT": "true", "CACHE_DIR": tmp_path, "CONFIG_DIR": tmp_path}.items():
        monkeypatch.setenv(f"WANDB_{key}", str(value))
    run = train(tracked(scenes, tmp_path / "run", "wandb", steps=2))
    known = kept_names(run.folder)["wandb"]
    (kept,) = (run.folder / "wandb").glob(f"offline-run-*-{known}/run-{known}.wandb")
    text = kept.read_bytes()
    # Its records are protocol buffers, in which texts stand as they are.
    assert b"learning_rate" in text
    assert b"train.crop_size" in text
    assert b"model/model.toml" in text


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra_before_the_first_step(
    scenes, tmp_path, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"\[run\]\.track needs {name}.*pixelwise\[{name}\]"):
        train(tracked(scenes, tmp_path / "run", name))
    assert not os.path.lexists(tmp_path / "run")
