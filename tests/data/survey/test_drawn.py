"""`pixelwise init` on scenes with polygons, on annotations, and on folders of which nothing can be made."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from click.testing import CliRunner
from small_folders import GROUND, Made, flat_with_ending, png, two_folders

from pixelwise.commands.init import init
from pixelwise.config import load_config
from pixelwise.data.split import open_split
from pixelwise.data.survey.proposal import Machine, propose
from pixelwise.data.survey.toml import to_toml
from pixelwise.data.survey.writing import complaint, require_free, write_configuration
from pixelwise.errors import ConfigError, DataError

LEFT, TOP = 500_000, 5_000_000
SIDE = 2
"""Of a pixel in metres."""


def proposed(folder, answer=0):
    asked = []

    def ask(question, answers):
        asked.append(question)
        return answer

    found = propose(folder, machine=Machine(), ask=ask)
    path = folder.parent / "mine.toml"
    path.write_text(to_toml(found, path), encoding="utf-8")
    return found, load_config(path), asked


def box(top: int, left: int, height: int, width: int, east: int = 0):
    """Return a rectangle on the ground, given in pixels of the scene that lies ``east`` pixels from the first."""
    x, y = LEFT + SIDE * (left + east), TOP - SIDE * top
    return shapely.box(x, y - SIDE * height, x + SIDE * width, y)


def scenes(folder, count: int = 5, apart: int = 200) -> Made:
    made = Made()
    for i in range(count):
        place = GROUND | {"transform": GROUND["transform"] @ GROUND["transform"].translation(apart * i, 0)}
        made.photo(folder / "scenes" / f"s{i}.tif", size=(96, 96), **place)
    return made


def write(path, shapes, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [np.array(values) for values in columns.values()]
    wkb, about = shapely.to_wkb(np.array(shapes, object)), {"crs": "EPSG:32633", "geometry_type": "Polygon"}
    pyogrio.raw.write(path, wkb, fields, list(columns), driver="GPKG" if path.suffix == ".gpkg" else None, **about)


def test_scenes_in_folders_called_train_val_and_test_are_in_these_parts(tmp_path):
    scenes(tmp_path / "data")
    parts = {"s0": "train", "s1": "train", "s2": "train", "s3": "val", "s4": "test"}
    for name, part in parts.items():
        (tmp_path / "data" / part).mkdir(exist_ok=True)
        (tmp_path / "data/scenes" / f"{name}.tif").rename(tmp_path / "data" / part / f"{name}.tif")
    write(tmp_path / "data/parcels.gpkg", [box(10, 8, 60, 30, 200 * i) for i in range(5)])
    found, config, _ = proposed(tmp_path / "data")
    _, split = open_split(config)
    assert {scene.name for scene in split.training} == {"s0", "s1", "s2"}
    assert {scene.name for scene in split.validation} == {"s3"}
    assert any("test is kept for a test" in sentence for sentence in found.guessed)


def test_parcels_side_by_side_are_one_class_with_a_boundary_and_a_column_of_numbers_is_no_class(tmp_path):
    scenes(tmp_path / "data")
    shapes = [box(10, 8 + 20 * k, 60, 19, 200 * i) for i in range(5) for k in range(4)]
    names = [f"s{i}" for i in range(5) for k in range(4)]
    write(tmp_path / "data/parcels.gpkg", shapes, scene=names, parcel_id=range(20), area_ha=np.linspace(1, 2, 20))
    found, config, asked = proposed(tmp_path / "data")
    assert config.data.classes == ["background", "parcel", "boundary"]
    assert config.data.attribute is None
    assert not asked
    assert any("'scene' names the scenes" in sentence for sentence in found.saw)
    _, split = open_split(config)
    assert {scene.name for scene in split.training + split.validation} == {f"s{i}" for i in range(5)}
    mask = split.training[0].read(split.training[0].whole).mask
    assert set(np.unique(mask)) == {0, 1, 2}
    assert mask[40, 18] == 1
    assert mask[5, 5] == 0


def test_a_column_of_few_values_is_the_class_and_polygons_apart_need_no_boundary(tmp_path):
    scenes(tmp_path / "data")
    shapes = [box(10, 8 + 40 * k, 30, 15, 200 * i) for i in range(5) for k in range(2)]
    kinds = ["house", "shed"] * 5
    write(tmp_path / "data/buildings.gpkg", shapes, osm_id=range(10), kind=kinds)
    _, config, _ = proposed(tmp_path / "data")
    assert config.data.classes == ["background", "house", "shed"]
    assert config.data.attribute == "kind"
    _, split = open_split(config)
    mask = split.training[0].read(split.training[0].whole).mask
    assert (mask[20, 12], mask[20, 55], mask[20, 35]) == (1, 2, 0)


def test_each_scene_may_have_a_file_of_polygons_of_its_name(tmp_path):
    scenes(tmp_path / "data")
    for i in range(5):
        write(
            tmp_path / f"data/labels/s{i}.geojson",
            [box(10, 10, 30, 15, 200 * i), box(60, 50, 20, 20, 200 * i)],
            a=[1, 2],
        )
    _, config, _ = proposed(tmp_path / "data")
    _, split = open_split(config)
    for scene in split.training + split.validation:
        mask = scene.read(scene.whole).mask
        assert mask[20, 15] == 1
        assert mask[50, 40] == 0


def test_one_scene_with_parcels_is_divided_by_blocks(tmp_path):
    made = Made()
    made.photo(tmp_path / "data/s.tif", size=(256, 256), **GROUND)
    write(tmp_path / "data/fields.gpkg", [box(10 + 60 * j, 8 + 60 * i, 55, 55) for i in range(4) for j in range(4)])
    found, config, _ = proposed(tmp_path / "data")
    assert config.data.split == "block"
    assert config.data.classes[1] == "field"
    _, split = open_split(config)
    assert split.training
    assert split.validation
    assert any("one image" in sentence for sentence in found.guessed)


def test_polygons_elsewhere_are_named_as_the_reason(tmp_path):
    scenes(tmp_path / "data", count=2)
    write(tmp_path / "data/far.gpkg", [box(10, 8, 30, 15, 90_000)])
    with pytest.raises(DataError, match=r"none of the polygons of far\.gpkg lies on a scene|None of the polygons"):
        proposed(tmp_path / "data")


def test_annotations_in_pixels_are_labels_with_their_classes(tmp_path):
    made = Made()
    via = {}
    for i in range(6):
        made.photo(tmp_path / f"data/p{i}.jpg")
        shape = {"name": "rect", "x": 10, "y": 8, "width": 30, "height": 20}
        regions = [{"shape_attributes": shape, "region_attributes": {"kind": "roof"}}]
        regions += [{"shape_attributes": shape | {"x": 50}, "region_attributes": {"kind": "tree"}}]
        via[f"p{i}.jpg1"] = {"filename": f"p{i}.jpg", "size": 1, "regions": regions, "file_attributes": {}}
    (tmp_path / "data/via_project.json").write_text(json.dumps(via))
    found, config, _ = proposed(tmp_path / "data")
    assert sorted(config.data.classes) == ["background", "roof", "tree"], found.saw
    _, split = open_split(config)
    mask = split.training[0].read(split.training[0].whole).mask
    names = [config.data.classes[mask[15, x]] for x in (20, 60, 45)]
    assert names == ["roof", "tree", "background"]


def test_images_alone_are_refused_with_what_is_missing(tmp_path):
    made = Made()
    for i in range(3):
        made.photo(tmp_path / f"data/p{i}.jpg")
    with pytest.raises(DataError, match=r"3 images in data \(p0.jpg ...\), but no labels .* masks of"):
        proposed(tmp_path / "data")


def test_masks_alone_are_refused_as_masks(tmp_path):
    made = Made()
    for i in range(3):
        png(tmp_path / f"data/m{i}.png", made.areas(f"m{i}", 3))
    with pytest.raises(DataError, match=r"3 masks in data .*but no images"):
        proposed(tmp_path / "data")


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"holds no images \(1 \.docx\)"):
        proposed(tmp_path / "data")
    with pytest.raises(ConfigError, match="no folder"):
        proposed(tmp_path / "nowhere")


def test_masks_of_one_value_teach_nothing(tmp_path):
    made = Made()
    for i in range(3):
        made.photo(tmp_path / f"data/images/p{i}.jpg")
        png(tmp_path / f"data/masks/p{i}.png", np.zeros((64, 80)))
    with pytest.raises(DataError, match="one value only"):
        proposed(tmp_path / "data")


def test_few_missing_masks_are_left_to_check_and_many_are_left_out(tmp_path):
    two_folders(tmp_path / "few/data", count=12)
    (tmp_path / "few/data/masks/p3.png").unlink()
    found, config, _ = proposed(tmp_path / "few/data")
    assert config.data.missing_masks == "error"
    assert any("1 of 12 images have no mask (p3.jpg)" in sentence for sentence in found.saw)
    assert "p3.jpg has no mask" in (complaint(tmp_path / "few/mine.toml") or "")
    two_folders(tmp_path / "many/data", count=12)
    for i in range(5):
        (tmp_path / f"many/data/masks/p{i}.png").unlink()
    _, config, _ = proposed(tmp_path / "many/data")
    assert config.data.missing_masks == "leave_out"
    assert complaint(tmp_path / "many/mine.toml") is None


def test_a_question_is_asked_only_where_two_readings_are_equally_likely(tmp_path):
    two_folders(tmp_path / "plain/data")
    assert proposed(tmp_path / "plain/data")[2] == []
    scenes(tmp_path / "two/data")
    for name in ("old", "new"):
        write(tmp_path / f"two/data/{name}.gpkg", [box(10, 8, 30, 15, 200 * i) for i in range(5)])
    _, config, asked = proposed(tmp_path / "two/data", answer=1)
    assert asked == ["Several files of polygons lie on the scenes. Which are the labels?"]
    assert str(config.data.labels).endswith("old.gpkg")


# The command


def test_the_command_writes_a_configuration_and_says_what_it_saw_and_guessed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flat_with_ending(tmp_path / "data")
    made = CliRunner().invoke(init, ["data", "--yes"])
    assert made.exit_code == 0, made.output
    for said in ("Saw:", "6 images with masks", "0 (", "255 (", "Guessed:", "background", "pixelwise.toml is written"):
        assert said in made.output
    text = (tmp_path / "pixelwise.toml").read_text()
    assert "# - " in text
    assert load_config("pixelwise.toml").data.values == {"background": [0], "object": [255]}


def test_a_configuration_that_is_there_is_never_lost(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("old")
    with pytest.raises(ConfigError, match="is kept"):
        require_free(path, force=False)
    require_free(path, force=True)
    copies = [write_configuration(path, text) for text in ("new", "newer")]
    assert [copy.read_text() for copy in copies if copy] == ["old", "new"]
    assert path.read_text() == "newer"
    with pytest.raises(ConfigError, match=r"\.toml"):
        require_free(tmp_path / "mine.txt", force=False)
