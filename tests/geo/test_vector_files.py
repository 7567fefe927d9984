"""Which files are read as polygons, which are not, and that no damage ends in anything but a sentence."""

import io
import json
import os
import shutil
import socket
import threading
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS

from pixelwise.errors import DataError, MissingExtraError
from pixelwise.geo import vector_source as source
from pixelwise.geo.vector import read_polygons
from pixelwise.parcels.vector_file import write_polygons

SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
UTM = CRS.from_epsg(32633)


def polygon(*corners):
    return {"type": "Polygon", "coordinates": [list(corners)]}


def geojson(path, *geometries, properties=None):
    features = [
        {"type": "Feature", "properties": (properties or [{}] * len(geometries))[i], "geometry": geometry}
        for i, geometry in enumerate(geometries)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def write(path, *shapes, columns=None, crs="EPSG:32633", **options):
    values = [np.array(value) for value in (columns or {}).values()]
    wkb = shapely.to_wkb(np.array(shapes, object))
    pyogrio.raw.write(str(path), wkb, values, list(columns or {}), geometry_type="Polygon", crs=crs, **options)
    return path


def test_an_open_ring_is_closed_and_one_without_area_is_dropped(tmp_path):
    found = read_polygons(geojson(tmp_path / "p.geojson", polygon(*SQUARE[:-1]), polygon(*SQUARE[:2])))
    assert [shape.area for shape in found.geometries] == [1.0]
    assert found.dropped == 1


def test_a_collection_gives_its_polygons_however_deep_they_lie(tmp_path):
    far = polygon([5, 5], [6, 5], [6, 6], [5, 6], [5, 5])
    inner = {"type": "GeometryCollection", "geometries": [far, {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}]}
    point = {"type": "Point", "coordinates": [3, 3]}
    collection = {"type": "GeometryCollection", "geometries": [polygon(*SQUARE), point, inner]}
    found = read_polygons(geojson(tmp_path / "p.geojson", collection))
    assert found.geometries[0].equals(shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)]))


def test_a_column_of_booleans_is_read(tmp_path):
    path = write(tmp_path / "p.gpkg", *[shapely.box(0, 0, 1, 1)] * 2, columns={"is_field": [True, False]})
    assert read_polygons(path, attribute="is_field").values == (True, False)


def test_a_layer_is_named_behind_the_file_or_beside_it(tmp_path):
    path = write(tmp_path / "p.gpkg", shapely.box(0, 0, 1, 1), layer="fields")
    write(path, shapely.box(0, 0, 3, 3), layer="woods", append=False)
    assert read_polygons(f"{path}:woods").geometries[0].area == 9
    assert read_polygons(path, layer="fields").geometries[0].area == 1
    with pytest.raises(DataError, match=r"p\.gpkg has no layer 'field'.*fields of Polygon, woods of Polygon"):
        read_polygons(path, layer="field")
    with pytest.raises(DataError, match=r"2 layers of polygons.*p\.gpkg:LAYER"):
        read_polygons(path)


@pytest.mark.parametrize(
    ("name", "driver"),
    [
        *(("p.gdb", "OpenFileGDB"), ("p.gml", "GML"), ("p.tab", "MapInfo File"), ("p.sqlite", "SQLite")),
        *(("p.geojsonl", "GeoJSONSeq"), ("p.kml", "KML"), ("p.fgb", "FlatGeobuf"), ("p.shp", "ESRI Shapefile")),
    ],
)
def test_plain_formats_are_read_and_so_are_archives_of_them(tmp_path, name, driver):
    path = write(tmp_path / name, shapely.box(1, 2, 4, 6), crs="EPSG:4326", driver=driver)
    assert read_polygons(path).geometries[0].area == pytest.approx(12)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        files = sorted(path.rglob("*")) if path.is_dir() else sorted(tmp_path.glob("p.*"))
        for file in files:
            archive.write(file, f"folder/{file.relative_to(tmp_path)}")
    if name != "p.gml":
        assert read_polygons(tmp_path / "all.zip").geometries[0].area == pytest.approx(12)
        inner = f"/vsizip/{tmp_path}/all.zip/folder/{name}"
        assert read_polygons(Path(inner)).geometries[0].area == pytest.approx(12)


def test_our_own_geoparquet_is_read_with_its_values_and_coordinate_system(tmp_path):
    shapes = np.array([shapely.box(0, 0, 2, 3), shapely.box(5, 5, 6, 6)], object)
    columns = {"class": np.array(["field", "wood"], object), "area_m2": np.array([6.0, 1.0])}
    write_polygons(tmp_path / "p.parquet", shapes, columns, UTM, scratch=tmp_path)
    found = read_polygons(tmp_path / "p.parquet", attribute="class")
    assert found.values == ("field", "wood")
    assert found.crs == UTM
    assert all(a.equals(b) for a, b in zip(found.geometries, shapes, strict=True))
    with pytest.raises(DataError, match=r"no column 'kind'.*class, area_m2"):
        read_polygons(tmp_path / "p.parquet", attribute="kind")


@pytest.mark.parametrize("about", ["crs missing", "crs null", "no geo", "native"])
def test_other_geoparquet_is_read_as_its_metadata_says_or_the_reason_is_told(tmp_path, about):
    wkb = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)], object)).tolist()
    table = pa.table({"geometry": pa.array(wkb, pa.binary())})
    column = {"encoding": "polygon" if about == "native" else "WKB", "geometry_types": []}
    column |= {"crs": None} if about == "crs null" else {}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = table if about == "no geo" else table.replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, tmp_path / "p")
    if about == "crs missing":
        assert read_polygons(tmp_path / "p").crs.is_geographic
        return
    words = {"crs null": "does not say its coordinate system", "no geo": "no GeoParquet", "native": "as WKB"}
    with pytest.raises(DataError, match=words[about]):
        read_polygons(tmp_path / "p")


def test_geoparquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "p.parquet").write_bytes(b"PAR1....PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixelwise\[parquet\]'"):
        read_polygons(tmp_path / "p.parquet")


@pytest.fixture
def server():
    """Listen, and keep what is asked for."""
    asked, listening = [], socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(20)

    def answer():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            asked.append(connection.recv(100))
            connection.sendall(b"HTTP/1.0 404 no\r\n\r\n")
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/a", asked
    listening.close()


@pytest.mark.parametrize("name", ["p.geojson", "p.gpkg", "p.shp", "p.kml", "p"])
def test_a_file_of_a_harmless_name_asks_no_server_and_reads_no_other_file(tmp_path, server, name):
    address, asked = server
    geojson(tmp_path / "secret.geojson", polygon(*SQUARE))
    layer = '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>'
    steps = "gdal vector pipeline ! read {} ! write streamed"
    for text in (
        *(layer.format(tmp_path / "secret.geojson"), layer.format(f"/vsicurl/{address}.geojson")),
        *(f"<!-- <kml> -->{layer.format(tmp_path / 'secret.geojson')}", "{" + layer.format("x")),
        f"<OGRWFSDataSource><URL>{address}</URL></OGRWFSDataSource>",
        json.dumps({"type": "gdal_streamed_alg", "command_line": steps.format(tmp_path / "secret.geojson")}),
        '<wfs:WFS_Capabilities xmlns:wfs="http://www.opengis.net/wfs" xmlns:gml="http://www.opengis.net/gml"/>',
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError):
            read_polygons(tmp_path / name)
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            archive.write(tmp_path / name, "p.geojson")
        with pytest.raises(DataError):
            read_polygons(tmp_path / "z.zip")
    place = f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://x/ {address}.xsd"'
    (tmp_path / "p.gml").write_text(f'<a:b {place} xmlns:a="http://x/" xmlns:gml="http://www.opengis.net/gml"></a:b>')
    with pytest.raises(DataError):
        read_polygons(tmp_path / "p.gml")
    assert asked == []


@pytest.mark.parametrize("kind", ["plain", "escaped", "padded", "other word", "zipped"])
def test_no_server_is_asked_for_the_coordinate_system_of_a_geojson(tmp_path, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/crs"
        system = {"type": "link", "properties": {"href": address}}
        feature = {"type": "Feature", "properties": {}, "geometry": polygon(*SQUARE)}
        text = json.dumps({"type": "FeatureCollection", "features": [feature], "crs": system})
        text = {
            "escaped": text.replace("link", "l\\u0069nk").replace('"crs"', '"\\u0063rs"'),
            "padded": text.replace('"type": "link"', '"type":' + " " * (1 << 21) + '"link"'),
            "other word": text.replace("link", "url").replace("href", "url"),
        }.get(kind, text)
        path = tmp_path / ("p.zip" if kind == "zipped" else "p.geojson")
        if kind == "zipped":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("p.geojson", text)
        else:
            path.write_text(text)
        with pytest.raises(DataError, match="an address in the network, which is not asked"):
            read_polygons(path)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("name", ["PG:host=127.0.0.1", "WFS:http://127.0.0.1:9/a", "MEM:::", "MySQL:x", "none.gpkg:a"])
def test_a_connection_is_no_file(name):
    with pytest.raises(DataError, match="There is no file"):
        read_polygons(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_a_folder_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "p.gpkg")
    for path in (tmp_path / "p.gpkg", tmp_path):
        with pytest.raises(DataError, match="neither a file of polygons nor"):
            read_polygons(path)


def test_an_archive_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "SMALL_ARCHIVE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.geojson", b"{" + b" " * (8 << 20))
    with pytest.raises(DataError, match=r"would grow to .* GiB"):
        read_polygons(tmp_path / "p.zip")


def test_a_file_that_declares_more_shapes_than_it_can_hold_is_refused(tmp_path):
    path = write(tmp_path / "p.fgb", *[shapely.box(0, 0, 1, 1)] * 77, driver="FlatGeobuf", SPATIAL_INDEX="NO")
    data = path.read_bytes()
    # The number of shapes is the only 77 of 8 bytes in the header.
    assert data[:400].count((77).to_bytes(8, "little")) == 1
    path.write_bytes(data.replace((77).to_bytes(8, "little"), (1 << 22).to_bytes(8, "little"), 1))
    with pytest.raises(DataError, match="too small for"):
        read_polygons(path)


def _seeds(folder):
    shapes = [shapely.box(i, 0, i + 0.9, 1) for i in range(5)]
    columns = {"kind": np.array(["a", "b", "c", "d", "e"], object), "n": [1, 2, 3, 4, 5]}
    files = {}
    for name in ("p.geojson", "p.gpkg", "p.shp", "p.kml", "p.fgb", "p.gml"):
        options = {"driver": "KML"} if name == "p.kml" else {}
        write(folder / name, *shapes, columns=columns, crs="EPSG:4326", **options)
        files[name] = [folder / name]
    files["p.shp"] = sorted(each for each in folder.glob("p.*") if each.suffix in (".shp", ".shx", ".dbf", ".prj"))
    write_polygons(
        folder / "p.parquet", np.array(shapes, object), {"kind": columns["kind"]}, CRS.from_epsg(4326), scratch=folder
    )
    with zipfile.ZipFile(folder / "p.kmz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "p.kml", "doc.kml")
    return files | {"p.parquet": [folder / "p.parquet"], "p.kmz": [folder / "p.kmz"]}


def _damaged(data, rng):
    data = bytearray(data)
    kind = rng.integers(5)
    if kind == 0:
        return bytes(data[: rng.integers(len(data) + 1)])
    for _ in range(rng.integers(1, 12)):
        at = int(rng.integers(max(1, len(data))))
        if kind == 1:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 2:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"1e99", b"null", b'"":{', b"\x7f\xff"])
        elif kind == 3:
            data[at : at + int(rng.integers(1, 200))] = b""
        else:
            data[at:at] = data[at : at + int(rng.integers(1, 200))]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_named_and_nothing_else(tmp_path):
    (tmp_path / "good").mkdir()
    seeds = _seeds(tmp_path / "good")
    rng, outcomes = np.random.default_rng(15), {"read": 0, "named": 0}
    for number in range(360):
        name = sorted(seeds)[number % len(seeds)]
        folder = tmp_path / f"{number}"
        folder.mkdir()
        victim = int(rng.integers(len(seeds[name])))
        for i, file in enumerate(seeds[name]):
            data = file.read_bytes()
            (folder / file.name).write_bytes(_damaged(data, rng) if i == victim else data)
        try:
            read_polygons(folder / name, attribute=rng.choice(["kind", "n"]))
            outcomes["read"] += 1
        except DataError as problem:
            outcomes["named"] += name in str(problem) and "\n" not in str(problem)
        shutil.rmtree(folder)
    assert sum(outcomes.values()) == 360
    assert min(outcomes.values()) > 10


def test_a_zip_that_is_none_or_holds_several_files_is_named(tmp_path):
    (tmp_path / "p.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(DataError, match=r"p\.zip cannot be unpacked"):
        read_polygons(tmp_path / "p.zip")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.geojson", "{}")
        archive.writestr("b.geojson", "{}")
    (tmp_path / "p.zip").write_bytes(data.getvalue())
    with pytest.raises(DataError, match=r"2 vector files.*a\.geojson, b\.geojson"):
        read_polygons(tmp_path / "p.zip")
