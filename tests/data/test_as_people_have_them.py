"""Photos, masks, bands and folders as people have them."""

import os
import re

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image, ImageOps
from rasterio.enums import ColorInterp

from pixelwise.config import DataConfig
from pixelwise.data.check import require_usable, survey
from pixelwise.data.folder import find_images
from pixelwise.data.scenes import open_scenes
from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterReader, Window, describe
from pixelwise.labels import IGNORE

UTM = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 18, 3), np.uint8)
EXACT = {"webp": {"lossless": True}, "jpg": {"subsampling": 0, "quality": 95}}
MASK = RNG.integers(0, 2, (12, 18), np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def tif(path, array, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as out:
        out.write(array)
    return path


def scenes_of(folder, **data):
    table = {"images": folder / "images", "labels": folder / "masks", "classes": ["a", "b"]} | data
    return open_scenes(DataConfig(**table))


def whole(path, **options):
    reader = RasterReader(path, **options)
    return reader.read(Window(0, 0, reader.info.height, reader.info.width))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_photos_are_turned_as_pillow_turns_them_also_window_by_window(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = save(tmp_path / f"x.{suffix}", PHOTO, exif=exif, **EXACT.get(suffix, {}))
    with Image.open(path) as image:
        upright = np.moveaxis(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), -1, 0)
    values, valid = whole(path)
    # Two libraries may round a JPEG apart.
    np.testing.assert_allclose(values.astype(int), upright, rtol=0, atol=4 if suffix == "jpg" else 0)
    assert valid.shape == upright.shape[1:]
    part, _ = RasterReader(path).read(Window(2, 3, 5, 7))
    np.testing.assert_array_equal(part, values[:, 2:7, 3:10])


def test_a_mask_that_fits_only_the_pixels_before_they_are_turned_is_told_of_exif(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    save(tmp_path / "images/x.jpg", PHOTO, exif=exif)
    save(tmp_path / "masks/x.png", np.rot90(MASK, -1).copy())
    _, (scene,) = scenes_of(tmp_path)
    np.testing.assert_array_equal(scene.read(scene.whole).mask, np.rot90(MASK, -1))
    save(tmp_path / "masks/x.png", MASK)
    with pytest.raises(DataError, match="EXIF orientation"):
        scenes_of(tmp_path)


def test_a_photo_with_a_palette_is_read_in_its_colours(tmp_path):
    photo = Image.fromarray(PHOTO).quantize(16)
    save(tmp_path / "images/x.png", photo)
    save(tmp_path / "masks/x.png", MASK)
    _, (scene,) = scenes_of(tmp_path)
    np.testing.assert_array_equal(scene.read(scene.whole).values, np.moveaxis(np.asarray(photo.convert("RGB")), -1, 0))


def test_grey_and_coloured_photos_of_one_folder_are_all_read_in_colours(tmp_path):
    save(tmp_path / "images/colour.png", PHOTO)
    save(tmp_path / "images/grey.png", PHOTO[..., 0])
    for name in ("colour", "grey"):
        save(tmp_path / f"masks/{name}.png", MASK)
    classes, scenes = scenes_of(tmp_path)
    assert survey(scenes, classes).notes == ()
    np.testing.assert_array_equal(scenes[1].read(scenes[1].whole).values, np.stack([PHOTO[..., 0]] * 3))
    assert [scene.reader.bands for scene in scenes] == [(1, 2, 3)] * 2


@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_files_of_several_pages_are_refused(tmp_path, suffix):
    pages = [Image.fromarray(PHOTO // (i + 1)) for i in range(3)]
    pages[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"holds 3 pages"):
        describe(tmp_path / f"x.{suffix}")


@pytest.mark.parametrize("bands", [2, 5])
def test_masks_of_two_or_five_bands_are_refused(tmp_path, bands):
    save(tmp_path / "images/x.png", PHOTO)
    tif(tmp_path / "masks/x.tif", np.stack([MASK] * bands), photometric="minisblack", alpha="unspecified")
    with pytest.raises(DataError, match=rf"{bands} bands besides alpha"):
        scenes_of(tmp_path)


@pytest.mark.parametrize(
    "place", [Affine(2.01, 0, 500_000, 0, -2.01, 5_000_000), Affine(2, 0, 500_002, 0, -2, 5_000_000)]
)
def test_a_mask_with_other_pixels_lies_elsewhere(tmp_path, place):
    side = np.zeros((1, 200, 200), np.uint8)
    tif(tmp_path / "images/x.tif", side, **UTM)
    tif(tmp_path / "masks/x.tif", side, **UTM | {"transform": place})
    with pytest.raises(DataError, match="elsewhere on the ground"):
        scenes_of(tmp_path)
    # PROJ itself refuses degrees of 5,000,000.
    for system in ("EPSG:32634", "EPSG:4326"):
        tif(tmp_path / "masks/x.tif", side, **UTM | {"crs": system})
        with pytest.raises(DataError, match="elsewhere on the ground"):
            scenes_of(tmp_path)
    tif(tmp_path / "masks/x.tif", side, **UTM)
    assert len(scenes_of(tmp_path)[1]) == 1


def test_a_mapped_colour_is_its_class_though_the_file_calls_it_transparent_or_nodata(tmp_path):
    save(tmp_path / "images/x.png", PHOTO)
    colours = np.array([[0, 0, 0], [128, 0, 0]], np.uint8)[MASK]
    values = {"a": ["#000000"], "b": ["#800000"]}
    saves = {
        "key.png": lambda path: save(path, colours, transparency=(128, 0, 0)),
        "alpha.png": lambda path: save(path, np.dstack([colours, MASK * 255])),
        "nodata.tif": lambda path: tif(path, np.moveaxis(colours, -1, 0), nodata=128),
    }
    for name, write in saves.items():
        path = tmp_path / f"masks/x.{name.split('.')[1]}"
        path.parent.mkdir(exist_ok=True)
        write(path)
        _, (scene,) = scenes_of(tmp_path, values=values)
        np.testing.assert_array_equal(scene.read(scene.whole).mask, MASK, err_msg=name)
        path.unlink()


def test_of_numbers_alpha_says_what_is_no_label(tmp_path):
    save(tmp_path / "images/x.png", PHOTO)
    save(tmp_path / "masks/x.png", Image.fromarray(np.dstack([MASK, MASK * 255]), "LA"))
    _, (scene,) = scenes_of(tmp_path)
    np.testing.assert_array_equal(scene.read(scene.whole).mask, np.where(MASK == 1, 1, IGNORE))


def test_a_listed_band_is_data_though_the_file_calls_it_alpha(tmp_path):
    image = RNG.integers(0, 200, (4, 30, 30)).astype(np.uint8)
    path = tif(tmp_path / "images/x.tif", image, photometric="rgb", alpha="yes")
    save(tmp_path / "masks/x.png", (image[0] > 100).astype(np.uint8))
    assert describe(path).alpha == 4
    values, valid = whole(path, bands=[4, 1])
    np.testing.assert_array_equal(values, image[[3, 0]])
    assert valid.all()
    classes, scenes = scenes_of(tmp_path)
    (note,) = survey(scenes, classes).notes
    assert re.search(r"x\.tif calls its band 4 alpha.*bands = \[1, 2, 3, 4\]", note)
    classes, scenes = scenes_of(tmp_path, bands=[1, 2, 3, 4])
    assert survey(scenes, classes).notes == ()


def test_each_band_has_its_own_nodata_and_that_of_8_bit_colours_counts_where_all_have_it(tmp_path):
    bands = np.array([[[5, 5, 9, 1]], [[9, 1, 9, 5]]], np.uint16)
    path = tif(tmp_path / "x.tif", bands)
    for nodata, expected in ((None, [True] * 4), (5, [False, False, True, False])):
        assert whole(path, nodata=nodata)[1][0].tolist() == expected
    text = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"><NoDataValue>{nodata}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">x.tif</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, nodata in ((1, 5), (2, 9))
    )
    (tmp_path / "x.vrt").write_text(f'<VRTDataset rasterXSize="4" rasterYSize="1">{text}</VRTDataset>')
    assert whole(tmp_path / "x.vrt")[1][0].tolist() == [False, False, False, True]
    colours = np.array([[[255, 255, 1]], [[255, 3, 1]], [[255, 3, 1]]], np.uint8)
    assert whole(tif(tmp_path / "rgb.tif", colours, nodata=255))[1][0].tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers_are_refused(tmp_path, dtype):
    shape = {"count": 1, "height": 4, "width": 4, "dtype": dtype}
    with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", **shape):
        pass
    with pytest.raises(DataError, match=r"holds complex numbers.*imaginary"):
        RasterReader(tmp_path / "x.tif")


def test_pixels_of_no_size_and_control_points_are_told(tmp_path):
    flat = tif(tmp_path / "flat.tif", PHOTO[None, ..., 0], **UTM | {"transform": Affine(0, 0, 1, 0, 0, 2)})
    with pytest.raises(DataError, match="size 0"):
        describe(flat)
    points = [rasterio.control.GroundControlPoint(r, c, 500_000 + c, 5_000_000 - r) for r in (0, 9) for c in (0, 9)]
    info = describe(tif(tmp_path / "gcp.tif", PHOTO[None, ..., 0], gcps=points, crs="EPSG:32633"))
    assert [(point.row, point.col) for point in info.gcps] == [(point.row, point.col) for point in points]
    assert info.gcps_crs is not None


def test_links_are_followed_once_and_hidden_folders_left_out(tmp_path):
    store = save(tmp_path / "store/far.png", PHOTO).parent
    own = save(tmp_path / "images/north/a.png", PHOTO)
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git"):
        save(tmp_path / f"images/{name}/a.png", PHOTO)
    (tmp_path / "images/tiles.tif").mkdir()
    (tmp_path / "images/all").symlink_to(own.parent)
    (tmp_path / "images/loop").symlink_to(tmp_path / "images")
    (tmp_path / "images/south").symlink_to(store)
    assert find_images(tmp_path / "images") == [own, tmp_path / "images/south/far.png"]


def test_scenes_of_one_name_keep_names_of_their_own(tmp_path):
    for name in ("north/a", "south/a", "south/b"):
        save(tmp_path / f"images/{name}.png", PHOTO)
        save(tmp_path / f"masks/{name}.png", MASK)
    assert [scene.name for scene in scenes_of(tmp_path)[1]] == ["north/a", "south/a", "b"]


def test_masks_are_found_by_patterns_also_in_the_images_own_folder(tmp_path):
    for i in range(2):
        save(tmp_path / f"both/{i}_photo.jpg", PHOTO)
        save(tmp_path / f"both/gt_{i}_labelIds.png", MASK)
    patterns = {"image_pattern": "{name}_photo.jpg", "mask_pattern": "gt_{name}_labelIds"}
    _, scenes = scenes_of(tmp_path, images=tmp_path / "both", labels=tmp_path / "both", **patterns)
    assert [scene.info.path.name for scene in scenes] == ["0_photo.jpg", "1_photo.jpg"]
    np.testing.assert_array_equal(scenes[0].read(scenes[0].whole).mask, MASK)


def test_images_and_masks_in_one_folder_are_told_apart_by_the_masks_endings(tmp_path):
    save(tmp_path / "both/x.jpg", PHOTO)
    with pytest.raises(DataError, match=r"x\.jpg has no mask.*NAME_mask\.png"):
        scenes_of(tmp_path, images=tmp_path / "both", labels=tmp_path / "both")
    save(tmp_path / "both/x_mask.png", MASK)
    assert len(scenes_of(tmp_path, images=tmp_path / "both", labels=tmp_path / "both")[1]) == 1


def test_several_folders_of_images_have_labels_each(tmp_path):
    for i, name in enumerate(("one", "two")):
        save(tmp_path / f"{name}/images/x.png", PHOTO)
        save(tmp_path / f"{name}/masks/x.png", np.full_like(MASK, i))
    folders = {key: [tmp_path / name / key for name in ("one", "two")] for key in ("images", "masks")}
    _, scenes = scenes_of(tmp_path, images=folders["images"], labels=folders["masks"])
    assert [int(scene.read(scene.whole).mask.max()) for scene in scenes] == [0, 1]
    assert len({scene.name for scene in scenes}) == 2


def test_a_mask_in_another_subfolder_is_named_with_the_place_where_it_is_looked_for(tmp_path):
    save(tmp_path / "images/town/x.png", PHOTO)
    save(tmp_path / "masks/x.png", MASK)
    with pytest.raises(DataError, match=r"expected .*masks/town/x\.png.*There is .*masks/x\.png"):
        scenes_of(tmp_path)


def test_masks_of_0_and_255_are_told_how_to_write_their_values(tmp_path):
    save(tmp_path / "images/x.png", PHOTO)
    save(tmp_path / "masks/x.png", MASK * 255)
    classes, scenes = scenes_of(tmp_path)
    with pytest.raises(DataError, match=r'values = \{ "a" = 0, "b" = 255 \}'):
        require_usable(survey(scenes, classes), classes, "training")
    classes, scenes = scenes_of(tmp_path, values={"a": [0], "b": [255]})
    require_usable(survey(scenes, classes), classes, "training")


def test_absent_classes_and_other_scales_are_told(tmp_path):
    for i, metres in enumerate((2, 10)):
        image = tmp_path / f"images/{i}.tif"
        place = UTM | {"transform": Affine(metres, 0, 500_000, 0, -metres, 5_000_000)}
        tif(image, PHOTO[None, ..., 0], **place)
        with rasterio.open(image, "r+") as out:
            out.scales = (1 / metres,)
            out.colorinterp = [ColorInterp.gray]
        tif(tmp_path / f"masks/{i}.tif", MASK[None], **place)
    classes, scenes = scenes_of(tmp_path, classes=["a", "b", "c"])
    notes = " ".join(survey(scenes, classes).notes)
    for said in ("class 'c'", "multiplied by 0.1 .* by 0.5"):
        assert re.search(said, notes), said


def test_a_lossy_mask_is_told_that_compression_changes_values(tmp_path):
    save(tmp_path / "images/x.png", PHOTO)
    save(tmp_path / "masks/x.jpg", MASK * 200)
    classes, scenes = scenes_of(tmp_path, values={"a": [0], "b": [200]})
    (problem,) = survey(scenes, classes).problems
    assert re.search(r"x\.jpg is compressed with losses", problem)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="closed cannot be read"):
        find_images(tmp_path)
