import json

import numpy as np
import pytest
import rasterio
from affine import Affine

from pixelwise.config import DataConfig
from pixelwise.data.scenes import open_scenes
from pixelwise.errors import ConfigError, DataError
from pixelwise.labels import IGNORE

SIDE = 32


def write_scene(path, *, bands=3, dtype="uint8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": bands, "height": SIDE, "width": SIDE, "dtype": dtype}
    place = {"crs": "EPSG:32632", "transform": Affine(1, 0, 500_000, 0, -1, 5_000_000)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as out:
        out.write(np.full((bands, SIDE, SIDE), 7, dtype))


def write_squares(path, kinds, *, east=500_000):
    def square(i):
        left, top = east + 8 * i, 5_000_000
        ring = [[left, top], [left + 6, top], [left + 6, top - 6], [left, top - 6], [left, top]]
        return {"type": "Polygon", "coordinates": [ring]}

    features = [
        {"type": "Feature", "geometry": square(i), "properties": {"kind": kind}} for i, kind in enumerate(kinds)
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}), encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path):
    write_scene(tmp_path / "images/a.tif")
    return tmp_path / "images"


def test_a_column_chooses_the_class_of_each_polygon(images, tmp_path):
    labels = write_squares(tmp_path / "fields.geojson", ["wheat", "fallow", "unsure"])
    data = DataConfig(
        images=images,
        labels=labels,
        classes=["background", "crop", "bare"],
        values={"crop": ["wheat"], "bare": ["fallow"]},
        ignore=["unsure"],
        attribute="kind",
    )
    _, (scene,) = open_scenes(data)
    expected = np.zeros((SIDE, SIDE), np.int16)
    for i, value in enumerate((1, 2, IGNORE)):
        expected[:6, 8 * i : 8 * i + 6] = value
    np.testing.assert_array_equal(scene.read(scene.whole).mask, expected)


def test_values_of_the_column_that_no_class_has_are_named(images, tmp_path):
    labels = write_squares(tmp_path / "fields.geojson", ["crop", "lake", "road"])
    data = DataConfig(images=images, labels=labels, classes=["background", "crop"], attribute="kind")
    with pytest.raises(DataError, match=r"'lake', 'road' in the column 'kind'.*\[data\].values.*ignore = \['lake'\]"):
        open_scenes(data)


def test_two_classes_of_polygons_need_a_column(images, tmp_path):
    labels = write_squares(tmp_path / "fields.geojson", ["crop"])
    data = DataConfig(images=images, labels=labels, classes=["background", "crop", "bare"])
    with pytest.raises(ConfigError, match=r"leaves 2 classes.*\(crop, bare\).*\[data\].attribute"):
        open_scenes(data)


def test_a_column_beside_masks_is_refused(images, tmp_path):
    write_scene(tmp_path / "masks/a.tif", bands=1)
    values = {"a": [0], "b": [7]}
    data = DataConfig(images=images, labels=tmp_path / "masks", classes=["a", "b"], values=values, attribute="kind")
    with pytest.raises(ConfigError, match=r"\[data\].attribute names 'kind'.*masks holds masks.*\[data\].values"):
        open_scenes(data)
    _, scenes = open_scenes(data.model_copy(update={"attribute": None}))
    assert (scenes[0].read(scenes[0].whole).mask == 1).all()


def test_a_column_for_the_polygons_of_training_may_stand_beside_masks_of_validation(images, tmp_path):
    labels = write_squares(tmp_path / "fields.geojson", [7])
    write_scene(tmp_path / "masks/a.tif", bands=1)
    data = DataConfig(
        images=images,
        labels=labels,
        classes=["a", "b"],
        values={"a": [0], "b": [7]},
        attribute="kind",
        validation_images=images,
        validation_labels=tmp_path / "masks",
    )
    open_scenes(data)
    _, scenes = open_scenes(data, data.validation_images, data.validation_labels)
    assert (scenes[0].read(scenes[0].whole).mask == 1).all()


def test_polygons_elsewhere_and_labels_that_are_not_there_are_named(images, tmp_path):
    labels = write_squares(tmp_path / "fields.geojson", ["crop"], east=700_000)
    data = DataConfig(images=images, labels=labels, classes=["background", "crop"])
    with pytest.raises(DataError, match=r"None of the 1 polygons in .*fields.geojson touches any of the 1 scenes"):
        open_scenes(data)
    with pytest.raises(DataError, match=r"There is no .*nowhere.*\[data\].labels"):
        open_scenes(data.model_copy(update={"labels": tmp_path / "nowhere"}))


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"bands": 2}, r"b.tif has the bands \[1, 2\], but .*a.tif has \[1, 2, 3\].*\[data\].bands"),
        ({"dtype": "uint16"}, r"b.tif is uint16, but .*a.tif is uint8"),
    ],
)
def test_scenes_that_do_not_go_together_are_named(images, tmp_path, odd, message):
    write_scene(images / "b.tif", **odd)
    labels = write_squares(tmp_path / "fields.geojson", ["crop"])
    with pytest.raises(DataError, match=message):
        open_scenes(DataConfig(images=images, labels=labels, classes=["background", "crop"]))
