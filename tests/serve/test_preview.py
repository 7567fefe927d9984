"""Windows of rasters as pictures."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from small_network import noise, write_photo, write_scene

from pixelwise.serve import preview
from pixelwise.serve.preview import levels, make_preview, read_picture, scene_tile


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_at_the_last_zoom_a_pixel_is_a_pixel_and_at_the_first_there_is_one_tile(width, height):
    zoom = levels(width, height)
    longer = max(width, height)
    assert longer <= 256 * 2**zoom
    assert zoom == 0 or longer > 256 * 2 ** (zoom - 1)
    # The small copy has the same pyramid, but for the finest three levels.
    if zoom >= 3:
        assert levels(-(-width // 8), -(-height // 8)) == zoom - 3


@pytest.mark.parametrize("size", [(300, 520), (257, 100), (40, 1000)])
def test_tiles_of_a_zoom_cover_the_raster_once(tmp_path, size):
    values = noise(1, *size)
    path = write_scene(tmp_path / "a.tif", values)
    zoom = levels(size[1], size[0])
    tiles = [(x, y, read_picture(path, (1,), zoom, x, y, average=False)) for y in range(5) for x in range(5)]
    joined = np.zeros((5 * 256, 5 * 256), np.uint8)
    for x, y, tile in tiles:
        if tile is not None:
            joined[y * 256 : y * 256 + 256, x * 256 : x * 256 + 256] = tile[0]
    assert np.array_equal(joined[: size[0], : size[1]], values[0])
    assert not joined[size[0] :].any()
    assert not joined[:, size[1] :].any()


def test_a_large_scene_is_shown_by_its_small_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "LARGE", 512)
    values = np.kron(noise(3, 100, 250), np.ones((1, 8, 8), np.uint8))
    path = write_scene(tmp_path / "a.tif", values, tiled=True, blockxsize=256, blockysize=256)
    shares = []
    assert make_preview(path, tmp_path, (1, 2, 3), advance=shares.append) is None
    assert shares[-1] == 1
    with rasterio.open(tmp_path / "preview.tif") as small:
        assert small.shape == (100, 250)
        assert small.overviews(1)
    # 2,000 pixels: zoom 3 has the scene's own, and 0 an eighth.
    tile = scene_tile(path, tmp_path, (1, 2, 3), None, 0, 0, 0)
    assert np.abs(tile[:100, :250] - np.moveaxis(values[:, ::8, ::8], 0, -1).astype(int)).max() <= 1
    opened = []
    monkeypatch.setattr(preview, "open_raster", lambda place: opened.append(place) or rasterio.open(place))
    scene_tile(path, tmp_path, (1, 2, 3), None, 0, 0, 0)
    assert opened == [tmp_path / "preview.tif"]
    before = (tmp_path / "preview.tif").stat().st_mtime_ns
    make_preview(path, tmp_path, (1, 2, 3), advance=shares.append)
    assert (tmp_path / "preview.tif").stat().st_mtime_ns == before


def test_reflectances_are_stretched_alike_in_all_tiles(tmp_path):
    values = (noise(2, 300, 300).astype(np.uint16) * 30 + 500).astype(np.uint16)
    path = write_scene(tmp_path / "a.tif", values)
    stretch = make_preview(path, tmp_path, (2, 1), advance=lambda share: None)
    assert stretch is not None
    low, high = np.percentile(values[1], (2, 98))
    assert stretch[0] == pytest.approx([low, high], rel=0.02)
    tile = scene_tile(path, tmp_path, (2, 1), stretch, 1, 1, 0)
    expected = ((values[1, :256, 256:] - stretch[0][0]) / (stretch[0][1] - stretch[0][0]) * 255).clip(0, 255)
    assert np.abs(tile[:256, :44, 0] - expected).max() <= 1


def test_a_photo_that_was_held_upright_is_shown_upright(tmp_path):
    from PIL import Image

    values = np.zeros((60, 100, 3), np.uint8)
    values[:, :50] = 200
    path = write_photo(tmp_path / "a.jpg", np.moveaxis(values, -1, 0))
    exif = Image.Exif()
    # Turned by a quarter, clockwise.
    exif[0x112] = 6
    Image.open(path).save(path, exif=exif, quality=100)
    tile = scene_tile(path, tmp_path, (1, 2, 3), None, 0, 0, 0)
    assert (tile[:45, :60] > 190).all()
    assert (tile[55:100, :60] < 10).all()
