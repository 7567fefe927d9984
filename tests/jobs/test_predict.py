from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.env import get_gdal_config
from small_network import card_of, small_network

from pixelwise.errors import ConfigError, DataError, PixelwiseError, WeightsError
from pixelwise.jobs.model_folder import save_model
from pixelwise.jobs.predict import Predictor, load, predict_folder
from pixelwise.models import create

NORTH_UP = rasterio.Affine(2, 0, 500_000, 0, -2, 4_600_000)


def predictor_of(*, bands: int = 3, classes: int = 3, seed: int = 0, **card: object) -> Predictor:
    network = small_network(bands=bands, classes=classes, seed=seed)
    return Predictor(network, card_of(network, **card), "0123abcd")


def noise(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (bands, height, width), np.uint8)


def write_scene(path: Path, values: np.ndarray, *, transform=NORTH_UP, crs=32616, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    options = {"driver": "GTiff", "dtype": values.dtype, "crs": crs, "transform": transform, **options}
    with rasterio.open(path, "w", height=height, width=width, count=bands, **options) as file:
        file.write(values)
    return path


def write_photo(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.moveaxis(values, 0, -1)).save(path)
    return path


def runs(predictor: Predictor) -> int:
    return len(predictor.model.encoder.seen)


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


# What is saved


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


# Scenes


TRANSFORMS = {
    "north up": NORTH_UP,
    "south up": rasterio.Affine(2, 0, 500_000, 0, 2, 4_600_000),
    "rotated": rasterio.Affine.translation(5e5, 4.6e6) @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(2, -2),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_map_has_the_size_and_the_place_of_its_scene(tmp_path, name):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130), transform=TRANSFORMS[name])
    made = predictor_of().map_scene(scene, tmp_path / "maps/new/map.tif")
    with rasterio.open(made.path) as written, rasterio.open(scene) as source:
        assert (written.width, written.height, written.count) == (130, 100, 1)
        assert written.crs == source.crs
        assert written.transform.almost_equals(source.transform)
        assert written.dtypes == ("uint8",)
        assert written.nodata == 255
    assert (made.height, made.width) == (100, 130)
    assert made.seconds > 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([(64, 0), (64, 32), (96, 32)]), st.integers(0, 9))
def test_a_map_holds_what_segment_says_and_counts_its_shares(tmp_path, height, width, grid, seed):
    values = noise(4, height, width, seed)
    values[3] = np.where(np.random.default_rng(seed).random((height, width)) < 0.2, 0, 255)
    scene = write_scene(tmp_path / "scene.tif", values, photometric="rgb", alpha="yes")
    predictor = predictor_of(seed=seed)
    made = predictor.map_scene(scene, tmp_path / "map.tif", tile=grid[0], overlap=grid[1], confidence=True)
    result = predictor.segment(scene, tile=grid[0], overlap=grid[1])
    labels, confidence = (rasterio.open(tmp_path / f"map{end}.tif").read(1) for end in ("", ".confidence"))
    np.testing.assert_array_equal(labels, result.labels)
    np.testing.assert_array_equal(labels == 255, values[3] == 0)
    assert np.abs(confidence / 254 - result.confidence)[result.valid].max(initial=0) <= 0.5 / 254 + 1e-6
    counted = [int((labels == i).sum()) for i in range(3)]
    assert [made.shares[f"class {i}"] for i in range(3)] == pytest.approx([n / max(1, sum(counted)) for n in counted])


def test_a_map_tells_how_it_was_made(tmp_path):
    import pixelwise as pw

    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    predictor_of().map_scene(scene, tmp_path / "map.tif", tile=96)
    with rasterio.open(tmp_path / "map.tif") as written:
        tags = written.tags()
    assert tags["PIXELWISE_VERSION"] == pw.__version__
    assert tags["PIXELWISE_MODEL"] == "0123abcd"
    assert tags["PIXELWISE_NETWORK"] == "small"
    assert (tags["PIXELWISE_TILE"], tags["PIXELWISE_OVERLAP"]) == ("96", "32")
    assert tags["PIXELWISE_DATE"].startswith("20")


def test_a_map_may_replace_an_older_one_and_leaves_nothing_else(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    shares: list[float] = []
    for _ in range(2):
        predictor_of().map_scene(scene, tmp_path / "map.tif", advance=shares.append)
    assert shares[-1] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "scene.tif"]


def test_a_truncated_scene_is_named_before_the_network_runs_and_an_older_map_stays(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 400, 400))
    scene.write_bytes(scene.read_bytes()[:300_000])
    (tmp_path / "map.tif").write_text("older")
    predictor = predictor_of()
    with pytest.raises(DataError, match=r"scene\.tif cannot be read.*truncated"):
        predictor.map_scene(scene, tmp_path / "map.tif")
    assert runs(predictor) == 0
    assert (tmp_path / "map.tif").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "scene.tif"]


def test_a_scene_that_is_corrupt_in_its_middle_is_named_and_leaves_no_map(tmp_path):
    scene = write_scene(
        tmp_path / "scene.tif", noise(3, 400, 400), tiled=True, blockxsize=64, blockysize=64, compress="deflate"
    )
    whole = scene.read_bytes()
    scene.write_bytes(whole[:200_000] + bytes(50_000) + whole[250_000:])
    with pytest.raises(DataError, match=r"scene\.tif cannot be read at rows"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_missing_scene_or_one_that_is_no_image_is_named(tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    for name in ("none.tif", "text.tif"):
        with pytest.raises(DataError, match=name):
            predictor_of().map_scene(tmp_path / name, tmp_path / "map.tif")
        with pytest.raises(DataError, match=name):
            predictor_of().segment(tmp_path / name)


def test_an_output_that_cannot_be_is_refused_before_the_network_runs(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    before = scene.read_bytes()
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link.tif").symlink_to(scene)
    predictor = predictor_of()
    for output, says in (
        ("scene.tif", "is the scene itself"),
        ("../" + tmp_path.name + "/scene.tif", "is the scene itself"),
        ("link.tif", "is the scene itself"),
        ("map.png", r"map\.png.*\.tif"),
        ("folder.tif", "is a folder"),
        ("file/map.tif", "a file is in the way"),
    ):
        with pytest.raises(ConfigError, match=says):
            predictor.map_scene(scene, tmp_path / output)
    assert runs(predictor) == 0
    assert scene.read_bytes() == before


def test_confidence_is_not_written_over_the_scene(tmp_path):
    scene = write_scene(tmp_path / "map.confidence.tif", noise(3, 100, 130))
    with pytest.raises(ConfigError, match=r"map\.confidence\.tif is the scene itself"):
        predictor_of().map_scene(scene, tmp_path / "map.tif", confidence=True)


@pytest.mark.parametrize(
    "options",
    [{"tile": 100}, {"tile": 32}, {"tile": 0}, {"overlap": 48}, {"overlap": 64}, {"overlap": -32}, {"tile": -64}],
)
def test_a_tile_or_an_overlap_that_cannot_be_is_refused(options):
    with pytest.raises(ConfigError, match="multiples of 32"):
        predictor_of().segment(np.zeros((40, 50, 3), np.uint8), **options)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(ConfigError, match="scales"):
        predictor_of().segment(np.zeros((40, 50, 3), np.uint8), scales=scales)


def test_the_cache_is_limited_while_a_scene_is_mapped_and_given_back(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 100, 130))
    limits: list[int] = []
    before = get_gdal_config("GDAL_CACHEMAX")
    predictor_of().map_scene(
        scene, tmp_path / "map.tif", advance=lambda _: limits.append(get_gdal_config("GDAL_CACHEMAX"))
    )
    assert set(limits) == {64 << 20}
    assert get_gdal_config("GDAL_CACHEMAX") == before


# Folders


def test_a_folder_gives_maps_of_scenes_and_pictures_of_photos_in_their_places(tmp_path):
    write_photo(tmp_path / "in/street/a.png", noise(3, 40, 50))
    write_scene(tmp_path / "in/scene.tif", noise(3, 70, 80))
    predictor = predictor_of()
    said: list[str] = []
    written = predict_folder(predictor, tmp_path / "in", tmp_path / "out", report=said.append)
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == ["scene.tif", "street/a.overlay.jpg", "street/a.png"]
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
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out")
    assert "2 of the images" in str(problem.value)
    assert "b.png" in str(problem.value)
    assert "grey.png has 1 band" in str(problem.value)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png", "d.png"]


def test_images_are_not_overwritten_and_results_are_not_taken_for_images(tmp_path):
    photo = write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    with pytest.raises(ConfigError, match="folder of the images themselves"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "in")
    with pytest.raises(ConfigError, match="folder of the images themselves"):
        predict_folder(predictor_of(), photo, tmp_path / "in")
    for _ in range(2):
        assert len(predict_folder(predictor_of(), tmp_path / "in", tmp_path / "in/out")) == 2


def test_two_images_that_would_be_written_to_one_file_are_named_before_any_is(tmp_path):
    write_photo(tmp_path / "in/a.png", noise(3, 40, 50))
    write_photo(tmp_path / "in/a.jpg", noise(3, 40, 50))
    with pytest.raises(ConfigError, match=r"a\.png.*a\.jpg|a\.jpg.*a\.png"):
        predict_folder(predictor_of(), tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


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
