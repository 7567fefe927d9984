"""What may be opened: pixels, and nothing that leads elsewhere; bounded against memory before it is read."""

import http.server
import os
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
import rasterio
from affine import Affine

from pixelwise.errors import DataError
from pixelwise.geo import opening
from pixelwise.geo.mosaic import FOLDERS
from pixelwise.geo.raster import RasterReader, Window, describe

IMAGE = np.random.default_rng(0).integers(1, 250, (3, 20, 30)).astype(np.uint8)


def put(path, image=IMAGE, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"count": len(image), "height": image.shape[1], "width": image.shape[2], "dtype": image.dtype}
    place = {"crs": "EPSG:32633", "transform": Affine(2, 0, 500_000, 0, -2, 5_000_000)}
    with rasterio.open(path, "w", **({"driver": "GTiff"} | place | shape | profile)) as out:
        out.write(image)
    return path


def mosaic(path, source, *, relative=True, extra="", **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "".join(f' {key}="{value}"' for key, value in attributes.items())
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"{kind}><SimpleSource>'
        f'<SourceFilename relativeToVRT="{int(relative)}">{source}</SourceFilename><SourceBand>{i}</SourceBand>'
        f"</SimpleSource></VRTRasterBand>"
        for i in (1, 2, 3)
    )
    path.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{extra}{bands}</VRTDataset>')
    return path


def read(path):
    reader = RasterReader(path)
    return reader.read(Window(0, 0, reader.info.height, reader.info.width))[0]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "3")
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}", asked
    made.shutdown()


LEADING = {
    "vrt": '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    "<SourceFilename>/vsicurl/{address}/a.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
    "wms": '<GDAL_WMS><Service name="TMS"><ServerUrl>{address}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
    "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>9</UpperLeftY><LowerRightX>9</LowerRightX>"
    "<LowerRightY>0</LowerRightY><SizeX>9</SizeX><SizeY>9</SizeY></DataWindow></GDAL_WMS>",
    "wcs": "<WCS_GDAL><ServiceURL>{address}/wcs?</ServiceURL><CoverageName>a</CoverageName></WCS_GDAL>",
    "wmts": "<GDAL_WMTS><GetCapabilitiesUrl>{address}/wmts</GetCapabilitiesUrl></GDAL_WMTS>",
    "tile index": "<GDALTileIndexDataset><IndexDataset>/vsicurl/{address}/a.gpkg</IndexDataset></GDALTileIndexDataset>",
    "stac": '{{"type": "Feature", "stac_version": "1.0.0", "assets": {{"a": {{"href": "{address}/a.tif"}}}}}}',
    "mrf": "<MRF_META><Raster><Size x='9' y='9' c='1'/><DataFile>/etc/passwd</DataFile></Raster></MRF_META>",
}


@pytest.mark.parametrize("kind", LEADING)
@pytest.mark.parametrize("name", ["scene.tif", "scene.png", "scene.xml", "scene.json"])
def test_text_that_leads_to_a_server_or_a_file_is_no_image_whatever_its_name(tmp_path, server, kind, name):
    address, asked = server
    path = tmp_path / name
    path.write_text(LEADING[kind].format(address=address))
    with pytest.raises(DataError, match=name):
        describe(path)
    assert asked == []


@pytest.mark.parametrize("ending", [".msk", ".ovr"])
def test_what_stands_beside_an_image_leads_nowhere_either(tmp_path, server, ending):
    address, asked = server
    scene = put(tmp_path / "scene.tif")
    (tmp_path / f"scene.tif{ending}").write_text(LEADING["vrt"].format(address=address))
    with pytest.raises(DataError, match=f"scene.tif{ending}"):
        read(scene)
    assert asked == []


def test_a_mosaic_of_files_below_its_folder_is_read(tmp_path):
    put(tmp_path / "v/parts/a.tif")
    mosaic(tmp_path / "v/inner.vrt", "parts/a.tif")
    path = mosaic(tmp_path / "v/outer.vrt", "inner.vrt")
    np.testing.assert_array_equal(read(path), IMAGE)
    absolute = mosaic(tmp_path / "v/absolute.vrt", tmp_path / "v/parts/a.tif", relative=False)
    np.testing.assert_array_equal(read(absolute), IMAGE)


def test_a_mosaic_of_files_elsewhere_is_refused_until_their_folder_is_allowed(tmp_path, monkeypatch):
    put(tmp_path / "archive/a.tif")
    for name, source, relative in (("up", "../archive/a.tif", True), ("far", tmp_path / "archive/a.tif", False)):
        path = mosaic(tmp_path / f"v/{name}.vrt", source, relative=relative)
        monkeypatch.delenv(FOLDERS, raising=False)
        with pytest.raises(DataError, match=rf"outside its folder.*{FOLDERS}={tmp_path}/archive"):
            describe(path)
        monkeypatch.setenv(FOLDERS, f"/nowhere{os.pathsep}{tmp_path}/archive")
        np.testing.assert_array_equal(read(path), IMAGE)


def test_what_a_mosaic_in_a_mosaic_names_is_seen_too(tmp_path):
    mosaic(tmp_path / "v/inner.vrt", "/etc/passwd", relative=False)
    with pytest.raises(DataError, match=r"inner\.vrt is made of /etc/passwd"):
        describe(mosaic(tmp_path / "v/outer.vrt", "inner.vrt"))


@pytest.mark.parametrize(
    ("source", "extra", "attributes", "message"),
    [
        ("/vsicurl/http://127.0.0.1/a.tif", "", {}, "is not read"),
        ("/vsizip/a.zip/a.tif", "", {}, "is not read"),
        ("&lt;GDAL_WMS&gt;&lt;/GDAL_WMS&gt;", "", {}, "is not read"),
        ("me.vrt", "", {}, "made of itself"),
        ("none.tif", "", {}, "not there"),
        ("notes.txt", "", {}, "no TIFF"),
        ("a.tif", '<Metadata domain="GEOLOCATION"><MDI key="X_DATASET">/etc/passwd</MDI></Metadata>', {}, "outside"),
        ("a.tif", "<X><PixelFunctionCode>open('x', 'w')</PixelFunctionCode></X>", {}, "program code"),
        ("a.tif", '<Overview><SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename></Overview>', {}, "outside"),
    ],
)
def test_mosaics_that_name_other_things_are_refused(tmp_path, source, extra, attributes, message):
    put(tmp_path / "a.tif")
    (tmp_path / "notes.txt").write_text("<VRTDataset>")
    path = mosaic(tmp_path / "me.vrt", source, extra=extra, **attributes)
    with pytest.raises(DataError, match=message):
        describe(path)


def test_raw_bytes_of_another_file_are_not_shown(tmp_path):
    band = (
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd'
        "</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>9</LineOffset>"
        "</VRTRasterBand>"
    )
    (tmp_path / "raw.vrt").write_text(f'<VRTDataset rasterXSize="9" rasterYSize="9">{band}</VRTDataset>')
    with pytest.raises(DataError, match=r"made of /etc/passwd"):
        describe(tmp_path / "raw.vrt")


def test_addresses_and_archives_that_the_user_names_are_read(tmp_path, monkeypatch, request):
    put(tmp_path / "www/s.tif")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "www/s.tif", "s.tif")
        archive.writestr("s.vrt", mosaic(tmp_path / "s.vrt", "s.tif").read_text())
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    # Another process: while GDAL opens a file, no other thread of this one runs.
    serve = "import functools, http.server as h; f = functools.partial(h.SimpleHTTPRequestHandler, directory='www'); "
    serve += "s = h.ThreadingHTTPServer(('127.0.0.1', 0), f); print(s.server_port, flush=True); s.serve_forever()"
    made = subprocess.Popen(
        [sys.executable, "-c", serve], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    request.addfinalizer(made.kill)
    assert made.stdout is not None
    address = f"http://127.0.0.1:{int(made.stdout.readline())}/s.tif"
    for path in (address, f"/vsicurl/{address}", f"/vsizip/{tmp_path}/z.zip/s.tif", f"/vsizip/{tmp_path}/z.zip/s.vrt"):
        np.testing.assert_array_equal(read(path), IMAGE, err_msg=path)


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "folder.tif").mkdir()
    for path in (tmp_path / "pipe.tif", "/dev/zero", tmp_path / "folder.tif"):
        with pytest.raises(DataError, match=r"^\S+ is (a folder|a pipe, .* device), not an image\. Name a file\.$"):
            describe(path)


def test_a_pipe_beside_an_image_or_in_a_mosaic_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    put(tmp_path / "scene.tif")
    os.mkfifo(tmp_path / "scene.tif.msk")
    source = '<SimpleSource><SourceFilename relativeToVRT="1">pipe.tif</SourceFilename></SimpleSource>'
    (tmp_path / "m.vrt").write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand band="1">{source}</VRTRasterBand></VRTDataset>'
    )
    for name in ("scene.tif", "m.vrt"):
        with pytest.raises(DataError, match=r"(scene\.tif\.msk|pipe\.tif), which"):
            describe(tmp_path / name)


def test_a_file_that_the_system_does_not_open_is_not_called_corrupt(tmp_path, monkeypatch):
    path = put(tmp_path / "scene.tif")

    def refuse(*_args, **_options):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(DataError, match=r"too many files are open \(the limit is \d+\).*ulimit") as caught:
        describe(path)
    assert "corrupt" not in str(caught.value)


SPARSE = {"sparse_ok": True, "count": 1, "dtype": "uint8", "driver": "GTiff"}


@pytest.mark.parametrize(
    "stored",
    [
        {"height": 40_000, "width": 40_000, "blockysize": 20_000, "compress": "deflate"},
        {
            "height": 65_536,
            "width": 65_536,
            "tiled": True,
            "blockxsize": 65_536,
            "blockysize": 65_536,
            "compress": "lzw",
        },
    ],
    ids=["two strips", "one tile"],
)
def test_blocks_that_do_not_fit_the_memory_are_refused_before_they_are_read(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(opening, "free_memory", lambda: 1 << 30)
    with rasterio.open(tmp_path / "x.tif", "w", **SPARSE, **stored):
        pass
    assert (tmp_path / "x.tif").stat().st_size < 1_000_000
    with pytest.raises(DataError, match=r"x\.tif says that it has .* decoded at once: [04]\.\d GB"):
        describe(tmp_path / "x.tif")


def test_more_bands_than_the_memory_holds_are_refused_unless_few_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "free_memory", lambda: 1 << 30)
    shape = SPARSE | {"count": 5_000, "height": 64, "width": 64, "interleave": "band"}
    with rasterio.open(tmp_path / "x.tif", "w", **shape):
        pass
    with pytest.raises(DataError, match=r"5000 bands takes 1\.3 GB.*\[data\]\.bands"):
        RasterReader(tmp_path / "x.tif")
    assert RasterReader(tmp_path / "x.tif", bands=[3, 4_000]).read(Window(0, 0, 64, 64))[0].shape == (2, 64, 64)


def test_many_files_are_read_by_many_threads_with_few_open_files(tmp_path):
    for i in range(150):
        put(tmp_path / f"{i}.tif", IMAGE + np.uint8(i % 5))
    program = (
        "import resource, sys, pathlib\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from pixelwise.geo.handle_pool import POOL\n"
        "from pixelwise.geo.raster import RasterReader, Window\n"
        "readers = [RasterReader(path) for path in sorted(pathlib.Path(sys.argv[1]).glob('*.tif'))]\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    sums = list(pool.map(lambda reader: int(reader.read(Window(0, 0, 20, 30))[0].sum()), readers * 3))\n"
        "assert POOL.count <= POOL.most == 16, (POOL.count, POOL.most)\n"
        "print(len(sums), len(set(sums)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["450", "5"]


def test_a_file_that_becomes_another_image_while_it_is_read_is_noticed(tmp_path):
    reader = RasterReader(put(tmp_path / "x.tif"))
    put(tmp_path / "x.tif", IMAGE[:, :10])
    with pytest.raises(DataError, match="another image than when it was opened"):
        reader.read(Window(0, 0, 20, 30))


def test_readers_that_nobody_holds_leave_no_open_file(tmp_path):
    from pixelwise.geo.handle_pool import POOL

    before = POOL.count
    for _ in range(3):
        reader = RasterReader(put(tmp_path / "x.tif"))
        reader.read(Window(0, 0, 20, 30))
        del reader
    assert POOL.count == before


def test_a_mosaic_whose_names_gdal_would_read_otherwise_is_refused(tmp_path):
    put(tmp_path / "café.tif")
    path = mosaic(tmp_path / "m.vrt", "café.tif")
    text = path.read_text(encoding="utf-8")
    for coding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding=coding)
        assert RasterReader(path).read(Window(0, 0, 20, 30))[0].tolist() == IMAGE.tolist()
    # As XML it is in order. But GDAL finds no such file, and rasterio then gives zeros.
    path.write_text(f'<?xml version="1.0" encoding="ISO-8859-1"?>{text}', encoding="latin-1")
    with pytest.raises(DataError, match=r"is not in UTF-8 \(its byte \d+ is not\)"):
        describe(path)
    # The first line promises another coding than GDAL reads: the file that is checked is the one that is read.
    path.write_text(f'<?xml version="1.0" encoding="ISO-8859-1"?>{text}', encoding="utf-8")
    assert RasterReader(path).read(Window(0, 0, 20, 30))[0].tolist() == IMAGE.tolist()


def test_words_of_gdal_that_are_not_in_utf8_leave_no_exception_on_the_screen(tmp_path):
    path = put(tmp_path / "x.tif")
    with rasterio.open(path, "r+") as file:
        file.update_tags(NOTE="anything")
    path.write_bytes(path.read_bytes().replace(b'name="NOTE"', b"name=NO\xe9E  "))
    program = (
        "import sys\n"
        "from pixelwise.geo.gdal_messages import garbled_messages_hidden\n"
        "from pixelwise.geo.raster import describe\n"
        "hooks = sys.excepthook, sys.unraisablehook\n"
        "if sys.argv[2] == 'hidden':\n"
        "    with garbled_messages_hidden():\n"
        "        describe(sys.argv[1])\n"
        "    assert hooks == (sys.excepthook, sys.unraisablehook)\n"
        "    with garbled_messages_hidden():\n"
        "        b'\\xe9'.decode()\n"
        "describe(sys.argv[1])\n"
    )
    shown, hidden = (
        subprocess.run([sys.executable, "-c", program, path, how], capture_output=True, text=True, check=False).stderr
        for how in ("shown", "hidden")
    )
    # If rasterio learns to say it well, the hooks may go.
    assert "Exception ignored in: 'rasterio." in shown
    assert "Exception ignored" not in hidden
    # Other errors are shown as ever.
    assert hidden.startswith("Traceback")
    assert "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 0" in hidden


def test_what_gdal_says_in_other_bytes_than_utf8_is_said_as_far_as_it_can_be(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.tif")
    put(tmp_path / "a.tif").rename(path)
    with pytest.raises(DataError, match="its name is not in UTF-8, which GDAL needs; rename it"):
        describe(path)
    garbled = UnicodeDecodeError("utf-8", b"no type B\xe9.", 9, 10, "invalid")
    assert opening.reason(garbled) == "no type B\N{REPLACEMENT CHARACTER}"
