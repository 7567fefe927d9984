"""Maps made on a real Ray cluster of several nodes, all on this machine."""

import os
import threading
from pathlib import Path

import jaxtyping
import pytest
import small_network
import torch
from small_network import card_of, noise, predictor_of, write_scene

import pixelwise as pw
from pixelwise.errors import ConfigError, DataError
from pixelwise.exporting import samples
from pixelwise.mapping import map_scene as scenes
from pixelwise.mapping.journal import journal_folder
from pixelwise.mapping.ray_cluster import _Cluster
from pixelwise.runs.model_folder import save_model

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

PRODUCTS = ("map.tif", "map.confidence.tif", "map.probabilities.tif", "map.qml")


@pytest.fixture(scope="module")
def cluster():
    # The tests' own network is installed nowhere.
    ray.cloudpickle.register_pickle_by_value(small_network)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False},
    )
    try:
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        made.nodes = [made.add_node(num_cpus=1, object_store_memory=100 << 20)]
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        torch.set_num_threads(before)


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


def mapped(folder: Path, scene: Path, **options: object) -> dict[str, bytes]:
    predictor_of().map_scene(scene, folder / "map.tif", confidence=True, probabilities=True, **options)
    return outputs(folder)


@pytest.mark.parametrize(("sides", "piece"), [((600, 200), 4096), ((50, 40), 4096), ((300, 330), 96)])
def test_a_cluster_makes_the_same_bytes_as_one_machine(cluster, tmp_path, monkeypatch, sides, piece):
    monkeypatch.setattr(scenes, "PIECE", piece)
    scene = write_scene(tmp_path / "scene.tif", noise(3, *sides))
    shares: list[float] = []
    expected = mapped(tmp_path / "one", scene)
    assert mapped(tmp_path / "many", scene, on="ray", advance=shares.append) == expected
    assert shares[-1] == 1


def test_a_node_that_is_killed_half_way_changes_no_byte(cluster, tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 1600, 260))
    expected = mapped(tmp_path / "one", scene)
    doomed = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    cluster.wait_for_nodes()
    killer: list[threading.Thread] = []
    hired: list[str] = []
    hire = _Cluster.hire

    def hire_and_wait(self):
        hire(self)
        hired.append("worker")
        if len(hired) == 3:
            # A worker that has not started yet would start on another node, and none would be lost.
            ray.wait(list(self.running), num_returns=3)

    monkeypatch.setattr(_Cluster, "hire", hire_and_wait)

    def kill(share: float) -> None:
        if share > 0.4 and not killer:
            killer.append(
                threading.Thread(target=cluster.remove_node, args=(doomed,), kwargs={"allow_graceful": False})
            )
            killer[0].start()
            # Else a quick machine has finished before the node is gone.
            killer[0].join()

    assert mapped(tmp_path / "many", scene, on="ray", advance=kill) == expected
    assert len(hired) == 4, "one of three was lost, and its successor asked for"


@pytest.mark.parametrize("piece", [4096, 64])
def test_what_one_machine_began_a_cluster_goes_on_with_and_the_other_way_round(cluster, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(scenes, "PIECE", piece)
    scene = write_scene(tmp_path / "scene.tif", noise(3, 600, 200))
    expected = mapped(tmp_path / "one", scene)

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    for first, second in ((None, "ray"), ("ray", None)):
        said: list[str] = []
        folder = tmp_path / str(first)
        with pytest.raises(KeyboardInterrupt):
            mapped(folder, scene, on=first, advance=stop)
        assert list(journal_folder(folder / "map.tif").glob("piece-*"))
        assert mapped(folder, scene, on=second, say=said.append) == expected
        assert any("going on" in text for text in said)


def test_a_scene_that_is_corrupt_is_named_by_whichever_machine_reads_it(cluster, tmp_path):
    scene = write_scene(
        tmp_path / "scene.tif", noise(3, 400, 400), tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    whole = scene.read_bytes()
    scene.write_bytes(whole[:200_000] + bytes(50_000) + whole[250_000:])
    with pytest.raises(DataError, match=r"scene\.tif cannot be read at rows"):
        mapped(tmp_path, scene, on="ray")


def test_another_kind_of_cluster_is_refused(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 100))
    with pytest.raises(ConfigError, match=r"'slurm'.*'ray'"):
        mapped(tmp_path, scene, on="slurm")


def test_an_exported_file_travels_to_the_workers_and_changes_no_byte(cluster, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = pw.create("unet", classes=3, filters=[4, 8], batch_norm=False).eval().requires_grad_(False)
    save_model(tmp_path / "model", model, card_of(model))
    monkeypatch.setattr(samples, "SIDE", 64)
    # Sizes are tensors while torch traces, so the types in signatures do not hold then.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        pw.export(tmp_path / "model", tmp_path / "model.onnx")
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    scene, made = write_scene(tmp_path / "scene.tif", noise(3, 150, 130)), []
    for on in (None, "ray"):
        pw.load(tmp_path / "model.onnx").map_scene(scene, tmp_path / "map.tif", confidence=True, on=on)
        made.append([(tmp_path / name).read_bytes() for name in ("map.tif", "map.confidence.tif")])
    assert made[0] == made[1]
