"""Images that differ from what a model learned from: refused, converted, resampled, or warned of."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_network import card_of, noise, predictor_of, small_network, write_photo, write_scene

from pixelwise.data.contract import Contract, colour_traits, contract_of, looks_reversed, unit_top
from pixelwise.data.scenes import Scene
from pixelwise.errors import ContractWarning, DataError
from pixelwise.geo.raster import RasterReader, Window
from pixelwise.inference.resampled import ResampledLabels, ResampledReader, weights
from pixelwise.runs.model_folder import read_card, save_model


def contract(top: float, pixel: float | None = None) -> Contract:
    return Contract((0.02 * top,) * 3, (top,) * 3, pixel)


def reflectance(dtype: str, scale: float) -> np.ndarray:
    return (np.random.default_rng(3).integers(100, 4000, (3, 40, 50)) * scale).astype(dtype)


def test_reflectance_of_0_to_1_is_refused_by_a_model_of_10000_with_the_reason_and_converted_if_asked_for(tmp_path):
    predictor = predictor_of(dtype="uint16", contract=contract(3800.0))
    right = write_scene(tmp_path / "right.tif", reflectance("uint16", 1))
    other = write_scene(tmp_path / "other.tif", reflectance("float32", 1e-4))
    with pytest.raises(DataError, match=r"float32 .* uint16"):
        predictor.segment(other)
    with pytest.warns(ContractWarning, match=r"0 to 1 to 0 to 10,000: .* multiplied by 10000"):
        found = predictor.segment(other, units="convert")
    np.testing.assert_array_equal(found.labels, predictor.segment(right).labels)


def test_other_units_in_the_same_type_are_refused_too(tmp_path):
    predictor = predictor_of(dtype="float32", contract=contract(3800.0))
    other = write_scene(tmp_path / "other.tif", reflectance("float32", 1e-4))
    with pytest.raises(DataError, match=r"values up to 0\.39.* values up to 3800.*--units convert"):
        predictor.segment(other)
    right = write_scene(tmp_path / "right.tif", reflectance("float32", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContractWarning)
        expected = predictor.segment(right).labels
    with pytest.warns(ContractWarning):
        np.testing.assert_array_equal(predictor.segment(other, units="convert").labels, expected)


def test_16_bit_values_are_refused_by_an_8_bit_model_and_converted_if_asked_for(tmp_path):
    values = noise(3, 40, 50)
    predictor = predictor_of(contract=contract(250.0))
    wide = write_scene(tmp_path / "wide.tif", values.astype(np.uint16) * 257)
    with pytest.raises(DataError, match="uint16"):
        predictor.segment(wide)
    with pytest.warns(ContractWarning, match="0 to 65,535 to 0 to 255"):
        found = predictor.segment(wide, units="convert")
    np.testing.assert_array_equal(found.labels, predictor.segment(np.moveaxis(values, 0, -1)).labels)


def test_an_array_scaled_to_1_is_refused_by_an_8_bit_model_and_floats_in_its_units_are_not():
    values = np.moveaxis(noise(3, 40, 50), 0, -1)
    predictor = predictor_of(contract=contract(250.0))
    expected = predictor.segment(values).labels
    np.testing.assert_array_equal(predictor.segment(values.astype(np.float32)).labels, expected)
    with pytest.raises(DataError, match="its units differ"):
        predictor.segment((values / 255).astype(np.float32))


def test_units_that_are_no_common_ones_are_not_guessed(tmp_path):
    decibel = np.random.default_rng(0).normal(-12, 3, (3, 40, 50)).astype(np.float32)
    path = write_scene(tmp_path / "sar.tif", decibel)
    with pytest.raises(DataError, match="no common unit"):
        predictor_of(contract=contract(250.0)).segment(path, units="convert")


@pytest.mark.parametrize(
    ("dtype", "low", "high", "top"),
    [
        *[("uint8", 0, 30, 255), ("float32", 0.01, 0.6, 1), ("float64", 3, 240, 255), ("uint16", 100, 3500, 10_000)],
        *[("int16", 100, 9000, 10_000), ("uint16", 900, 60_000, 65_535), ("float32", -20, -3, None)],
    ],
)
def test_units_are_told_by_type_and_range(dtype, low, high, top):
    assert unit_top(dtype, low, high) == top


def test_a_model_folder_of_before_contracts_takes_any_units_of_its_type_without_a_word(tmp_path):
    values = reflectance("float32", 1e-4)
    path = write_scene(tmp_path / "a.tif", values)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContractWarning)
        assert predictor_of(dtype="float32").segment(path).labels.shape == (40, 50)


def test_a_contract_travels_in_the_model_folder(tmp_path):
    network = small_network()
    kept = Contract((1.0, 2.0, 3.0), (9.0, 8.0, 7.0), 0.5, (0.1, 0.2, 0.3), ((1.0, 0.0, 0.0),) * 3)
    for name, each in (("new", kept), ("unplaced", Contract((0.0,) * 3, (1.0,) * 3)), ("old", None)):
        card = replace(card_of(network), architecture=replace(network.architecture, name="unet"), contract=each)
        save_model(tmp_path / name, network, card)
        assert read_card(tmp_path / name)[0].contract == each


# Ground resolution


def test_another_ground_resolution_is_warned_of_and_the_same_is_not(tmp_path):
    path = write_scene(tmp_path / "a.tif", noise(3, 64, 96))
    with pytest.warns(ContractWarning, match=r"pixels of 2 m .* had 10 m.*--resolution model"):
        predictor_of(contract=contract(250.0, 10.0)).segment(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContractWarning)
        predictor_of(contract=contract(250.0, 2.2)).segment(path)


def test_at_the_models_resolution_labels_are_those_of_the_mean_of_each_square(tmp_path):
    values = noise(3, 64, 96)
    path = write_scene(tmp_path / "a.tif", values)
    predictor = predictor_of(contract=contract(250.0, 4.0))
    means = np.rint(values.reshape(3, 32, 2, 48, 2).mean(axis=(2, 4))).astype(np.uint8)
    found = predictor.segment(path, resolution="model")
    np.testing.assert_array_equal(found.labels, predictor.segment(np.moveaxis(means, 0, -1)).labels)


def test_a_map_at_the_models_resolution_covers_the_same_ground_and_goes_on_after_a_stop(tmp_path):
    # 130 rows do not divide by the factor.
    path = write_scene(tmp_path / "a.tif", noise(3, 130, 96))
    predictor = predictor_of(contract=contract(250.0, 5.0))
    made = predictor.map_scene(path, tmp_path / "map.tif", resolution="model")
    with rasterio.open(path) as scene, rasterio.open(made.path) as mapped:
        np.testing.assert_allclose(mapped.bounds, scene.bounds, atol=1e-6)
        assert mapped.crs == scene.crs
        assert mapped.shape == (52, 38)
        labels = mapped.read(1)
    np.testing.assert_array_equal(labels, predictor.segment(path, resolution="model").labels)

    def stop(share: float) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predictor.map_scene(path, tmp_path / "again.tif", resolution="model", advance=stop)
    predictor.map_scene(path, tmp_path / "again.tif", resolution="model")
    assert (tmp_path / "again.tif").read_bytes() == (tmp_path / "map.tif").read_bytes()


def test_a_photo_has_no_resolution_to_take_it_to(tmp_path):
    photo = write_photo(tmp_path / "a.png", noise(3, 40, 50))
    with pytest.raises(DataError, match="no ground resolution"):
        predictor_of(contract=contract(250.0, 1.0)).segment(photo, resolution="model")


class Held:
    """Values and validity, read like a file."""

    def __init__(self, values: np.ndarray, valid: np.ndarray, like: RasterReader) -> None:
        self.values, self.valid = values, valid
        self.info = replace(like.info, height=values.shape[1], width=values.shape[2])

    def read(self, window: Window):
        part = np.s_[window.top : window.top + window.height, window.left : window.left + window.width]
        return self.values[:, *part], self.valid[part]


@pytest.fixture(scope="module")
def any_reader(tmp_path_factory):
    return RasterReader(write_scene(tmp_path_factory.mktemp("any") / "a.tif", noise(1, 8, 8)))


@given(st.floats(0.2, 6.0), st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_window_of_a_resampled_image_is_that_part_of_the_whole(any_reader, factor, height, width, data):
    rng = np.random.default_rng(height)
    held = Held(rng.normal(size=(2, height, width)), rng.random((height, width)) > 0.2, any_reader)
    reader = ResampledReader(held, factor)
    high, wide = reader.info.height, reader.info.width
    values, valid = reader.read(Window(0, 0, high, wide))
    assert values.shape == (2, high, wide)
    top, left = data.draw(st.integers(0, high - 1)), data.draw(st.integers(0, wide - 1))
    window = Window(top, left, data.draw(st.integers(1, high - top)), data.draw(st.integers(1, wide - left)))
    part, part_valid = reader.read(window)
    at = np.s_[window.top : window.top + window.height, window.left : window.left + window.width]
    np.testing.assert_allclose(part, values[:, *at], atol=1e-9)
    np.testing.assert_array_equal(part_valid, valid[at])


@given(st.floats(0.1, 9.0), st.integers(1, 60))
def test_weights_of_old_pixels_add_up_to_1_and_lie_within_the_image(step, length):
    count = max(1, round(length / step))
    low, found = weights(0, count, length / count, length)
    assert low == 0
    assert found.shape[1] <= length
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_pillow_shrinks_to_the_same_means(any_reader):
    values = np.random.default_rng(1).normal(size=(60, 84)).astype(np.float32)
    reader = ResampledReader(Held(values[None], np.ones(values.shape, bool), any_reader), 2.4)
    size = reader.info.width, reader.info.height
    expected = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BOX, reducing_gap=None))
    found, _ = reader.read(Window(0, 0, size[1], size[0]))
    # Pillow counts a pixel that a square covers in part as whole or not at all; means over 2.4 pixels differ little.
    assert np.abs(found[0] - expected).mean() < 0.2
    exact = ResampledReader(Held(values[None], np.ones(values.shape, bool), any_reader), 3.0)
    found, _ = exact.read(Window(0, 0, 20, 28))
    np.testing.assert_allclose(found[0], np.asarray(Image.fromarray(values).reduce(3)), atol=1e-5)


def test_pixels_without_data_are_in_no_mean(any_reader):
    values, valid = np.full((1, 4, 4), 7.0), np.ones((4, 4), bool)
    values[0, 0, 0], valid[0, 0] = 1e9, False
    values[0, 2:, 2:], valid[2:, 2:] = 1e9, False
    found, seen = ResampledReader(Held(values, valid, any_reader), 2.0).read(Window(0, 0, 2, 2))
    np.testing.assert_array_equal(seen, [[True, True], [True, False]])
    np.testing.assert_allclose(found[0][seen], 7)


def test_labels_at_another_resolution_are_those_at_the_middle_of_each_pixel(any_reader):
    mask = np.arange(30, dtype=np.int16).reshape(5, 6)

    class Drawn:
        def read(self, window: Window) -> np.ndarray:
            return mask[window.top : window.top + window.height, window.left : window.left + window.width]

    original = replace(any_reader.info, height=5, width=6)
    large = ResampledLabels(Drawn(), original, replace(original, height=10, width=12))
    np.testing.assert_array_equal(large.read(Window(0, 0, 10, 12)), np.kron(mask, np.ones((2, 2), int)))
    small = ResampledLabels(Drawn(), original, replace(original, height=1, width=2))
    np.testing.assert_array_equal(small.read(Window(0, 0, 1, 2)), [[mask[2, 1], mask[2, 4]]])


# The order of bands


def sandy(seed: int) -> np.ndarray:
    """Make a photo with more red than blue, as of dry ground."""
    rng = np.random.default_rng(seed)
    light = rng.normal(0, 20, (64, 64))
    bands = [150 + light, 125 + 0.9 * light, 90 + 0.5 * light]
    return (np.stack(bands) + rng.normal(0, 4, (3, 64, 64))).clip(0, 255).astype(np.uint8)


class NoLabels:
    def read(self, window: Window) -> np.ndarray:
        return np.zeros((window.height, window.width), np.int16)


def test_photos_with_red_and_blue_exchanged_are_told_from_those_that_were_trained_on(tmp_path):
    paths = [write_photo(tmp_path / f"{i}.png", sandy(i)) for i in range(12)]
    found = contract_of([Scene(str(i), RasterReader(path), NoLabels()) for i, path in enumerate(paths)])
    assert found is not None
    np.testing.assert_allclose(
        found.high, np.percentile(np.stack([sandy(i) for i in range(12)]), 99, (0, 2, 3)), atol=1
    )
    predictor = predictor_of(contract=found)
    bgr = write_photo(tmp_path / "bgr.png", sandy(99)[::-1])
    with pytest.warns(ContractWarning, match="BGR instead of RGB"):
        predictor.segment(bgr)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ContractWarning)
        predictor.segment(write_photo(tmp_path / "rgb.png", sandy(99)))


def test_where_bands_are_alike_no_order_is_guessed(tmp_path):
    rng = np.random.default_rng(0)
    paths = [write_photo(tmp_path / f"{i}.png", rng.integers(0, 255, (3, 64, 64), np.uint8)) for i in range(10)]
    found = contract_of([Scene(str(i), RasterReader(path), NoLabels()) for i, path in enumerate(paths)])
    assert found is not None
    assert not any(looks_reversed(rng.integers(0, 255, (3, 4000)), found) for _ in range(20))
    assert colour_traits(np.stack([np.arange(200.0)] * 3)) is None
