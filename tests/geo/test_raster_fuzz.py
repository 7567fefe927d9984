"""Files that are damaged at random: read, or refused with a `DataError`; in bounded memory and time."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.geo.colours import open_image
from pixelwise.geo.raster import Window, describe

FORMATS = ("png", "jpg", "tif", "tiled.tif", "gif", "bmp", "webp", "ppm", "vrt", "palette.png", "img")
TRIES = 25


def write_all(folder):
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x112] = 6
    for name in ("x.png", "x.jpg", "x.tif", "x.webp"):
        photo.save(folder / name, exif=exif)
    for name in ("x.bmp", "x.ppm"):
        photo.save(folder / name)
    photo.quantize(50).save(folder / "x.gif", transparency=3)
    photo.quantize(50).save(folder / "x.palette.png", transparency=3)
    shape = {"count": 4, "height": 40, "width": 60, "dtype": "uint16"}
    place = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000), "nodata": 7}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"}
    for name, driver, more in (("x.tiled.tif", "GTiff", tiles), ("x.img", "HFA", {})):
        with rasterio.open(folder / name, "w", driver=driver, **shape, **place, **more) as out:
            out.write(rng.integers(0, 4000, (4, 40, 60)).astype(np.uint16))
    source = '<SimpleSource><SourceFilename relativeToVRT="1">x.tiled.tif</SourceFilename></SimpleSource>'
    bands = "".join(f'<VRTRasterBand dataType="UInt16" band="{i}">{source}</VRTRasterBand>' for i in (1, 2))
    (folder / "x.vrt").write_text(f'<VRTDataset rasterXSize="60" rasterYSize="40">{bands}</VRTDataset>')


def damaged(content, rng):
    """Cut a file off, or change, double or drop some of its bytes; mostly near the beginning, where headers are."""
    content = bytearray(content)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(content[: rng.randrange(len(content))])
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(min(len(content), rng.choice((64, 300, len(content)))))
        if kind == 1:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            content[place : place + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80")
            )
        elif kind == 3:
            content[place : place + rng.randrange(1, 9)] = b""
        elif kind == 4:
            content[place:place] = content[place : place + rng.randrange(1, 9)]
        else:
            content[place] = rng.randrange(256)
    return bytes(content)


def read_whole(path):
    reader = open_image(describe(path))
    info = reader.info
    for top in sorted({0, info.height // 2, max(0, info.height - 100)}):
        window = Window(top, 0, min(100, info.height - top), min(2000, info.width))
        values, valid = reader.read(window)
        assert values.shape[1:] == valid.shape == (window.height, window.width)


def fuzz(folder, format_, tries, seed):
    """Return how many damaged files were read and how many refused; anything else is raised."""
    rng = random.Random(f"{format_} {seed}")
    content = (folder / f"x.{format_}").read_bytes()
    path = folder / f"damaged.{format_}"
    read = refused = 0
    for _ in range(tries):
        path.write_bytes(damaged(content, rng))
        try:
            read_whole(path)
            read += 1
        except DataError as error:
            if path.name not in str(error):
                raise
            refused += 1
    return read, refused


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_files_are_read_or_refused(tmp_path, format_):
    write_all(tmp_path)
    read_whole(tmp_path / f"x.{format_}")
    read, refused = fuzz(tmp_path, format_, TRIES, seed=0)
    assert read + refused == TRIES
    assert refused, "some of the damage is noticed, else the test says little"


def test_damaged_files_take_little_memory(tmp_path):
    resource = pytest.importorskip("resource")
    write_all(tmp_path)
    limit = 3 << 30
    program = (
        "import resource, sys, json; sys.path.insert(0, sys.argv[2]); import pathlib, test_raster_fuzz as t\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(json.dumps([t.fuzz(folder, kind, 10, seed=1) for kind in t.FORMATS]))\n"
    )
    here = __file__.rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), here], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(map(sum, json.loads(done.stdout.splitlines()[-1]))) == 10 * len(FORMATS)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < limit >> 10
