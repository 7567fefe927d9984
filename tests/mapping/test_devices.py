"""Several devices of one machine share a scene. Here they are the processor, named twice or three times."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_gpu import fake_gpu
from small_network import card_of, noise, predictor_of, small_network, write_scene

from pixelwise.errors import ConfigError, DataError
from pixelwise.inference.images import ArrayReader
from pixelwise.inference.tile_grid import Rect, plan_strips
from pixelwise.inference.tiling import Tiling, read_tile
from pixelwise.mapping import devices as sharing
from pixelwise.mapping import map_scene as scenes
from pixelwise.mapping.journal import journal_folder
from pixelwise.mapping.options import MapOptions

PRODUCTS = ("map.tif", "map.confidence.tif", "map.probabilities.tif")


def mapped(folder, scene, **options):
    predictor_of().map_scene(scene, folder / "map.tif", confidence=True, probabilities=True, **options)
    return {name: (folder / name).read_bytes() for name in PRODUCTS}


@pytest.mark.parametrize(
    ("sides", "piece", "names"),
    [((200, 130), 4096, "cpu,cpu"), ((50, 40), 4096, "cpu,cpu"), ((150, 230), 96, "cpu,cpu,cpu")],
)
def test_devices_that_share_a_scene_make_the_bytes_of_one(tmp_path, monkeypatch, sides, piece, names):
    monkeypatch.setattr(scenes, "PIECE", piece)
    scene = write_scene(tmp_path / "scene.tif", noise(3, *sides))
    shares = []
    expected = mapped(tmp_path / "one", scene)
    assert mapped(tmp_path / "many", scene, devices=names, advance=shares.append) == expected
    assert shares[-1] == 1
    assert shares == sorted(shares)


def test_each_device_takes_rows_and_a_map_that_was_stopped_goes_on(tmp_path, monkeypatch):
    scene, whole = write_scene(tmp_path / "scene.tif", noise(3, 330, 70)), tmp_path / "whole"
    expected, busy, both = mapped(whole, scene), set(), threading.Barrier(2, timeout=60)
    sum_row = sharing.sum_row

    def watched(tiling, row):
        if row < 2:
            # Two rows are in the making at once, or this waits in vain.
            both.wait()
        busy.add(id(tiling.model))
        return sum_row(tiling, row)

    def stop(share):
        if share > 0.6:
            raise KeyboardInterrupt

    monkeypatch.setattr(sharing, "sum_row", watched)
    with pytest.raises(KeyboardInterrupt):
        mapped(tmp_path / "many", scene, devices="cpu,cpu", advance=stop)
    assert len(busy) == 2
    monkeypatch.setattr(sharing, "sum_row", sum_row)
    assert any(journal_folder(tmp_path / "many" / "map.tif").glob("piece-*"))
    said = []
    assert mapped(tmp_path / "many", scene, say=said.append) == expected
    assert any("pieces were finished before; going on" in line for line in said)


def test_what_goes_wrong_on_a_device_is_said_as_on_one(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 200, 100))

    def failing(tiling, row):
        raise DataError(f"row {row} cannot be read")

    monkeypatch.setattr(sharing, "sum_row", failing)
    with pytest.raises(DataError, match=r"row \d cannot be read"):
        mapped(tmp_path / "map", scene, devices="cpu,cpu")


def test_a_cluster_and_several_devices_do_not_go_together():
    with pytest.raises(ConfigError, match="Ray cluster chooses its devices itself"):
        MapOptions(on="ray", devices=(torch.device("cpu"),) * 2)


def test_tiles_are_added_blended_and_decided_where_the_network_is():
    # A GPU of fake tensors, which have no values: what is on the wrong device fails.
    plan = plan_strips(100, 96, 64, 32, 4, piece=96)
    reader = ArrayReader(noise(3, 100, 96), np.ones((100, 96), bool))
    network = small_network()
    with fake_gpu() as gpu, torch.no_grad():
        network.to_empty(device=gpu)
        tiling = Tiling(network, reader, card_of(network), plan)
        tiles = [
            (read_tile(reader, window, tiling.card), torch.empty(3, 16, 16, device=gpu))
            for window in plan.tiles(0, 0, begun=True)
        ]
        row = tiling.sum_of(0, 0, None, tiles)
        assert row.total.device.type == row.weights.device.type == "cuda"
        kept = replace(row, total=row.total.cpu(), weights=row.weights.cpu())
        assert kept.total.device.type == "cpu"
        again = tiling.sum_of(0, 0, kept, [])
        assert again.total.device.type == "cuda", "what an earlier start kept goes on there too"
        strip = Rect(0, 0, 4, 8)
        labels, share, cells = tiling._decide([again], strip, True)
        assert {each.device.type for each in (labels, share, cells)} == {"cuda"}
        assert labels.shape == (1, 16, 32)
