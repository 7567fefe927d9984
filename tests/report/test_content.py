"""What the page is gathered from: a run's folder, and nothing else that must be there."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from safetensors.numpy import save_file

from pixelwise.config import Config, DataConfig, RunConfig, save_config
from pixelwise.errors import ConfigError, DataError
from pixelwise.evaluation.metrics import scores
from pixelwise.geo.label_map import LabelMapWriter
from pixelwise.geo.raster import describe
from pixelwise.labels import make_classes
from pixelwise.parcels.polygonize import polygonize
from pixelwise.report.content import gather, summary
from pixelwise.report.page import write_report
from pixelwise.report.parcel_map import ParcelFiles

NAMES = ["water", "land"]
CLASSES = make_classes(NAMES)
CARD = """
bands = [1, 2, 3]
dtype = "uint8"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
[architecture]
name = "segformer-b0"
classes = 2
bands = 3
[classes]
names = ["water", "land"]
palette = [[0, 0, 255], [0, 255, 0]]
[provenance]
pixelwise = "9.8.7"
"""


def evaluation(matrix, scenes):
    result = scores(np.array(matrix), NAMES).to_dict()
    return result | {"confusion": matrix, "scenes": dict.fromkeys(scenes, 0.5)}


@pytest.fixture
def run(tmp_path):
    folder, images = tmp_path / "trial", tmp_path / "learned"
    (folder / "model").mkdir(parents=True)
    images.mkdir()
    (images / "one.tif").touch()
    data = DataConfig(images=images, labels=tmp_path / "polygons.gpkg", classes=NAMES)
    save_config(Config(data=data, run=RunConfig(folder=folder)), folder / "config.toml")
    (folder / "model" / "model.toml").write_text(CARD)
    tensors = {"a.weight": np.zeros((3, 5), np.float32), "a.running_mean": np.zeros(7, np.float32)}
    save_file(tensors, folder / "model" / "model.safetensors")
    write_metrics(folder, {"validation": evaluation([[5, 1], [2, 8]], ["one"])})
    return folder


def write_metrics(folder, metrics):
    (folder / "metrics.json").write_text(json.dumps(metrics))


def write_map(folder, *, height=40, width=60):
    """A scene whose red is its row, mapped as land in rows 10 to 19 and columns 20 to 39."""
    scene = folder.parent / "learned/scene.tif"
    labels = np.zeros((height, width), np.uint8)
    labels[10:20, 20:40] = 1
    red = np.broadcast_to(np.arange(height, dtype=np.uint8)[:, None], (height, width))
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "height": height, "width": width}
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    with rasterio.open(scene, "w", transform=transform, **profile) as file:
        file.write(np.stack([red, red * 0, red * 0]))
    tags = {"PIXELWISE_SCENE": scene.name}
    confidence = np.full((height, width), 0.5, np.float32)
    with LabelMapWriter(folder / "map.tif", describe(scene), CLASSES, tags=tags, confidence=True) as writer:
        writer.write(0, labels, confidence, np.ones((height, width), bool))
    polygonize(folder / "map.tif", folder / "parcels.gpkg", classes=["land"])
    return scene


def test_a_run_that_was_only_scored_gives_a_page(run):
    path = write_report(run)
    assert path == run / "report.html"
    assert "0.6" in path.read_text(encoding="utf-8")
    assert not list(run.glob(".*"))


def test_the_newest_evaluation_on_other_data_is_shown_before_the_validation(run):
    assert gather(run).evaluation == "validation"
    older, newer, own = (evaluation([[n, 1], [1, n]], ["two"]) for n in (1, 2, 3))
    write_metrics(run, {"older": older, "newer": newer, "validation": own})
    assert gather(run).evaluation == "newer"
    assert gather(run).matrix.tolist() == [[2, 1], [1, 2]]


@pytest.mark.parametrize(("scenes", "apart"), [(["two", "three"], True), (["two", "one"], False), ([], False)])
def test_scenes_are_apart_when_none_bears_the_name_of_a_training_image(run, scenes, apart):
    write_metrics(run, {"elsewhere": evaluation([[1, 0], [0, 1]], scenes)})
    assert gather(run).apart is apart


def test_nothing_is_said_of_training_images_that_are_gone(run):
    write_metrics(run, {"elsewhere": evaluation([[1, 0], [0, 1]], ["two"])})
    (run.parent / "learned" / "one.tif").unlink()
    assert gather(run).apart is False
    (run.parent / "learned").rmdir()
    assert gather(run).apart is False


def test_parameters_are_counted_without_running_means_and_weights_are_known_by_their_hash(run):
    digest = hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    facts = summary(gather(run))
    assert facts["Parameters"] == "15"
    assert digest in facts["Weights"]
    assert facts["pixelwise"] == "9.8.7"


def test_a_run_that_was_stopped_says_how_far_it_came(run):
    (run / "log.jsonl").write_text('{"step": 30, "loss": 1.0, "seconds": 600.0}\n{"step": 31, "lo')
    facts = summary(gather(run))
    assert facts["Training"].startswith("30 steps of the 2,000 planned")
    assert facts["Time"] == "10 min"


def test_parcels_lie_where_the_map_has_them(run):
    write_map(run)
    parcels = gather(run).parcels
    assert parcels is not None
    assert parcels.name == "scene.tif"
    assert parcels.picture[:, 0, 0].tolist() == list(range(40))
    (land,) = parcels.parcels
    assert land.class_name == "land"
    assert land.area == pytest.approx(20 * 10 * 4)
    assert land.confidence == pytest.approx(0.5)
    ring = land.rings[0]
    assert (ring.min(axis=0).tolist(), ring.max(axis=0).tolist()) == ([20, 10], [40, 20])


def test_the_picture_of_a_large_scene_is_every_nth_pixel_and_the_outlines_shrink_with_it(run, monkeypatch):
    monkeypatch.setattr("pixelwise.report.parcel_map.LONGEST", 20)
    monkeypatch.setattr("pixelwise.report.parcel_map.ROWS", 7)
    write_map(run)
    parcels = gather(run).parcels
    assert parcels is not None
    assert parcels.picture[:, 0, 0].tolist() == list(range(0, 40, 3))
    assert parcels.picture.shape[1] == 20
    assert parcels.parcels[0].rings[0].max(axis=0) == pytest.approx([40 / 3, 20 / 3])


def test_the_scene_of_a_map_is_found_in_each_folder_of_images(run):
    scene = write_map(run)
    folders = [run.parent / "empty", scene.parent]
    data = DataConfig(images=folders, labels=run.parent / "polygons.gpkg", classes=NAMES)
    save_config(Config(data=data, run=RunConfig(folder=run)), run / "config.toml")
    assert gather(run).parcels.picture[:, 0, 0].tolist() == list(range(40))


@pytest.mark.parametrize("change", ["gone", "other size", "damaged"])
def test_parcels_are_drawn_over_the_map_where_its_scene_is_no_longer_there(run, change):
    scene = write_map(run)
    if change == "gone":
        scene.unlink()
    elif change == "damaged":
        scene.write_bytes(b"no raster")
    else:
        with rasterio.open(scene, "w", driver="GTiff", height=5, width=5, count=3, dtype="uint8") as file:
            file.write(np.zeros((3, 5, 5), np.uint8))
    parcels = gather(run).parcels
    assert parcels is not None
    assert parcels.picture[15, 30].tolist() == [0, 255, 0]
    assert parcels.picture[0, 0].tolist() == [0, 0, 255]


def test_a_map_without_any_parcel_leaves_the_parcels_out(run):
    write_map(run)
    polygonize(run / "map.tif", run / "parcels.gpkg", minimum_area=1e9, merge=False)
    assert gather(run).parcels is None
    assert "Parcels</h2>" not in write_report(run).read_text(encoding="utf-8")


def test_a_map_and_parcels_of_any_name_are_shown_beside_the_true_ones_and_scored(run):
    scene = write_map(run)
    for old, new in (("map.tif", "a/county.tif"), ("parcels.gpkg", "b/fields.gpkg")):
        (run.parent / new).parent.mkdir()
        (run / old).rename(run.parent / new)
    elsewhere = scene.rename(run.parent / "away.tif")
    files = ParcelFiles(run.parent / "a/county.tif", run.parent / "b/fields.gpkg", run.parent / "b/fields.gpkg")
    parcels = gather(run, files).parcels
    assert gather(run).parcels is None
    assert (len(parcels.parcels), len(parcels.truth), parcels.scores.f1) == (1, 1, 1.0)
    assert parcels.picture[15, 30].tolist() == [0, 255, 0], "the scene is nowhere"
    shown = gather(run, dataclasses.replace(files, scene=elsewhere)).parcels
    assert shown.picture[:, 0, 0].tolist() == list(range(40))
    page = write_report(run, files).read_text(encoding="utf-8")
    assert 'class="truth"' in page
    assert "1 of 1 true parcels are matched" in page
    with pytest.raises(ConfigError, match=r"Give both, --map and --parcels"):
        gather(run, ParcelFiles(parcels=files.parcels))
    with pytest.raises(DataError, match=r"There is no file .*none\.gpkg"):
        gather(run, dataclasses.replace(files, parcels=run / "none.gpkg"))
