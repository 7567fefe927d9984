"""Regions where a network contradicts the labels: found, ranked, and written for a GIS."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
import torch
from small_network import Decoder, Encoder, card_of, write_photo, write_scene

from pixelwise.data.scenes import Scene
from pixelwise.data.split import Split
from pixelwise.errors import ConfigError
from pixelwise.evaluation.suspect_files import write_suspect_json, write_suspect_polygons
from pixelwise.evaluation.suspects import find_suspects, suspects_of
from pixelwise.geo.raster import RasterReader, Window
from pixelwise.labels import IGNORE
from pixelwise.models import Architecture, Segmenter

SIZE = (96, 128)
WRONG = np.s_[16:48, 24:72]
SMALLER = np.s_[60:76, 96:112]


def sees_brightness() -> Segmenter:
    """Make a network that takes bright cells for class 1 and dark ones for class 0, and is sure of it."""
    network = Segmenter(Encoder(3, 2, 4, 0), Decoder(), Architecture("small", 2, 3))
    with torch.no_grad():
        network.encoder.convolution.bias.zero_()
        network.encoder.convolution.weight[0] = -2.0 / 48
        network.encoder.convolution.weight[1] = 2.0 / 48
    return network.eval()


class Mask:
    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask

    def read(self, window: Window) -> np.ndarray:
        return self.mask[window.top : window.top + window.height, window.left : window.left + window.width]


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Return an image, and labels of which two rectangles and a line along an edge are wrong."""
    truth = np.zeros(SIZE, np.int16)
    truth[:, 64:] = 1
    image = np.where(truth, 200, 20)[None].repeat(3, axis=0).astype(np.uint8)
    labels = truth.copy()
    labels[WRONG] = 1 - labels[WRONG]
    labels[SMALLER] = 0
    # An outline drawn two pixels beside the edge.
    labels[80:, 64:66] = 0
    labels[:4] = IGNORE
    return image, labels


def scene_of(path, image: np.ndarray, labels: np.ndarray, name: str) -> Scene:
    write = write_photo if path.suffix == ".png" else write_scene
    return Scene(name, RasterReader(write(path, image)), Mask(labels))


def test_wrong_labels_come_first_and_an_edge_that_is_drawn_a_little_off_does_not_come(tmp_path):
    image, labels = drawn()
    network, clean = sees_brightness(), labels.copy()
    clean[:] = np.where(image[0] > 100, 1, 0)
    good = scene_of(tmp_path / "good.tif", image, clean, "good")
    bad = scene_of(tmp_path / "bad.tif", image, labels, "bad")
    found = find_suspects(network, card_of(network), Split([good], [bad], []), learned={id(good)})
    # Then the square: the part of the large rectangle to the right of the edge has as many pixels, but is narrow.
    assert [(each.label, each.predicted) for each in found[:2]] == [("class 1", "class 0"), ("class 0", "class 1")]
    assert all(each.scene == "bad" and each.part == "validation" and not each.learned for each in found)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    small = found[1]
    assert (small.label, small.predicted) == ("class 0", "class 1")
    area = np.zeros(SIZE, bool)
    area[SMALLER] = True
    box = np.zeros(SIZE, bool)
    box[small.window.top : small.window.top + small.window.height, small.window.left :][:, : small.window.width] = True
    assert (area & box).sum() / (area | box).sum() > 0.7
    assert len(found) == 3
    for each in found:
        shown = each.picture
        assert shown.truth.shape == shown.image.shape[1:] == each.inside.shape
        # The marked pixels have that label and prediction.
        assert set(shown.truth[each.inside]) == {int(each.label[-1])}
        assert set(shown.prediction[each.inside]) == {int(each.predicted[-1])}
        assert each.inside.sum() == each.pixels


def test_scenes_are_looked_at_in_strips_and_regions_stay_where_they_are(tmp_path, monkeypatch):
    image, labels = drawn()
    network = sees_brightness()
    scene = scene_of(tmp_path / "bad.tif", image, labels, "bad")
    card = card_of(network)
    whole = find_suspects(network, card, Split([], [scene], []), learned=())
    monkeypatch.setattr("pixelwise.evaluation.suspects.BLOCK_PIXELS", 56 * SIZE[1])
    parts = find_suspects(network, card, Split([], [scene], []), learned=())
    assert [each.window for each in parts[:2]] == [each.window for each in whole[:2]]


def test_the_geopackage_has_each_region_where_it_lies_with_its_rank(tmp_path):
    image, labels = drawn()
    network = sees_brightness()
    scene = scene_of(tmp_path / "bad.tif", image, labels, "bad")
    photo = scene_of(tmp_path / "photo.png", image, labels, "photo")
    found = find_suspects(network, card_of(network), Split([photo], [scene], []), learned={id(photo)})
    # A photo has no place on the ground, and is in the JSON alone.
    assert write_suspect_polygons(tmp_path / "s.gpkg", found, [scene, photo]) == 3
    # A second check replaces what the first wrote.
    assert write_suspect_polygons(tmp_path / "s.gpkg", found, [scene, photo]) == 3
    meta, _, wkb, columns = pyogrio.raw.read(tmp_path / "s.gpkg")
    table = dict(zip(meta["fields"], columns, strict=True))
    assert set(table["scene"]) == {"bad"}
    ranks = [i for i, each in enumerate(found, start=1) if each.scene == "bad"]
    assert table["rank"].tolist() == ranks
    polygons = shapely.from_wkb(wkb)
    assert meta["crs"] == "EPSG:32616"
    for polygon, rank in zip(polygons, ranks, strict=True):
        # Pixels of 2 m.
        assert polygon.area == pytest.approx(4 * found[rank - 1].pixels)
        assert shapely.box(500_000, 4_600_000 - 2 * SIZE[0], 500_000 + 2 * SIZE[1], 4_600_000).contains(polygon)
    write_suspect_json(tmp_path / "s.json", found, tmp_path / "run")
    listed = json.loads((tmp_path / "s.json").read_text())["suspects"]
    assert [each["rank"] for each in listed] == list(range(1, len(found) + 1))
    assert {each["scene"] for each in listed} == {"bad", "photo"}


def test_a_run_with_other_classes_is_refused(tmp_path):
    from small_run import small_config, write_scenes

    from pixelwise.training.train import train

    config = small_config(write_scenes(tmp_path / "data"), tmp_path / "run")
    train(config)
    other = config.model_copy(update={"data": config.data.model_copy(update={"classes": ["dark", "light"]})})
    with pytest.raises(ConfigError, match="the same classes"):
        suspects_of(tmp_path / "run", other)
    found, scenes = suspects_of(tmp_path / "run", config)
    assert len(scenes) == 4
    # What the run has learned from is said for each.
    assert all(each.learned == (each.part == "training") for each in found)
