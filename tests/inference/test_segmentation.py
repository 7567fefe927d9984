import numpy as np
import pytest
import rasterio
from PIL import Image
from small_network import NORTH_UP, noise, predictor_of, write_photo, write_scene

from pixelwise.errors import ConfigError


def test_a_photo_is_saved_as_indices_with_the_palette_of_the_classes(tmp_path):
    predictor = predictor_of()
    result = predictor.segment(np.moveaxis(noise(3, 40, 50), 0, -1))
    result.save(tmp_path / "labels.png")
    saved = Image.open(tmp_path / "labels.png")
    assert saved.mode == "P"
    np.testing.assert_array_equal(np.asarray(saved), result.labels)
    colours = np.array(predictor.classes.palette)[result.labels]
    np.testing.assert_array_equal(np.asarray(saved.convert("RGB")), colours)


def test_a_segmentation_of_a_scene_is_saved_as_a_geotiff_in_its_place(tmp_path):
    result = predictor_of().segment(write_scene(tmp_path / "scene.tif", noise(3, 40, 50)))
    result.save(tmp_path / "labels.tif")
    with rasterio.open(tmp_path / "labels.tif") as saved:
        assert (saved.crs, saved.transform) == (rasterio.CRS.from_epsg(32616), NORTH_UP)
        np.testing.assert_array_equal(saved.read(1), result.labels)


def test_an_overlay_mixes_image_and_colours_and_leaves_pixels_without_data_as_they_are(tmp_path):
    values = noise(4, 40, 50)
    values[3] = 255
    values[3, :10] = 0
    predictor = predictor_of()
    result = predictor.segment(write_photo(tmp_path / "photo.png", values))
    shown = np.asarray(result.overlay(0.25)).astype(float)
    image = np.moveaxis(values[:3], 0, -1)
    colours = np.array(predictor.classes.palette)[np.where(result.valid, result.labels, 0)]
    np.testing.assert_allclose(shown[10:], (image * 0.75 + colours * 0.25)[10:], atol=1)
    np.testing.assert_array_equal(shown[:10], image[:10])
    result.save_overlay(tmp_path / "overlay.png", opacity=0.0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "overlay.png")), image)


def test_neither_labels_nor_overlay_are_written_over_the_image(tmp_path):
    path = write_photo(tmp_path / "photo.png", noise(3, 40, 50))
    before = path.read_bytes()
    result = predictor_of().segment(path)
    for save in (result.save, result.save_overlay):
        with pytest.raises(ConfigError, match=r"photo\.png is the image itself"):
            save(path)
    assert path.read_bytes() == before


def test_a_suffix_that_would_change_labels_or_is_no_picture_is_refused(tmp_path):
    result = predictor_of().segment(np.moveaxis(noise(3, 40, 50), 0, -1))
    with pytest.raises(ConfigError, match=r"labels\.jpg.*\.png or \.tif"):
        result.save(tmp_path / "labels.jpg")
    with pytest.raises(ConfigError, match=r"overlay\.doc.*\.png or \.jpg"):
        result.save_overlay(tmp_path / "overlay.doc")
    with pytest.raises(ConfigError, match="opacity"):
        result.overlay(1.5)
    assert list(tmp_path.iterdir()) == []
