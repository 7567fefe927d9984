from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from pixelwise.errors import ConfigError, DataError
from pixelwise.geo.raster import RasterReader, Window, clip_window, describe

UTM = CRS.from_epsg(32633)
NORTH_UP = Affine(2, 0, 500_000, 0, -2, 5_000_000)


def write(path, array, **profile):
    count, height, width = array.shape
    shape = {"count": count, "height": height, "width": width, "dtype": array.dtype}
    with rasterio.open(path, "w", driver="GTiff", **({"crs": UTM, "transform": NORTH_UP} | shape | profile)) as out:
        out.write(array)
    return path


def random_image(shape, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def read_all(path, **options):
    reader = RasterReader(path, **options)
    return reader.read(Window(0, 0, reader.info.height, reader.info.width))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write(tmp_path_factory.mktemp("scene") / "scene.tif", random_image((3, 70, 90), "uint16"))


@given(st.integers(0, 69), st.integers(0, 89), st.integers(1, 70), st.integers(1, 90))
def test_any_window_is_the_one_that_rasterio_reads(scene, top, left, height, width):
    window = Window(top, left, min(height, 70 - top), min(width, 90 - left))
    values, valid = RasterReader(scene).read(window)
    with rasterio.open(scene) as source:
        whole = source.read()
    np.testing.assert_array_equal(values, whole[:, top : top + window.height, left : left + window.width])
    assert valid.all()


@given(st.integers(-30, 69), st.integers(-30, 89), st.integers(31, 120), st.integers(31, 120))
def test_a_clipped_window_and_its_padding_are_the_window_again(top, left, height, width):
    inside, (above, below), (before, after) = clip_window(Window(top, left, height, width), 70, 90)
    rows = [row for row in range(top, top + height) if 0 <= row < 70]
    columns = [column for column in range(left, left + width) if 0 <= column < 90]
    assert inside == Window(rows[0], columns[0], len(rows), len(columns))
    assert (above, below) == (rows[0] - top, top + height - 1 - rows[-1])
    assert (before, after) == (columns[0] - left, left + width - 1 - columns[-1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "transform", [NORTH_UP, Affine(2, 0, 0, 0, 2, 0), NORTH_UP @ Affine.rotation(30)], ids=["north", "south", "rotated"]
)
def test_values_type_and_georeference_are_those_of_the_file(tmp_path, dtype, transform):
    image = random_image((2, 5, 7), dtype)
    path = write(tmp_path / "x.tif", image, transform=transform)
    values, valid = read_all(path)
    info = describe(path)
    np.testing.assert_array_equal(values, image)
    assert values.dtype == dtype
    assert valid.all()
    assert (info.dtype, info.height, info.width, info.count, info.crs) == (dtype, 5, 7, 2, UTM)
    assert info.transform.almost_equals(transform)


@pytest.mark.parametrize("bands", [[2], [3, 1], [1, 1, 2]])
def test_bands_are_read_in_the_order_that_is_asked_for(tmp_path, bands):
    image = random_image((3, 4, 5))
    values, _ = read_all(write(tmp_path / "x.tif", image), bands=bands)
    np.testing.assert_array_equal(values, image[[band - 1 for band in bands]])


def test_a_band_that_the_file_does_not_have_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"has 3 bands.*no band 4"):
        RasterReader(write(tmp_path / "x.tif", random_image((3, 4, 5))), bands=[1, 4])


def test_nodata_in_any_band_is_no_data_but_0_only_in_all_bands(tmp_path):
    image = np.array([[[7, 7, 1, 0, 0]], [[7, 1, 7, 0, 1]]], np.int16)
    path = write(tmp_path / "x.tif", image)
    assert read_all(path)[1].tolist() == [[True] * 5]
    assert read_all(path, nodata=7)[1].tolist() == [[False, False, False, True, True]]
    assert read_all(path, nodata=0)[1].tolist() == [[True, True, True, False, True]]
    named = write(tmp_path / "named.tif", image, nodata=7)
    assert read_all(named)[1].tolist() == [[False, False, False, True, True]]
    assert read_all(named, nodata=0)[1].tolist() == [[True, True, True, False, True]]


def test_nan_and_infinity_are_no_data_in_any_band(tmp_path):
    image = np.array([[[np.nan, 1, np.inf, 0]], [[1, np.nan, 1, 0]]], np.float32)
    for nodata in (None, np.nan):
        path = write(tmp_path / f"{nodata}.tif", image, nodata=nodata)
        assert read_all(path)[1].tolist() == [[False, False, False, True]]


def test_alpha_is_no_band_and_where_it_is_0_there_is_no_data(tmp_path):
    image = random_image((4, 6, 6))
    image[3] = random_image((6, 6), seed=1) % 3
    path = write(tmp_path / "x.tif", image, photometric="rgb", alpha="yes")
    values, valid = read_all(path)
    assert describe(path).alpha == 4
    np.testing.assert_array_equal(values, image[:3])
    np.testing.assert_array_equal(valid, image[3] != 0)


def test_alpha_may_stand_before_the_colours(tmp_path):
    image = random_image((2, 6, 6)) % 2
    path = write(tmp_path / "x.tif", image)
    with rasterio.open(path, "r+") as source:
        source.colorinterp = [ColorInterp.alpha, ColorInterp.gray]
    values, valid = read_all(path)
    np.testing.assert_array_equal(values, image[1:])
    np.testing.assert_array_equal(valid, image[0] != 0)


def test_a_mask_inside_the_file_says_where_there_is_no_data(tmp_path):
    path = write(tmp_path / "x.tif", random_image((3, 6, 6)))
    mask = random_image((6, 6), seed=1) > 100
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as source:
        source.write_mask(mask)
    np.testing.assert_array_equal(read_all(path)[1], mask)


def picture(path, shape=(512, 512)):
    image = Image.fromarray(random_image(shape))
    image.save(path, **({"compression": "tiff_deflate"} if path.suffix == ".tif" else {}))
    return path


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
@pytest.mark.parametrize("shape", [(512, 512), (300, 300, 3)], ids=["grey", "rgb"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, name, shape, share):
    path = picture(tmp_path / name, shape)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=name):
        read_all(path)


@given(st.integers(1, 60))
def test_a_png_that_lacks_its_last_bytes_is_an_error_or_read_whole(tmp_path_factory, count):
    path = picture(tmp_path_factory.mktemp("cut") / "x.png", (40, 40))
    path.write_bytes(path.read_bytes()[:-count])
    if count >= 12:
        with pytest.raises(DataError, match=r"x\.png"):
            read_all(path)
        return
    # A part of the last chunk is there, so nothing of the image itself is lost.
    with suppress(DataError):
        np.testing.assert_array_equal(read_all(path)[0][0], random_image((40, 40)))


def test_a_whole_png_reads_as_pillow_reads_it_also_with_bytes_after_its_end(tmp_path):
    path = picture(tmp_path / "x.png", (60, 40, 3))
    expected = np.moveaxis(np.asarray(Image.open(path)), -1, 0)
    path.write_bytes(path.read_bytes() + b"more")
    np.testing.assert_array_equal(read_all(path)[0], expected)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_a_file_that_is_empty_or_no_image_is_an_error_that_names_it(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        describe(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*none\.tif"):
        describe(tmp_path / "none.tif")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["palette", "16 bits", "1 bit", "bmp"])
def test_truncated_pictures_of_all_kinds_are_errors(tmp_path, kind, share):
    grey = random_image((200, 150))
    image = {
        "palette": Image.fromarray(random_image((200, 150, 3))).quantize(100),
        "16 bits": Image.fromarray(grey.astype(np.uint16) * 250),
        "1 bit": Image.fromarray(grey > 127),
        "bmp": Image.fromarray(grey),
    }[kind]
    path = tmp_path / ("x.bmp" if kind == "bmp" else "x.png")
    image.save(path)
    expected = np.asarray(image).astype(int)
    np.testing.assert_array_equal(read_all(path)[0][0] != 0, expected != 0)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=path.name):
        read_all(path)


def test_many_threads_read_what_one_reads(scene):
    reader = RasterReader(scene)
    windows = [Window(top, left, 20, 30) for top in range(0, 50, 5) for left in range(0, 60, 5)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(reader.read, windows))
    whole, _ = read_all(scene)
    for window, (values, _) in zip(windows, together, strict=True):
        rows, columns = slice(window.top, window.top + 20), slice(window.left, window.left + 30)
        np.testing.assert_array_equal(values, whole[:, rows, columns])
