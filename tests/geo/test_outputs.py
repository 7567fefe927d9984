"""Nothing is written over an input, and nothing of somebody else's is removed."""

import os

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from pixelwise.errors import ConfigError
from pixelwise.geo.label_map import LabelMapWriter, confidence_path
from pixelwise.geo.outputs import is_product, keep_inputs, made_here, same_file
from pixelwise.geo.raster import RasterInfo
from pixelwise.labels import make_classes

CLASSES = make_classes(["water", "forest"])


def info(path):
    return RasterInfo(path, 4, 5, 1, None, "uint8", None, CRS.from_epsg(32633), rasterio.Affine.identity(), False)


def write_map(path, *, confidence=False, scene=None):
    with LabelMapWriter(
        path, info(scene or path.parent / "scene.tif"), CLASSES, tags={}, confidence=confidence
    ) as file:
        file.write(0, np.zeros((4, 5), np.uint8), np.ones((4, 5), np.float32), np.ones((4, 5), bool))
    return path


def write_raster(path):
    with rasterio.open(path, "w", driver="GTiff", height=4, width=5, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 4, 5), np.uint8))
    return path


@pytest.mark.parametrize("way", ["itself", "spelling", "symbolic link", "hard link", "link to its folder"])
def test_an_input_is_known_again_by_any_name(tmp_path, way):
    (tmp_path / "in").mkdir()
    scene, other = write_raster(tmp_path / "in/scene.tif"), tmp_path / "other.tif"
    if way == "itself":
        other = scene
    elif way == "spelling":
        other = tmp_path / "in/../in/./scene.tif"
    elif way == "symbolic link":
        other.symlink_to(scene)
    elif way == "hard link":
        os.link(scene, other)
    else:
        (tmp_path / "again").symlink_to(tmp_path / "in")
        other = tmp_path / "again/scene.tif"
    before = scene.read_bytes()
    assert same_file(scene, other)
    with pytest.raises(ConfigError, match=r"is the scene itself. Choose another output, so that the scene is kept"):
        write_map(other, scene=scene)
    assert scene.read_bytes() == before


def test_a_file_that_an_input_is_made_of_is_named_with_it(tmp_path):
    part = write_raster(tmp_path / "part.tif")
    with pytest.raises(ConfigError, match=r"part\.tif is the scene or a file that it is read from"):
        keep_inputs([part], [tmp_path / "mosaic.vrt", part], "scene")
    keep_inputs([tmp_path / "new.tif"], [tmp_path / "mosaic.vrt", part, "/vsis3/bucket/part.tif"], "scene")


@pytest.mark.parametrize("content", ["text", "raster", "link to ours", "link to nothing", "map of ours"])
def test_a_confidence_that_is_not_ours_is_neither_removed_nor_replaced(tmp_path, content):
    theirs = confidence_path(tmp_path / "m.tif")
    if content == "text":
        theirs.write_text("mine")
    elif content == "raster":
        write_raster(theirs)
    elif content == "map of ours":
        write_map(theirs)
    else:
        write_map(tmp_path / "ours.tif", confidence=True)
        theirs.symlink_to(confidence_path(tmp_path / "ours.tif") if content == "link to ours" else tmp_path / "none")
    before = theirs.read_bytes() if theirs.exists() else None
    write_map(tmp_path / "m.tif")
    with pytest.raises(ConfigError, match=r"m\.confidence\.tif is not from pixelwise, and would be overwritten"):
        write_map(tmp_path / "m.tif", confidence=True)
    assert os.path.lexists(theirs)
    assert (theirs.read_bytes() if theirs.exists() else None) == before


def test_a_confidence_of_ours_goes_with_its_map_and_its_style(tmp_path):
    write_map(tmp_path / "m.tif", confidence=True)
    assert is_product(confidence_path(tmp_path / "m.tif"))
    assert made_here(tmp_path / "m.tif")
    assert not is_product(tmp_path / "m.tif")
    write_map(tmp_path / "m.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml"]


@pytest.mark.parametrize("suffix", [".ovr", ".msk", ".aux.xml"])
def test_a_file_that_gdal_would_take_for_a_part_of_the_new_map_is_not_overwritten(tmp_path, suffix):
    (tmp_path / f"m.tif{suffix}").write_text("mine")
    with pytest.raises(ConfigError, match=rf"GDAL would take .*m\.tif{suffix} for a part of the new m\.tif"):
        write_map(tmp_path / "m.tif")
    assert (tmp_path / f"m.tif{suffix}").read_text() == "mine"


def test_statistics_that_a_viewer_left_go_with_the_older_map(tmp_path):
    (tmp_path / "m.tif.aux.xml").write_text("<PAMDataset><Metadata>old</Metadata></PAMDataset>")
    write_map(tmp_path / "m.tif")
    assert "old" not in (tmp_path / "m.tif.aux.xml").read_text()


@given(st.binary(max_size=200))
def test_no_bytes_of_somebody_else_are_taken_for_ours(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    for name in ("a.tif", "a.png", "a.jpg"):
        (folder / name).write_bytes(content)
        assert not made_here(folder / name)
        assert not is_product(folder / name)
