import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from pixelwise.config import load_config
from pixelwise.data.scenes import open_scenes
from pixelwise.geo.raster import describe
from pixelwise.geo.vector import read_polygons
from pixelwise.source_name import absolute, gdal_name, is_local, shown


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("https://host/a/b.tif", "/vsicurl/https://host/a/b.tif"),
        ("https://host/b.tif?url=https://other/c.tif", "/vsicurl/https://host/b.tif?url=https://other/c.tif"),
        ("HTTP://host/b.tif", "/vsicurl/http://host/b.tif"),
        ("/vsicurl/http://host:80/b.tif", "/vsicurl/http://host:80/b.tif"),
        ("/vsizip//vsicurl/https://host/z.zip/b.tif", "/vsizip/vsicurl/https://host/z.zip/b.tif"),
        ("s3://bucket/a/b.tif", "/vsis3/bucket/a/b.tif"),
        ("gs://bucket/b.tif", "/vsigs/bucket/b.tif"),
        ("az://container/b.tif", "/vsiaz/container/b.tif"),
        ("file:///home/me/b.tif", "/home/me/b.tif"),
        ("C:/scenes/b.tif", "C:/scenes/b.tif"),
        ("scenes/b.tif", "scenes/b.tif"),
    ],
)
def test_pathlib_takes_nothing_from_the_name_that_gdal_gets(given, named):
    assert gdal_name(Path(given)) == named
    assert gdal_name(given).replace("/vsizip//vsicurl", "/vsizip/vsicurl") == named
    assert gdal_name(Path(gdal_name(given))) == named
    assert is_local(Path(given)) == (not named.startswith("/vsi"))


def test_a_place_in_an_archive_is_absolute_where_the_archive_is(tmp_path, monkeypatch):
    (tmp_path / "z.zip").touch()
    assert gdal_name(Path(f"/vsizip/{tmp_path}/z.zip/a.tif")) == f"/vsizip/{tmp_path}/z.zip/a.tif"
    monkeypatch.chdir(tmp_path)
    assert gdal_name(Path("/vsizip/z.zip/a.tif")) == "/vsizip/z.zip/a.tif"


def test_addresses_do_not_count_from_a_folder_and_paths_do(tmp_path):
    for address in ("https://host/b.tif", "s3://bucket/b.tif", "/vsicurl/https://host/b.tif"):
        assert gdal_name(absolute(Path(address), tmp_path)) == gdal_name(address)
    assert absolute(Path("b.tif"), tmp_path) == tmp_path / "b.tif"
    assert shown(Path("https://host/b.tif")) == "https://host/b.tif"


@pytest.fixture
def folder(tmp_path):
    """Make a scene, polygons on it, and an archive of both."""
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=1, height=40, width=50, dtype="uint8", crs="EPSG:32616",
        transform=Affine(2, 0, 500000, 0, -2, 4600000),
    ) as file:  # fmt: skip
        file.write(np.ones((1, 40, 50), np.uint8))
    import pyogrio

    box = np.array([shapely.box(500010, 4599930, 500060, 4599990)], object)
    pyogrio.raw.write(tmp_path / "f.gpkg", shapely.to_wkb(box), [], [], geometry_type="Polygon", crs="EPSG:32616")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("s.tif", "f.gpkg"):
            archive.write(tmp_path / name, name)
    return tmp_path


@pytest.fixture
def server(folder):
    # A process of its own: GDAL keeps Python's lock while it waits for an answer.
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        port = re.search(r"port (\d+)", running.stdout.readline())
        assert port is not None
        yield f"http://127.0.0.1:{port[1]}"
        running.terminate()


@pytest.mark.parametrize("form", ["{server}/{name}", "/vsicurl/{server}/{name}", "/vsizip/{folder}/z.zip/{name}"])
def test_scenes_and_polygons_come_from_a_server_or_an_archive_by_path_and_by_configuration(folder, server, form):
    image, labels = (form.format(server=server, folder=folder, name=name) for name in ("s.tif", "f.gpkg"))
    for made in (str, Path):
        assert (describe(made(image)).height, describe(made(image)).width) == (40, 50)
        assert read_polygons(made(labels)).geometries[0].area == 50 * 60
    (folder / "below").mkdir()
    text = f'[data]\nimages = "{image}"\nlabels = "{labels}"\nclasses = ["background", "field"]\n'
    (folder / "below" / "c.toml").write_text(text)
    _, (scene,) = open_scenes(load_config(folder / "below" / "c.toml").data)
    assert scene.read(scene.whole).mask.sum() == 25 * 30
