"""Pruning a trained UNet++: what is written, and what the table says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise as pw
from pixelwise.config import Config
from pixelwise.data.split import open_parts
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.evaluation.pruned import depths, prune_run, table_text
from pixelwise.runs.model_folder import load_model
from pixelwise.training.train import train

OPTIONS = {"filters": [4, 8, 8, 8, 8]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four images of noise, of which bright pixels are one class and dark ones the other."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for i in range(4):
        mask = np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int)).astype(np.uint8)
        image = (mask[..., None] * 100 + rng.integers(0, 100, (64, 64, 3))).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


def trained(folder: Path, name: str, **options: object) -> Path:
    run = folder / name
    data = {"images": folder / "images", "labels": folder / "masks", "classes": ["dark", "bright"], "validation": 0.5}
    settings = {"steps": 4, "batch_size": 2, "crop_size": 64, "workers": 0, "device": "cpu"}
    table = {
        "data": data,
        "model": {"name": name, "options": options},
        "train": settings,
        "predict": {"tile": 64, "overlap": 0},
        "run": {"folder": run},
    }
    train(Config.model_validate(table))
    return run


@pytest.fixture(scope="module")
def run(folder):
    return trained(folder, "unetpp", **OPTIONS)


@pytest.fixture(scope="module")
def config(run):
    from pixelwise.runs.run_folder import open_finished_run

    return open_finished_run(run)[1]


def test_each_depth_has_the_score_and_the_cost_of_the_network_that_ends_there(run, config):
    found = depths(run)
    assert [one.level for one in found] == [1, 2, 3, 4]
    assert [one.flops for one in found] == sorted({one.flops for one in found})
    model, card, _ = load_model(run)
    _, _, scenes = open_parts(config)
    for one in found:
        smaller = pw.prune(model, one.level)
        assert one.miou == evaluate_scenes(smaller, scenes, card, config.predict).scores.miou
        assert one.parameters == sum(p.numel() for p in smaller.parameters())
    lines = table_text(found).splitlines()
    assert len(lines) == 5
    assert f"{found[1].miou:.3f}" in lines[2]


def test_images_that_came_later_do_not_change_the_scores(tmp_path, folder):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for path in (folder / kind).iterdir():
            (tmp_path / kind / path.name).write_bytes(path.read_bytes())
    run = trained(tmp_path, "unetpp", **OPTIONS)
    before = depths(run)
    for kind, mode in (("images", "RGB"), ("masks", "L")):
        for i in range(4, 9):
            Image.new(mode, (64, 64)).save(tmp_path / kind / f"{i}.png")
    assert depths(run) == before


def test_the_pruned_model_folder_gives_the_answers_of_its_head(run, tmp_path):
    prune_run(run, tmp_path / "small", depth=2)
    whole, card, _ = load_model(run)
    small, small_card, _ = load_model(tmp_path / "small")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(small(image), whole.decode(image).aux["level 2"])
    assert small_card.mean == card.mean
    assert small_card.provenance["pruned"] == "depth 2 of 4, from unetpp"


def test_what_is_there_is_not_overwritten(run, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(pw.ConfigError, match="exists already"):
        prune_run(run, tmp_path / "mine", depth=2)


def test_a_depth_that_the_network_has_not_is_refused(run, tmp_path):
    with pytest.raises(pw.ConfigError, match="levels 1, 2, 3, 4"):
        prune_run(run, tmp_path / "small", depth=5)
    assert not (tmp_path / "small").exists()


def test_another_network_is_refused(folder, tmp_path):
    other = trained(folder, "unet", **OPTIONS)
    for call in (lambda: depths(other), lambda: prune_run(other, tmp_path / "small", depth=2)):
        with pytest.raises(pw.ConfigError, match=r"Only a UNet\+\+ can be pruned"):
            call()
