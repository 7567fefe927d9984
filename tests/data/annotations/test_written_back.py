"""Predicted label maps, written for people to correct: each format gives the same map again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools.coco import COCO

from pixelwise.data.annotations import WRITERS, read
from pixelwise.data.annotations.formats import WRITTEN
from pixelwise.data.annotations.traced import TracedImage, trace
from pixelwise.labels import make_classes

CLASSES = make_classes(["background", "a b", "straße"], ["#000000", "#ff8000", "#0080ff"])
INDEX = {name: i for i, name in enumerate(CLASSES.names)}
MAPS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "süd").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "süd" / "one photo.png")
    return folder


def written(folder: Path, photos: Path, labels: np.ndarray, name: str, valid: np.ndarray | None = None) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    valid = np.ones(labels.shape, bool) if valid is None else valid
    regions = trace(labels, valid, CLASSES)
    image = TracedImage(photos / "süd" / "one photo.png", "süd/one photo.png", *labels.shape, regions)
    paths = WRITERS[name](folder, [image], CLASSES)
    assert name == "labelme" or tuple(path.name for path in paths) == WRITTEN[name]
    return paths[0]


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=30, deadline=None)
@given(labels=MAPS)
def test_what_is_written_is_read_as_the_same_map(photos, tmp_path_factory, name, labels):
    if not labels.any():
        return
    path = written(tmp_path_factory.getbasetemp() / f"out-{name}", photos, labels, name)
    found = read(path, images=[photos])
    assert found.format == name
    (image,) = found.images
    assert image.path == photos / "süd" / "one photo.png"
    assert (image.draw(INDEX, labels.shape, outside=0) == labels).all()


@settings(max_examples=30, deadline=None)
@given(labels=MAPS)
def test_pycocotools_decodes_the_same_map(photos, tmp_path_factory, labels):
    path = written(tmp_path_factory.getbasetemp() / "out-tools", photos, labels, "coco")
    told = json.loads(path.read_text())
    coco = COCO(path)
    out = np.zeros(labels.shape, np.uint8)
    for annotation in told["annotations"]:
        mask = coco.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        out[mask == 1] = INDEX[coco.cats[annotation["category_id"]]["name"]]
    assert (out == labels).all()


@pytest.mark.parametrize("name", WRITERS)
def test_pixels_without_data_are_read_as_ignored(photos, tmp_path, name):
    labels = np.array([[1, 1, 0], [1, 2, 0]], np.uint8)
    valid = np.array([[1, 0, 1], [1, 1, 1]], bool)
    found = read(written(tmp_path / "out", photos, labels, name, valid), images=[photos])
    (image,) = found.images
    assert found.ignorable >= {"ignore"}
    drawn = image.draw(INDEX | {"ignore": -1}, labels.shape, outside=0)
    assert drawn.tolist() == [[1, -1, 0], [1, 2, 0]]


def test_colours_and_sizes_are_in_the_files(photos, tmp_path):
    labels = np.array([[1, 1, 0], [1, 2, 0]], np.uint8)
    for name in ("coco", "cvat"):
        found = read(written(tmp_path / name, photos, labels, name), images=[photos])
        assert found.classes["a b"] == (255, 128, 0)
        assert found.images[0].size == (2, 3)
    config = written(tmp_path / "ls", photos, labels, "label-studio").with_name("label-config.xml").read_text("utf-8")
    assert 'background="#ff8000"' in config
    assert "straße" in config or "stra&#223;e" in config


def test_simpler_outlines_have_fewer_corners_and_still_fill_the_image():
    row, column = np.indices((40, 40))
    labels = (column > row).astype(np.uint8) + 1
    exact = trace(labels, np.ones(labels.shape, bool), CLASSES)
    simple = trace(labels, np.ones(labels.shape, bool), CLASSES, simplify=2.0)
    assert sum(len(each.outer) for each in simple) < sum(len(each.outer) for each in exact) / 2
    assert sum(each.area for each in simple) == labels.size
