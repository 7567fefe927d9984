import numpy as np
import rasterio
from rasterio.shutil import copy

from pixelwise.geo.stored_blocks import largest_block


def write(path, **stored):
    with rasterio.open(path, "w", driver="GTiff", height=100, width=700, count=1, dtype="uint8", **stored) as file:
        file.write(np.zeros((1, 100, 700), np.uint8))
    return path


def test_lines_and_tiles_are_told_apart(tmp_path):
    assert largest_block(write(tmp_path / "lines.tif", blockysize=5)) == (5, 700)
    assert largest_block(write(tmp_path / "tiles.tif", tiled=True, blockxsize=128, blockysize=64)) == (64, 128)


def test_a_mosaic_has_the_blocks_of_its_parts_and_those_that_are_away_are_left_out(tmp_path):
    copy(write(tmp_path / "lines.tif", blockysize=5), tmp_path / "mosaic.vrt", driver="VRT")
    assert largest_block(tmp_path / "mosaic.vrt") == (5, 700)
    (tmp_path / "lines.tif").unlink()
    assert largest_block(tmp_path / "mosaic.vrt") == (1, 1)
    assert largest_block(tmp_path / "none.tif") == (1, 1)
