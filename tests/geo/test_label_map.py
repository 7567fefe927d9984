import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS

from pixelwise.errors import ConfigError
from pixelwise.geo.label_map import (
    CLASSES_TAG,
    LabelMapWriter,
    colourise,
    confidence_path,
    label_nodata,
    overlay,
    to_picture,
    write_palette_png,
)
from pixelwise.geo.map_file import most_frequent
from pixelwise.geo.raster import RasterInfo
from pixelwise.labels import make_classes

CLASSES = make_classes(["water", "forest", "road"], ["#0000ff", "#00ff00", "#808080"])
CRS_HERE, PLACE = CRS.from_epsg(32633), Affine(2, 0, 500_000, 0, -2, 5_000_000)


def header(height, width, path="scene.tif"):
    return RasterInfo(Path(path), height, width, 3, None, "uint8", None, CRS_HERE, PLACE, False)


def random_map(height, width, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (height, width)).astype(np.uint8 if classes <= 256 else np.uint16)
    return labels, rng.random((height, width)).astype(np.float32), rng.random((height, width)) < 0.8


@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(1, 39), max_size=5), st.integers(0, 99))
def test_a_map_that_is_written_in_strips_is_the_whole_map(tmp_path_factory, height, width, cuts, seed):
    path = tmp_path_factory.mktemp("map") / "map.tif"
    labels, confidence, valid = random_map(height, width, seed)
    edges = sorted({0, height, *(cut for cut in cuts if cut < height)})
    with LabelMapWriter(path, header(height, width), CLASSES, tags={}, confidence=True) as writer:
        for top, bottom in pairwise(edges):
            writer.write(top, labels[top:bottom], confidence[top:bottom], valid[top:bottom])
    with rasterio.open(path) as made, rasterio.open(confidence_path(path)) as beside:
        np.testing.assert_array_equal(made.read(1), np.where(valid, labels, 255))
        grey = beside.read(1)
    assert (grey[~valid] == 255).all()
    assert (np.abs(grey[valid] / 254 - confidence[valid]) <= 0.5 / 254 + 1e-6).all()


@pytest.mark.parametrize(("count", "dtype", "nodata"), [(3, "uint8", 255), (255, "uint8", 255), (256, "uint16", 65535)])
def test_nodata_is_never_a_class(tmp_path, count, dtype, nodata):
    classes = make_classes([f"class {i}" for i in range(count)])
    labels = np.array([[0, count - 1, 0]], np.uint8)
    valid = np.array([[True, True, False]])
    with LabelMapWriter(tmp_path / "m.tif", header(1, 3), classes, tags={}) as writer:
        writer.write(0, labels, None, valid)
    with rasterio.open(tmp_path / "m.tif") as made:
        assert (made.dtypes[0], made.nodata) == (dtype, nodata)
        assert made.read(1).tolist() == [[0, count - 1, nodata]]


def test_a_map_carries_palette_tags_names_and_georeference(tmp_path):
    labels, _, valid = random_map(20, 30)
    with LabelMapWriter(tmp_path / "m.tif", header(20, 30), CLASSES, tags={"PIXELWISE_MODEL": "abc"}) as writer:
        writer.write(0, labels, None, valid)
    with rasterio.open(tmp_path / "m.tif") as made:
        assert [made.colormap(1)[i][:3] for i in range(3)] == [(0, 0, 255), (0, 255, 0), (128, 128, 128)]
        assert made.tags()["PIXELWISE_MODEL"] == "abc"
        assert json.loads(made.tags()[CLASSES_TAG]) == ["water", "forest", "road"]
        assert (made.crs, made.transform, made.shape) == (CRS_HERE, PLACE, (20, 30))


@pytest.mark.parametrize("older", [b"older", None])
def test_a_failure_leaves_no_file_and_keeps_the_older_one(tmp_path, older):
    path = tmp_path / "m.tif"
    if older is not None:
        path.write_bytes(older)
    labels, confidence, valid = random_map(20, 30)

    def fail():
        with LabelMapWriter(path, header(40, 30), CLASSES, tags={}, confidence=True) as writer:
            writer.write(0, labels, confidence, valid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [each.name for each in tmp_path.iterdir()] == ([] if older is None else ["m.tif"])
    assert older is None or path.read_bytes() == older


def test_another_suffix_the_scene_itself_and_a_folder_are_refused(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    scene = header(2, 2, str(tmp_path / "scene.tif"))
    for name, reason in (("m.png", "GeoTIFF"), ("scene.tif", "scene itself"), ("folder.tif", "folder")):
        with pytest.raises(ConfigError, match=reason):
            LabelMapWriter(tmp_path / name, scene, CLASSES, tags={})
    confident = header(2, 2, str(tmp_path / "m.confidence.tif"))
    with pytest.raises(ConfigError, match="scene itself"):
        LabelMapWriter(tmp_path / "m.tif", confident, CLASSES, tags={}, confidence=True)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 256])
def test_a_palette_png_holds_indices_colours_and_nodata(tmp_path, count):
    classes = make_classes([f"class {i}" for i in range(count)])
    labels = np.array([[0, count - 1], [count // 2, 255]], np.uint8)
    write_palette_png(tmp_path / "x.png", labels, classes)
    picture = Image.open(tmp_path / "x.png")
    assert picture.mode == "P"
    assert np.asarray(picture).tolist() == labels.tolist()
    colours = np.asarray(picture.convert("RGB"))
    assert tuple(colours[0, 1].tolist()) == classes.palette[count - 1]


def test_from_257_classes_on_a_png_is_16_bit_grey(tmp_path):
    labels = np.array([[0, 299]], np.uint16)
    write_palette_png(tmp_path / "x.png", labels, make_classes([str(i) for i in range(300)]))
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() == [[0, 299]]


def test_colours_are_those_of_the_palette_and_black_elsewhere():
    colours = colourise(np.array([[0, 1, 2, -1, 3, 255]], np.int32), CLASSES)
    assert colours[0].tolist() == [[0, 0, 255], [0, 255, 0], [128, 128, 128], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


@given(st.floats(0, 1), st.integers(0, 99))
def test_an_overlay_mixes_by_its_opacity_and_shows_the_picture_where_there_is_no_class(opacity, seed):
    rng = np.random.default_rng(seed)
    picture, labels = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8), rng.integers(-1, 4, (5, 6))
    mixed = overlay(picture, labels, CLASSES, opacity=opacity)
    for row, column in np.ndindex(5, 6):
        value = labels[row, column]
        expected = picture[row, column].astype(float)
        if 0 <= value < 3:
            expected = expected * (1 - opacity) + np.array(CLASSES.palette[value]) * opacity
        assert (np.abs(mixed[row, column] - expected) <= 0.5 + 1e-6).all()


def test_8_bit_bands_are_shown_as_they_are_and_one_band_as_grey():
    values = np.random.default_rng(0).integers(0, 256, (5, 4, 6)).astype(np.uint8)
    np.testing.assert_array_equal(to_picture(values), np.moveaxis(values[:3], 0, -1))
    np.testing.assert_array_equal(to_picture(values[:2]), values[0][..., None].repeat(3, axis=-1))


def test_other_bands_are_stretched_over_their_valid_pixels():
    values = np.linspace(1000, 3000, 400).reshape(1, 20, 20).astype(np.float32)
    values[0, 0, 0], valid = np.nan, np.ones((20, 20), bool)
    values[0, 19, 19], valid[19, 19] = 1e9, False
    valid[0, 0] = False
    shown = to_picture(values, valid)
    assert (shown.min(), shown.max()) == (0, 255)
    assert abs(int(shown[10, 0, 0]) - 127) < 4


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("classes", "sides"), [(3, (600, 700)), (255, (1024, 1024))])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, share, classes, sides):
    """What has 255 classes at random is larger when it is compressed, so that there is room for it until then."""
    resource = pytest.importorskip("resource")
    labels, confidence, valid = random_map(*sides, classes=classes)
    path, names = tmp_path / "m.tif", make_classes([f"class {i}" for i in range(classes)])

    def fill():
        with LabelMapWriter(path, header(*sides), names, tags={}) as writer:
            writer.write(0, labels, confidence, valid)

    fill()
    room = int(path.stat().st_size * share)
    for each in tmp_path.iterdir():
        each.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(ConfigError, match="disk full"):
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 999))
def test_a_copy_of_half_the_size_has_the_most_frequent_class_of_each_square(height, width, seed):
    values = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    half = most_frequent(values, 255)
    assert (half.shape, half.dtype) == (((height + 1) // 2, (width + 1) // 2), np.uint8)
    for row, column in np.ndindex(half.shape):
        square = values[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel().tolist()
        known = [value for value in square if value != 255]
        # max() takes the first of equals.
        assert half[row, column] == (max(known, key=known.count) if known else 255)


@pytest.mark.parametrize("classes", [3, 300])
def test_smaller_copies_of_a_map_are_found_whatever_a_user_told_gdal(tmp_path, classes):
    labels, _, valid = random_map(1100, 2100, classes=classes)
    names = make_classes([f"class {i}" for i in range(classes)])
    writer = LabelMapWriter(tmp_path / "m [1].tif", header(1100, 2100), names, tags={})
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), writer:
        writer.write(0, labels, None, valid)
    with rasterio.open(tmp_path / "m [1].tif") as made:
        expected = made.read(1)
        assert made.overviews(1) == [2, 4, 8]
    for level in range(3):
        expected = most_frequent(expected, label_nodata(classes))
        with rasterio.open(tmp_path / "m [1].tif", overview_level=level) as made:
            np.testing.assert_array_equal(made.read(1), expected)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m [1].tif", "m [1].tif.aux.xml"]


def test_a_new_map_takes_what_belonged_to_the_older_one_away(tmp_path):
    labels, confidence, valid = random_map(20, 30)
    for with_confidence in (True, False):
        with LabelMapWriter(tmp_path / "m.tif", header(20, 30), CLASSES, tags={}, confidence=with_confidence) as writer:
            writer.write(0, labels, confidence if with_confidence else None, valid)
        left = sorted(each.name for each in tmp_path.iterdir())
        assert left == [*(["m.confidence.tif"] if with_confidence else []), "m.tif", "m.tif.aux.xml"]
        (tmp_path / "m.tif.ovr").write_bytes(b"overviews")


def test_a_map_of_256_classes_has_all_their_colours(tmp_path):
    classes = make_classes([f"class {i}" for i in range(256)])
    with LabelMapWriter(tmp_path / "m.tif", header(1, 2), classes, tags={}) as writer:
        writer.write(0, np.array([[0, 255]], np.uint8), None, np.ones((1, 2), bool))
    with rasterio.open(tmp_path / "m.tif") as made:
        colours = made.colormap(1)
    assert tuple(colours[i][:3] for i in range(256)) == classes.palette


def test_the_nodata_of_256_classes_is_kept_in_a_png_of_16_bits(tmp_path):
    classes = make_classes([f"class {i}" for i in range(256)])
    write_palette_png(tmp_path / "x.png", np.array([[255, 65535]], np.uint16), classes)
    assert np.asarray(Image.open(tmp_path / "x.png")).tolist() == [[255, 65535]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 7.0])
def test_a_picture_of_nothing_or_of_one_value_can_be_shown(value):
    shown = to_picture(np.full((1, 3, 4), value, np.float32), np.zeros((3, 4), bool))
    assert shown.shape == (3, 4, 3)
    assert len(np.unique(shown)) == 1
