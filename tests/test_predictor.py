from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_network import NORTH_UP, card_of, noise, predictor_of, runs, small_network, write_photo, write_scene

from pixelwise.errors import ConfigError, DataError, PixelwiseError, WeightsError
from pixelwise.inference.options import TileOptions
from pixelwise.mapping.options import MapOptions
from pixelwise.models import create
from pixelwise.predictor import Predictor, load, predict_folder
from pixelwise.runs.model_folder import save_model

# Photos, arrays and PIL images


def test_a_path_a_pil_image_and_an_array_give_the_same_answer(tmp_path):
    values = noise(3, 70, 90)
    path = write_photo(tmp_path / "photo.png", values)
    predictor = predictor_of()
    results = [predictor.segment(given) for given in (path, str(path), Image.open(path), np.moveaxis(values, 0, -1))]
    for result in results[1:]:
        np.testing.assert_array_equal(result.labels, results[0].labels)
        np.testing.assert_array_equal(result.confidence, results[0].confidence)
    assert results[0].classes == predictor.classes


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 140), st.integers(1, 140), st.integers(1, 5), st.booleans())
def test_an_image_of_any_size_from_1_pixel_on_gets_a_label_and_a_confidence_per_pixel(height, width, classes, flips):
    predictor = predictor_of(classes=classes)
    result = predictor.segment(np.moveaxis(noise(3, height, width), 0, -1), flips=flips)
    assert result.labels.shape == result.confidence.shape == result.valid.shape == (height, width)
    assert result.valid.all()
    assert result.labels.max() < classes
    # The best of K classes has at least 1 / K.
    assert result.confidence.min() >= 1 / classes - 1e-5
    assert result.confidence.max() <= 1 + 1e-5


def test_labels_are_those_of_the_network_on_the_normalised_image():
    predictor = predictor_of(tile=128)
    values = noise(3, 77, 90)
    mean, std = np.array(predictor.card.mean), np.array(predictor.card.std)
    image = torch.from_numpy(((values - mean[:, None, None]) / std[:, None, None]).astype(np.float32))[None]
    probability = small_network()(image).softmax(1)[0]
    result = predictor.segment(np.moveaxis(values, 0, -1))
    np.testing.assert_allclose(result.confidence, probability.amax(0), atol=1e-5)
    clear = (probability.amax(0) > 0.5).numpy()
    np.testing.assert_array_equal(result.labels[clear], probability.argmax(0).numpy()[clear])
    np.testing.assert_array_equal(result.labels, small_network().label_map(image)[0].numpy())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64", "int64"])
def test_arrays_are_taken_in_raw_units_whatever_their_type(dtype):
    values = np.moveaxis(noise(3, 40, 50), 0, -1)
    predictor = predictor_of()
    np.testing.assert_array_equal(predictor.segment(values.astype(dtype)).labels, predictor.segment(values).labels)


def test_a_grey_image_may_have_two_axes_or_three():
    predictor = predictor_of(bands=1)
    grey = noise(1, 40, 50)[0]
    expected = predictor.segment(grey[..., None]).labels
    np.testing.assert_array_equal(predictor.segment(grey).labels, expected)
    np.testing.assert_array_equal(predictor.segment(Image.fromarray(grey)).labels, expected)


def test_a_file_may_be_float64_where_float32_was_trained_on_and_int16_where_uint16_was(tmp_path):
    values = noise(3, 40, 50)
    for trained, given_type in (("float32", "float64"), ("uint16", "int16"), ("int16", "uint16")):
        path = write_scene(tmp_path / f"{given_type}.tif", values.astype(given_type))
        expected = predictor_of().segment(np.moveaxis(values, 0, -1)).labels
        np.testing.assert_array_equal(predictor_of(dtype=trained).segment(path).labels, expected)


def test_alpha_is_dropped_and_transparent_pixels_hold_no_data(tmp_path):
    values = noise(4, 70, 90)
    values[3] = 255
    values[3, :20, :30] = 0
    path = write_photo(tmp_path / "photo.png", values)
    predictor = predictor_of()
    for image in (path, Image.open(path)):
        result = predictor.segment(image)
        np.testing.assert_array_equal(result.valid, values[3] > 0)
        assert (result.labels[~result.valid] == 255).all()
        assert (result.confidence[~result.valid] == 0).all()
        assert result.labels[result.valid].max() < 3


def test_nodata_of_the_file_of_the_card_and_nan_hold_no_data(tmp_path):
    values = noise(3, 40, 50).astype(np.float32)
    values[:, 5, 6] = -9
    values[1, 7, 8] = np.nan
    empty = np.zeros((40, 50), bool)
    empty[5, 6] = empty[7, 8] = True
    in_file = write_scene(tmp_path / "nodata.tif", values, nodata=-9)
    np.testing.assert_array_equal(predictor_of(dtype="float32").segment(in_file).valid, ~empty)
    predictor = predictor_of(dtype="float32", nodata=-9.0)
    plain = write_scene(tmp_path / "plain.tif", values)
    np.testing.assert_array_equal(predictor.segment(plain).valid, ~empty)
    np.testing.assert_array_equal(predictor.segment(np.moveaxis(values, 0, -1)).valid, ~empty)


def test_what_a_pixel_without_data_holds_changes_no_label(tmp_path):
    values = noise(4, 70, 90)
    values[3] = 255
    values[3, 30:50, 30:50] = 0
    other = values.copy()
    other[:3, 30:50, 30:50] = 7
    predictor = predictor_of()
    a, b = (predictor.segment(write_photo(tmp_path / f"{i}.png", v)) for i, v in enumerate((values, other)))
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.confidence, b.confidence)


def test_with_256_classes_pixels_without_data_are_no_class(tmp_path):
    predictor = predictor_of(classes=256, bands=1, dtype="float32")
    image = noise(1, 40, 40)[0].astype(np.float32)
    assert predictor.segment(image).labels.dtype == np.uint8
    image[3, 4] = np.nan
    result = predictor.segment(image)
    assert result.labels[3, 4] == 65535
    assert result.labels[result.valid].max() < 256
    result.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), result.labels)


# Other bands and units than the model's


@pytest.mark.parametrize(
    ("trained", "found", "says"),
    [
        (3, 1, "has 1 band "),
        (1, 3, "has 3 bands"),
        (3, 4, "has 4 bands"),
        (4, 3, "has 3 bands"),
        (13, 4, "has 4 bands"),
    ],
)
def test_another_number_of_bands_is_an_error_that_names_both(tmp_path, trained, found, says):
    path = write_scene(tmp_path / "scene.tif", noise(found, 40, 50), alpha="no", photometric="minisblack")
    predictor = predictor_of(bands=trained)
    for attempt in (lambda: predictor.segment(path), lambda: predictor.map_scene(path, tmp_path / "map.tif")):
        with pytest.raises(DataError) as problem:
            attempt()
        assert "scene.tif" in str(problem.value)
        assert says in str(problem.value)
        assert f"takes {trained} " in str(problem.value)
        assert "Give" in str(problem.value)
    assert not (tmp_path / "map.tif").exists()
    assert runs(predictor) == 0


def test_a_model_of_some_bands_takes_files_like_those_it_was_trained_on(tmp_path):
    values = noise(4, 40, 50)
    path = write_scene(tmp_path / "scene.tif", values, alpha="no", photometric="minisblack")
    for bands in ((1, 2, 3), (4, 1, 2)):
        predictor = predictor_of()
        predictor.card = replace(predictor.card, bands=bands, file_bands=4)
        expected = predictor.segment(np.moveaxis(values[[band - 1 for band in bands]], 0, -1)).labels
        np.testing.assert_array_equal(predictor.segment(path).labels, expected)


def test_alpha_is_not_taken_for_a_fourth_band(tmp_path):
    path = write_photo(tmp_path / "photo.png", noise(4, 40, 50))
    predictor = predictor_of()
    predictor.card = replace(predictor.card, bands=(4, 1, 2))
    with pytest.raises(DataError, match=r"photo\.png has 3 bands"):
        predictor.segment(path)


@pytest.mark.parametrize(("trained", "given_type"), [("uint8", "uint16"), ("uint16", "uint8"), ("uint8", "float32")])
def test_a_file_in_other_units_is_an_error_that_names_both(tmp_path, trained, given_type):
    path = write_scene(tmp_path / "scene.tif", noise(3, 40, 50).astype(given_type))
    with pytest.raises(DataError, match=rf"scene\.tif holds {given_type}.*{trained}.*convert"):
        predictor_of(dtype=trained).segment(path)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 40, 50), np.uint8),
        np.zeros((40, 50), np.uint8),
        np.zeros((40, 50, 4), np.uint8),
        np.zeros((0, 50, 3), np.uint8),
        np.zeros((1, 40, 50, 3), np.uint8),
        np.full((40, 50, 3), "a"),
        Image.new("L", (50, 40)),
        Image.new("LA", (50, 40)),
        Image.new("CMYK", (50, 40)),
    ],
)
def test_an_array_or_a_picture_of_another_shape_is_an_error_that_names_the_shape_wanted(image):
    with pytest.raises(DataError, match=r"\[height, width, 3\]"):
        predictor_of().segment(image)


# Loading


def test_a_model_folder_predicts_as_the_model_that_was_saved(tmp_path):
    torch.manual_seed(0)
    model = create("segformer-b0", classes=3, bands=3).eval()
    save_model(tmp_path / "model", model, card_of(model, tile=128))
    image = np.moveaxis(noise(3, 65, 97), 0, -1)
    results = [
        load(tmp_path / "model", device="cpu").segment(image),
        Predictor(model, card_of(model, tile=128), "").segment(image),
    ]
    np.testing.assert_array_equal(results[0].labels, results[1].labels)
    normal = (image - np.array([100.0, 110, 120])) / np.array([50.0, 51, 52])
    with torch.no_grad():
        logits = model(torch.from_numpy(np.moveaxis(normal, -1, 0).astype(np.float32))[None])
    np.testing.assert_allclose(results[0].confidence, logits.softmax(1).amax(1)[0], atol=1e-4)
    assert len(load(tmp_path / "model").model_hash) == 64


def test_a_folder_without_a_model_and_a_device_that_is_not_there_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"model\.toml"):
        load(tmp_path)
    model = create("segformer-b0", classes=2, bands=1)
    save_model(tmp_path / "model", model, card_of(model))
    with pytest.raises(ConfigError, match="'abacus'"):
        load(tmp_path / "model", device="abacus")


# Folders

PLAIN = TileOptions(), MapOptions()


def test_a_folder_gives_maps_of_scenes_and_pictures_of_photos_in_their_places(tmp_path):
    write_photo(tmp_path / "in/street/a.png", noise(3, 40, 50))
    write_scene(tmp_path / "in/scene.tif", noise(3, 70, 80))
    predictor = predictor_of()
    said: list[str] = []
    written = predict_folder(predictor, tmp_path / "in", tmp_path / "out", *PLAIN, report=said.append)
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == [
        *("scene.qml", "scene.sld", "scene.tif", "scene.tif.aux.xml", "street/a.overlay.jpg", "street/a.png")
    ]
    assert sorted(written) == sorted(tmp_path / "out" / name for name in made)
    assert len(said) == 2
    expected = predictor.segment(tmp_path / "in/street/a.png").labels
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/street/a.png")), expected)
    assert rasterio.open(tmp_path / "out/scene.tif").transform == NORTH_UP


def test_files_that_fail_are_named_at_the_end_and_the_others_are_done(tmp_path):
    for name in "abc":
        write_photo(tmp_path / f"in/{name}.png", noise(3, 40, 50))
    (tmp_path / "in/b.png").write_bytes((tmp_path / "in/b.png").read_bytes()[:2000])
    write_photo(tmp_path / "in/d.png", noise(4, 40, 50))
    Image.new("L", (50, 40)).save(tmp_path / "in/grey.png")
    with pytest.raises(PixelwiseError) as problem:
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out", *PLAIN)
    assert "2 of the images" in str(problem.value)
    assert "b.png" in str(problem.value)
    assert "grey.png has 1 band" in str(problem.value)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png", "d.png"]


def test_images_are_not_overwritten_and_results_are_not_taken_for_images(tmp_path):
    photo = write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    with pytest.raises(ConfigError, match="folder of the images themselves"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "in", *PLAIN)
    with pytest.raises(ConfigError, match="folder of the images themselves"):
        predict_folder(predictor_of(), photo, tmp_path / "in", *PLAIN)
    for _ in range(2):
        assert len(predict_folder(predictor_of(), tmp_path / "in", tmp_path / "in/out", *PLAIN)) == 2


def test_two_images_that_would_be_written_to_one_file_are_named_before_any_is(tmp_path):
    write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    write_photo(tmp_path / "in/a.jpg", noise(3, 40, 50))
    with pytest.raises(ConfigError, match=r"a\.png.*a\.jpg|a\.jpg.*a\.png"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out", *PLAIN)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.overlay.jpg", "s.tif"])
def test_a_file_of_somebody_else_in_the_folder_of_results_is_kept_and_the_others_are_done(tmp_path, name):
    write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    write_scene(tmp_path / "in/s.tif", noise(3, 40, 50))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes((tmp_path / "in/a.png").read_bytes())
    with pytest.raises(PixelwiseError, match=rf"1 of the images.*{name} is there and not from pixelwise"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out", *PLAIN)
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in/a.png").read_bytes()
    assert (tmp_path / "out" / ("a.png" if name == "s.tif" else "s.tif")).exists()


def test_a_scene_whose_map_would_be_the_confidence_of_another_is_named(tmp_path):
    for name in ("s.tif", "s.confidence.tif"):
        write_scene(tmp_path / "in" / name, noise(3, 40, 50))
    with pytest.raises(ConfigError, match=r"s\.confidence\.tif would be written to .*beside the map of .*s\.tif"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out", *PLAIN)
