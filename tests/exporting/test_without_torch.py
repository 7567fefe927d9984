"""A machine that only predicts needs no torch: a fresh process in which importing it fails."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_network import noise, write_scene
from small_run import small_config, write_scenes

import pixelwise as pw

SCRIPT = Path(__file__).with_name("only_predicts.py")
SIDES = (150, 170)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its exports, a scene, a configuration of other data; and what a process without torch made of them."""
    folder = tmp_path_factory.mktemp("machine")
    config = small_config(write_scenes(folder), folder / "run", steps=2)
    pw.train(config)
    pw.evaluate(folder / "run")
    for name in ("fields.onnx", "fields.xml"):
        pw.export(folder / "run", folder / name)
    values = noise(3, *SIDES)
    values[:, :40, :60] = 0
    write_scene(folder / "scene.tif", values, nodata=0)
    (folder / "test.toml").write_text(
        '[data]\nimages = "images"\nlabels = "masks"\nclasses = ["dark", "bright"]\nvalidation = 0.0\n'
    )
    done = subprocess.run([sys.executable, SCRIPT, folder, "--forbid"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "told.json").write_text(done.stdout.splitlines()[-1])
    return folder


def read(path):
    with rasterio.open(path) as file:
        return file.read()


@pytest.mark.parametrize("name", ["fields.onnx", "fields.xml"])
def test_a_scene_is_mapped_as_the_run_maps_it_with_torch(folder, name):
    told = json.loads((folder / "told.json").read_text())
    assert told["torch"] is False
    predictor = pw.load(folder / "run")
    predictor.map_scene(folder / "scene.tif", folder / "map.tif", confidence=True, probabilities=True, flips=True)
    found, wanted = read(folder / f"{name}.tif"), read(folder / "map.tif")
    assert (found == wanted).mean() >= 0.999
    np.testing.assert_array_equal(found == 255, wanted == 255)
    for product in ("confidence", "probabilities"):
        ours, theirs = (read(folder / f"{stem}.{product}.tif").astype(int) for stem in (name, "map"))
        # Of 254 steps.
        assert np.abs(ours - theirs).max() <= 1
    labels = predictor.segment(folder / "scene.tif", scales=(0.5, 1.0)).labels
    assert (read(folder / f"{name}.png")[0] == labels).mean() >= 0.999


@pytest.mark.parametrize("name", ["fields.onnx", "fields.xml"])
def test_parcels_scores_and_the_page_are_made_too(folder, name):
    told = json.loads((folder / "told.json").read_text())[name]
    assert told["parcels"] == pw.polygonize(folder / f"{name}.tif", folder / "again.gpkg").parcels > 0
    scored = pw.evaluate(folder / "run", folder / "test.toml")
    assert told["miou"] == pytest.approx(scored.scores.miou, abs=1e-3)
    assert told["temperature"] == scored.calibration.after.temperature != 1
    assert told["nll"] == pytest.approx(scored.calibration.after.nll, abs=1e-3)
    assert "parcels" in (folder / "run" / "report.html").read_text()


def test_a_program_of_torch_is_scored_and_maps_as_the_run_does(folder):
    pw.export(folder / "run", folder / "fields.pt2")
    config = folder / "test.toml"
    found, wanted = (pw.evaluate(folder / name, config) for name in ("fields.pt2", "run"))
    assert np.abs(found.matrix - wanted.matrix).sum() <= 1e-3 * wanted.matrix.sum()
    assert [scene.name for scene in found.scenes] == [scene.name for scene in wanted.scenes]
    for name in ("fields.pt2", "run"):
        pw.load(folder / name).map_scene(folder / "scene.tif", folder / f"{name}.tif")
    assert (read(folder / "fields.pt2.tif") == read(folder / "run.tif")).mean() >= 0.999


def test_what_needs_torch_says_which_extra_brings_it(folder):
    told = json.loads((folder / "told.json").read_text())
    for name in ("train", "create", "fuse", "export"):
        assert f"pixelwise.{name} needs torch. Install it with: pip install 'pixelwise[train]'" in told[name]
    assert "needs torch" in told["run"]
    assert "run" in told["run"]


def test_the_command_predicts_without_torch_and_says_what_it_cannot_do(folder):
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import only_predicts\n"
        "sys.meta_path.insert(0, only_predicts.NoTorch())\n"
        "from pixelwise.cli import main; main()"
    )

    def pixelwise(*arguments):
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder)

    assert pixelwise("predict", "fields.onnx", "scene.tif", "by-command.tif").returncode == 0
    assert (folder / "by-command.tif").is_file()
    scored = pixelwise("evaluate", "fields.onnx", "test.toml")
    assert scored.returncode == 0
    assert "mIoU" in scored.stdout
    assert "Kept as" not in scored.stdout
    trained = pixelwise("train", "test.toml")
    assert trained.returncode == 1
    assert "pixelwise[train]" in trained.stderr
    assert "Traceback" not in trained.stderr
    assert json.loads(pixelwise("models", "--json").stdout)
    profiled = pixelwise("profile", "fields.onnx", "--repeats", "1")
    assert profiled.returncode == 0, profiled.stderr
    assert "convolution" in profiled.stdout
