import re

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from pixelwise.data.folder import MASK_ENDINGS, find_images, pair_masks
from pixelwise.data.masks import open_mask
from pixelwise.errors import DataError
from pixelwise.geo.raster import Window, describe
from pixelwise.labels import IGNORE, make_classes, make_mask_table

CLASSES = make_classes(["a", "b", "c"])


def put(path, array, **profile):
    """Write a picture, or a TIFF with the profile that is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
        return path
    bands = array[None] if array.ndim == 2 else array
    shape = {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as out:
        out.write(bands)
    return path


def grey(height=6, width=8, value=0):
    return np.full((height, width), value, np.uint8)


def whole(path):
    info = describe(path)
    return Window(0, 0, info.height, info.width)


def read(mask, image, table=None):
    return open_mask(mask, describe(image), table or make_mask_table(CLASSES)).read(whole(mask))


@pytest.mark.parametrize("ending", MASK_ENDINGS)
def test_a_mask_is_found_by_its_images_name_whatever_its_suffix_and_ending(tmp_path, ending):
    images = [put(tmp_path / f"images/{name}.tif", grey()) for name in ("sub/one", "two")]
    masks = [put(tmp_path / f"masks/{name}{ending}.png", grey()) for name in ("sub/one", "two")]
    assert pair_masks(tmp_path / "images", tmp_path / "masks") == (list(zip(images, masks, strict=True)), [])


def test_one_image_and_one_mask_are_a_pair_whatever_their_names(tmp_path):
    image, mask = put(tmp_path / "x.tif", grey()), put(tmp_path / "y.png", grey())
    assert pair_masks(image, mask) == ([(image, mask)], [])


def test_an_image_without_a_mask_is_named(tmp_path):
    for name in ("one", "two"):
        put(tmp_path / f"images/{name}.png", grey())
    put(tmp_path / "masks/one.png", grey())
    _, problems = pair_masks(tmp_path / "images", tmp_path / "masks")
    assert re.search(r"two\.png has no mask", str(problems[0].error))
    assert len(problems) == 1


def test_a_mask_in_another_subfolder_is_not_that_of_the_image(tmp_path):
    put(tmp_path / "images/east/1.png", grey())
    put(tmp_path / "masks/west/1.png", grey())
    _, problems = pair_masks(tmp_path / "images", tmp_path / "masks")
    assert re.search(r"east/1\.png has no mask", str(problems[0].error))
    assert len(problems) == 1


def test_two_masks_of_one_image_are_both_named(tmp_path):
    put(tmp_path / "images/one.png", grey())
    put(tmp_path / "masks/one.png", grey())
    put(tmp_path / "masks/one_mask.png", grey())
    _, problems = pair_masks(tmp_path / "images", tmp_path / "masks")
    assert re.search(r"masks/one\.png.*masks/one_mask\.png", str(problems[0].error))
    assert len(problems) == 1


def test_hidden_files_and_other_suffixes_are_no_images(tmp_path):
    kept = put(tmp_path / "one.png", grey())
    put(tmp_path / "._one.png", grey())
    (tmp_path / "notes.txt").write_text("")
    assert find_images(tmp_path) == [kept]


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*none"):
        find_images(tmp_path / "none")
    with pytest.raises(DataError, match="has no images"):
        find_images(tmp_path)


def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path):
    image, mask = put(tmp_path / "image.png", grey(6, 8)), put(tmp_path / "mask.png", grey(8, 6))
    with pytest.raises(DataError, match=r"mask\.png is 6x8.*image\.png is 8x6"):
        read(mask, image)


def test_a_mask_that_lies_elsewhere_is_named(tmp_path):
    crs = CRS.from_epsg(32633)
    image = put(tmp_path / "image.tif", grey(), crs=crs, transform=Affine(1, 0, 100, 0, -1, 100))
    mask = put(tmp_path / "mask.tif", grey(), crs=crs, transform=Affine(1, 0, 140, 0, -1, 100))
    with pytest.raises(DataError, match=r"mask\.tif is elsewhere"):
        read(mask, image)


def test_a_mask_of_floats_is_named(tmp_path):
    image, mask = put(tmp_path / "image.png", grey()), put(tmp_path / "mask.tif", grey().astype(np.float32))
    with pytest.raises(DataError, match=r"mask\.tif holds float32"):
        read(mask, image)


def test_a_paletted_mask_is_read_by_its_indices(tmp_path):
    indices = np.array([[0, 1], [2, 255]], np.uint8)
    picture = Image.frombytes("P", (2, 2), indices.tobytes())
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0] + [0] * 759)
    picture.save(tmp_path / "mask.png")
    image = put(tmp_path / "image.png", grey(2, 2))
    assert read(tmp_path / "mask.png", image).tolist() == [[0, 1], [2, IGNORE]]


def test_a_paletted_mask_is_read_by_its_colours_where_the_table_is_of_colours(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.frombytes("P", (2, 2), indices.tobytes())
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / "mask.png")
    image = put(tmp_path / "image.png", grey(2, 2))
    table = make_mask_table(CLASSES, {"a": ["#00c800"], "b": ["#c80000"], "c": ["#090909"]})
    assert read(tmp_path / "mask.png", image, table).tolist() == [[2, 1], [0, 1]]


def test_an_rgb_mask_is_read_by_its_colours(tmp_path):
    colours = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [255, 255, 255]]], np.uint8)
    mask, image = put(tmp_path / "mask.png", colours), put(tmp_path / "image.png", grey(2, 2))
    values = {"a": ["#070809"], "b": ["#010203"], "c": ["#040506"]}
    table = make_mask_table(CLASSES, values, ["#ffffff"])
    assert read(mask, image, table).tolist() == [[1, 2], [0, IGNORE]]


def test_colours_that_nothing_maps_are_named_when_the_mask_is_opened(tmp_path):
    colours = grey()[..., None].repeat(3, axis=-1)
    colours[3, 4] = (200, 16, 1)
    mask, image = put(tmp_path / "mask.png", colours), put(tmp_path / "image.png", grey())
    with pytest.raises(DataError, match=r"mask\.png.*#c81001.*\[data\]\.values"):
        read(mask, image)


def test_an_rgb_mask_of_equal_bands_is_read_as_numbers(tmp_path):
    values = np.array([[0, 1], [2, 255]], np.uint8)
    mask = put(tmp_path / "mask.png", values[..., None].repeat(3, axis=-1))
    image = put(tmp_path / "image.png", grey(2, 2))
    assert read(mask, image).tolist() == [[0, 1], [2, IGNORE]]


def test_a_value_that_no_class_has_is_named_with_its_file(tmp_path):
    mask, image = put(tmp_path / "mask.png", grey(value=7)), put(tmp_path / "image.png", grey())
    with pytest.raises(DataError, match=r"mask\.png holds the value 7 .*48 pixels"):
        read(mask, image)


def test_nodata_of_the_file_is_ignored_although_no_class_has_it(tmp_path):
    mask = put(tmp_path / "mask.tif", np.array([[0, 1], [99, 2]], np.uint8), nodata=99)
    image = put(tmp_path / "image.png", grey(2, 2))
    assert read(mask, image).tolist() == [[0, 1], [IGNORE, 2]]


def test_nodata_of_the_file_that_is_a_class_here_stays_the_class(tmp_path):
    mask = put(tmp_path / "mask.tif", np.array([[0, 1], [0, 2]], np.uint8), nodata=0)
    image = put(tmp_path / "image.png", grey(2, 2))
    assert read(mask, image).tolist() == [[0, 1], [0, 2]]
