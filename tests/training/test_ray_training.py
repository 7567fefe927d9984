"""Training on a Ray cluster, up to where Ray Train begins; `benchmarks/distributed.py` trains on a real one."""

import queue
import sys
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner
from small_run import NETWORK, small_config, write_scenes

from pixelwise.cli import commands
from pixelwise.errors import ConfigError, MissingExtraError, PixelwiseError
from pixelwise.training import ray_training
from pixelwise.training.train import train


class Said:
    """What processes of a cluster say, in order."""

    def __init__(self, *events):
        self.events = list(events)

    def get(self):
        return self.events.pop(0)

    def put(self, event):
        self.events.append(event)

    def shutdown(self):
        pass


class LostError(Exception):
    pass


def cluster(monkeypatch, said, fails=None, **resources):
    """Put a cluster in the place of Ray whose processes say something and end, well or not."""

    def fit():
        if fails is not None:
            raise fails

    ray = ModuleType("ray")
    ray.cluster_resources, ray.exceptions = lambda: resources, SimpleNamespace(RayError=LostError)
    monkeypatch.setattr(ray_training, "connected", lambda: ray)
    monkeypatch.setattr(ray_training, "cluster_device", lambda: "cpu")
    monkeypatch.setattr(ray_training, "_ray_train", lambda: lambda *given: SimpleNamespace(fit=fit))
    monkeypatch.setitem(sys.modules, "ray.util.queue", SimpleNamespace(Queue=lambda actor_options: said))


def test_what_the_first_process_says_is_handed_on_in_order(monkeypatch, tmp_path):
    cluster(monkeypatch, Said("one", "two"), CPU=2)
    heard = []
    run = ray_training.train_on_ray(small_config(tmp_path, tmp_path / "run"), processes=2, report=heard.append)
    assert heard == ["one", "two"]
    assert run.folder == tmp_path / "run"


def test_the_first_mistake_is_told_with_its_process(monkeypatch, tmp_path):
    failures = [ray_training._Failed(1, "node7", "a.tif is cut off."), ray_training._Failed(0, "node1", "Stopped.")]
    cluster(monkeypatch, Said(*failures), fails=RuntimeError("worker group failed"), CPU=2)
    with pytest.raises(PixelwiseError, match=r"^Process 1 \(of 2, on node7\) has failed: a.tif is cut off.$"):
        ray_training.train_on_ray(small_config(tmp_path, tmp_path / "run"), processes=2)


def test_a_lost_process_is_told_with_the_way_to_go_on(monkeypatch, tmp_path):
    cluster(monkeypatch, Said(), fails=RuntimeError("the worker died"), CPU=2)
    with pytest.raises(PixelwiseError, match=r"ended: the worker died\. .* `--resume` goes on"):
        ray_training.train_on_ray(small_config(tmp_path, tmp_path / "run"), processes=2)


def test_a_cluster_without_room_is_named_with_both_numbers(monkeypatch, tmp_path):
    cluster(monkeypatch, Said(), CPU=3)
    with pytest.raises(ConfigError, match=r"has 3 processors, and --processes 4 wants 4\. Ask for 3"):
        ray_training.train_on_ray(small_config(tmp_path, tmp_path / "run"), processes=4)


def test_without_ray_train_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixelwise\[ray\]'"):
        ray_training._ray_train()


def test_processes_without_a_cluster_name_torchrun(tmp_path):
    found = CliRunner().invoke(commands, ["train", str(tmp_path / "mine.toml"), "--processes", "3"])
    assert found.exit_code == 2
    assert "torchrun --nproc-per-node 3 -m pixelwise train" in found.output


class Line(queue.Queue):
    """What processes of a cluster say, heard while they work."""

    def shutdown(self):
        pass


def test_the_command_trains_on_a_cluster_and_goes_on_there(monkeypatch, tmp_path, pixelwise):
    asked = []

    def trainer_of(task, count, on_gpu, folder):
        asked.append((count, on_gpu, task["resume"], folder.is_dir()))
        return SimpleNamespace(fit=lambda: train(task["config"], resume=task["resume"], report=task["said"].put))

    cluster(monkeypatch, Line(), CPU=2)
    monkeypatch.setattr(ray_training, "_ray_train", lambda: trainer_of)
    write_scenes(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    options = ", ".join(f"{key} = {str(value).lower()}" for key, value in NETWORK["options"].items())
    (tmp_path / "fields.toml").write_text(
        '[data]\nimages = "data/images"\nlabels = "data/masks"\nclasses = ["dark", "bright"]\nvalidation = 0\n'
        f'[model]\nname = "{NETWORK["name"]}"\noptions = {{{options}}}\n'
        "[train]\nsteps = 2\nbatch_size = 2\ncrop_size = 32\nevaluate_every = 2\nworkers = 0\n"
        '[predict]\ntile = 64\noverlap = 0\n[run]\nfolder = "run"\n'
    )
    command = ("train", tmp_path / "fields.toml", "--on", "ray", "--processes", "2")
    status, out, err = pixelwise(*command)
    assert status == 0, err
    assert "step 2 of 2" in out
    assert (tmp_path / "run/model/model.safetensors").exists()
    status, out, err = pixelwise(*command, "--resume")
    assert status == 0, err
    assert asked == [(2, False, False, True), (2, False, True, True)]
    assert not list(tmp_path.glob(".ray-*"))


def test_the_command_says_what_a_process_of_the_cluster_has_met(monkeypatch, tmp_path, pixelwise):
    said = Said(ray_training._Failed(1, "node7", "a.tif is cut off."))
    cluster(monkeypatch, said, fails=RuntimeError("worker group failed"), CPU=2)
    write_scenes(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fields.toml").write_text(
        '[data]\nimages = "data/images"\nlabels = "data/masks"\nclasses = ["dark", "bright"]\nvalidation = 0.25\n'
        '[run]\nfolder = "run"\n'
    )
    status, _, err = pixelwise("train", tmp_path / "fields.toml", "--no-check", "--on", "ray", "--processes", "2")
    assert status == 1
    assert "Error: Process 1 (of 2, on node7) has failed: a.tif is cut off." in err
