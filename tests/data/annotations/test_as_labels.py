"""Annotations named in a configuration: windows, classes, what is left out, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from pixelwise.config import parse_config
from pixelwise.data import annotated
from pixelwise.data.check import survey
from pixelwise.data.scenes import open_scenes
from pixelwise.data.split import open_split
from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.raster import Window
from pixelwise.labels import IGNORE

SIDE = 16


def photo(path: Path, value=1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(path)


def square(label, left, top, side):
    points = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    return {"label": label, "points": points, "shape_type": "polygon"}


def labelme(path: Path, *shapes, image=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"flags": {}, "shapes": shapes, "imagePath": image or f"{path.stem}.png", "imageData": None}
    path.write_text(json.dumps(told), encoding="utf-8")


@pytest.fixture
def folder(tmp_path) -> Path:
    for i, name in enumerate(("a", "b", "c")):
        photo(tmp_path / f"{name}.png", i)
    labelme(tmp_path / "a.json", square("cat", 0, 0, 8), square("dog", 4, 4, 8))
    labelme(tmp_path / "b.json", square("cat", 2, 2, 4))
    labelme(tmp_path / "c.json")
    return tmp_path


def data(folder: Path, classes=("background", "cat", "dog"), **keys):
    table = {"annotations": str(folder), "classes": list(classes), **keys}
    return parse_config({"data": table}, "test.toml").data


def test_windows_are_what_the_whole_image_is(folder, monkeypatch):
    monkeypatch.setattr(annotated, "BLOCK", 5)
    _, scenes = open_scenes(data(folder))
    wanted = np.zeros((SIDE, SIDE), np.int16)
    wanted[:8, :8], wanted[4:12, 4:12] = 1, 2
    scene = next(scene for scene in scenes if scene.name == "a")
    assert (scene.labels.read(scene.whole) == wanted).all()
    for top, left, height, width in ((0, 0, 16, 16), (3, 6, 9, 4), (15, 15, 1, 1)):
        drawn = scene.labels.read(Window(top, left, height, width))
        assert (drawn == wanted[top : top + height, left : left + width]).all()


def test_images_without_annotation_are_left_out_or_background(folder):
    photo(folder / "d.png")
    _, scenes = open_scenes(data(folder))
    assert [scene.name for scene in scenes] == ["a", "b"]
    assert "Nothing is drawn on 2 of 4 images" in " ".join(scenes[0].notes)
    classes, scenes = open_scenes(data(folder, unannotated="background"))
    assert [scene.name for scene in scenes] == ["a", "b", "c", "d"]
    found = survey(scenes, classes)
    # Two squares of 8 share 4x4 pixels, where the later one lies; the third is of 4x4.
    assert found.class_pixels.tolist() == [4 * 256 - 48 - 16 - 64, 48 + 16, 64]
    assert (scenes[2].labels.read(scenes[2].whole) == 0).all()


def test_without_a_background_class_what_is_not_drawn_counts_nowhere(folder):
    _, scenes = open_scenes(data(folder, ("cat", "dog")))
    assert scenes[1].labels.read(scenes[1].whole)[0, 0] == IGNORE
    with pytest.raises(ConfigError, match="unannotated"):
        open_scenes(data(folder, ("cat", "dog"), unannotated="background"))


def test_names_are_mapped_ignored_or_refused(folder):
    with pytest.raises(DataError, match=r"names the class 'dog'.*ignore = \['dog'\]"):
        open_scenes(data(folder, ("background", "cat")))
    _, scenes = open_scenes(data(folder, ("background", "cat"), ignore=["dog"]))
    drawn = scenes[0].labels.read(scenes[0].whole)
    assert drawn[0, 0] == 1
    assert drawn[5, 5] == IGNORE
    _, scenes = open_scenes(data(folder, ("background", "pet"), values={"pet": ["cat", "dog"]}))
    assert set(np.unique(scenes[0].labels.read(scenes[0].whole))) == {0, 1}


def test_missing_images_are_listed_or_left_out(folder):
    labelme(folder / "e.json", square("cat", 0, 0, 4))
    labelme(folder / "f.json", square("cat", 0, 0, 4))
    with pytest.raises(DataError, match=r"2 files that are not there: e\.png, f\.png.*missing_images"):
        open_scenes(data(folder))
    assert len(open_scenes(data(folder, missing_images="leave_out"))[1]) == 2


def test_regions_without_a_class_are_of_the_only_one_left(tmp_path):
    with rasterio.open(
        tmp_path / "field.tif",
        "w",
        driver="GTiff",
        count=3,
        height=SIDE,
        width=SIDE,
        dtype="uint8",
        crs="EPSG:32632",
        transform=Affine(1, 0, 500_000, 0, -1, 5_000_000),
    ) as out:
        out.write(np.full((3, SIDE, SIDE), 7, np.uint8))
    shape = {"name": "rect", "x": 2, "y": 4, "width": 6, "height": 8}
    entry = {"filename": "field.png", "regions": [{"shape_attributes": shape, "region_attributes": {}}]}
    (tmp_path / "via.json").write_text(json.dumps({"x": entry}))
    _, scenes = open_scenes(data(tmp_path / "via.json", ("background", "field")))
    drawn = scenes[0].labels.read(scenes[0].whole)
    assert (drawn[4:12, 2:8] == 1).all()
    assert drawn.sum() == 48
    with pytest.raises(ConfigError, match=r"leaves 2 for them.*\[data\]\.attribute"):
        open_scenes(data(tmp_path / "via.json", ("background", "field", "road")))


def test_named_masks_take_their_values_by_name(tmp_path):
    photo(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    values = np.full((SIDE, SIDE), 0, np.uint8)
    values[:4], values[4:8], values[8] = 15, 12, 255
    Image.fromarray(values).save(tmp_path / "SegmentationClass/a.png")
    _, scenes = open_scenes(data(tmp_path, ("person", "background", "dog")))
    drawn = scenes[0].labels.read(scenes[0].whole)
    assert [drawn[row, 0] for row in (0, 4, 8, 15)] == [0, 2, IGNORE, 1]
    _, scenes = open_scenes(data(tmp_path, ("person", "background")))
    with pytest.raises(DataError, match="names the class 'dog'"):
        scenes[0].labels.read(scenes[0].whole)


def test_labels_and_annotations_exclude_each_other(folder):
    with pytest.raises(ConfigError, match="both given"):
        data(folder, labels=str(folder))
    with pytest.raises(ConfigError, match="labels is missing"):
        parse_config({"data": {"images": "x", "classes": ["a", "b"]}}, "t")


def test_parts_of_folders_are_kept_without_being_asked_for(tmp_path):
    for part, names in (("train", "ab"), ("valid", "c"), ("test", "d")):
        for name in names:
            photo(tmp_path / part / f"{name}.png", ord(name))
            labelme(tmp_path / part / f"{name}.json", square("cat", 0, 0, 4))
    table = {"annotations": str(tmp_path), "classes": ["background", "cat"]}
    _, split = open_split(parse_config({"data": table}, "t"))
    parts = {part: [scene.name for scene in getattr(split, part)] for part in ("training", "validation", "test")}
    assert parts == {"training": ["a", "b"], "validation": ["c"], "test": ["d"]}
    _, split = open_split(parse_config({"data": table | {"split": "shares", "validation": 0.5}}, "t"))
    assert len(split.training) == len(split.validation) == 2


def test_a_boundary_lies_along_outlines_unless_people_drew_it(folder):
    classes = ("background", "cat", "dog", "boundary")
    _, scenes = open_scenes(data(folder, classes, boundary_width=2.0))
    drawn = scenes[1].labels.read(scenes[1].whole)
    # The square from 2 to 6, and one pixel on either side of its outline.
    assert drawn[1, 3] == drawn[2, 3] == drawn[5, 3] == drawn[6, 3] == 3
    assert drawn[3, 3] == 1
    assert drawn[0, 3] == drawn[7, 3] == 0
    labelme(folder / "c.json", square("boundary", 0, 0, 2))
    _, scenes = open_scenes(data(folder, classes))
    assert (scenes[1].labels.read(scenes[1].whole) == 3).sum() == 0


def test_one_file_may_describe_the_images_of_training_and_validation(tmp_path):
    for name in ("train/a", "val/b"):
        photo(tmp_path / f"{name}.png")
    corners = [0, 0, 4, 0, 4, 4]
    told = {
        "images": [{"id": i, "file_name": f"{name}.png", "width": SIDE, "height": SIDE} for i, name in enumerate("ab")],
        "annotations": [{"image_id": i, "category_id": 1, "segmentation": [corners]} for i in range(2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(told))
    table = {
        "annotations": str(tmp_path / "all.json"),
        "images": str(tmp_path / "train"),
        "validation_images": str(tmp_path / "val"),
        "classes": ["background", "cat"],
    }
    _, split = open_split(parse_config({"data": table}, "t"))
    assert [scene.name for scene in split.training] == ["a"]
    assert [scene.name for scene in split.validation] == ["b"]


def test_shapes_of_a_resized_image_are_scaled_and_a_note_says_so(tmp_path):
    photo(tmp_path / "a.png")
    labelme(tmp_path / "a.json", square("cat", 0, 0, 8))
    told = json.loads((tmp_path / "a.json").read_text()) | {"imageHeight": 32, "imageWidth": 32}
    (tmp_path / "a.json").write_text(json.dumps(told))
    classes, scenes = open_scenes(data(tmp_path, ("background", "cat")))
    found = survey(scenes, classes)
    assert found.class_pixels.tolist() == [256 - 16, 16]
    assert "was 32x32 when it was annotated" in found.notes[0]
