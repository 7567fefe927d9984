"""Training on a Ray cluster, up to where Ray Train begins; `benchmarks/distributed.py` trains on a real one."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner
from small_run import small_config

from pixelwise.cli import commands
from pixelwise.errors import ConfigError, MissingExtraError, PixelwiseError
from pixelwise.training import ray_training


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
