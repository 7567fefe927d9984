import json
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from pixelwise.errors import DataError, MissingExtraError
from pixelwise.geo.polygon_labels import count_touching, labels_for_scene
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.geo.vector import Polygons, read_polygons

UTM = CRS.from_epsg(32633)


def scene(height=60, width=80, crs=UTM, transform=None):
    """Return a header whose origin lies on the ground near 15 degrees east, 45 degrees north."""
    transform = transform or Affine(1, 0, 500_000, 0, -1, 4_983_000)
    return RasterInfo(Path("scene.tif"), height, width, 3, None, "uint8", None, crs, transform, False)


def polygons(geometries, crs=UTM):
    found = np.empty(len(geometries), object)
    found[:] = geometries
    return Polygons(Path("p"), found, None, crs, 0, 0)


def on_ground(geometry, info):
    """Move a shape from pixels (column, row) to the ground of a scene."""
    a, b, c, d, e, f = info.transform[:6]
    return shapely.affinity.affine_transform(geometry, [a, b, d, e, c, f])


def draw(found, info, class_of=None, **options):
    options = {"background": 0, "boundary": None, "boundary_width": 1.0} | options
    class_of = np.array([1] * len(found.geometries) if class_of is None else class_of, np.int16)
    return labels_for_scene(found, info, class_of, **options)


def whole(labels, info):
    return labels.read(Window(0, 0, info.height, info.width))


@st.composite
def shapes(draw):
    corner = st.tuples(st.floats(-20, 100, allow_subnormal=False), st.floats(-20, 80, allow_subnormal=False))
    drawn = [shapely.MultiPoint(draw(st.lists(corner, min_size=3, max_size=6))).convex_hull for _ in range(4)]
    kept = [shape for shape in drawn if shape.geom_type == "Polygon" and shape.area > 1]
    return [on_ground(shape, scene()) for shape in kept or [shapely.box(3, 4, 20, 30)]]


@given(
    shapes(), st.booleans(), st.integers(0, 59), st.integers(0, 79), st.integers(1, 60), st.integers(1, 80), st.data()
)
def test_any_window_is_that_window_of_the_whole_scene(found, bands, top, left, height, width, data):
    class_of = data.draw(st.lists(st.integers(-1, 3), min_size=len(found), max_size=len(found)))
    labels = draw(polygons(found), scene(), class_of, boundary=5 if bands else None, boundary_width=3.0)
    window = Window(top, left, min(height, 60 - top), min(width, 80 - left))
    expected = whole(labels, scene())[top : top + window.height, left : left + window.width]
    np.testing.assert_array_equal(labels.read(window), expected)


@given(shapes())
def test_a_pixel_belongs_to_the_last_shape_that_holds_its_centre(found):
    class_of = list(range(1, len(found) + 1))
    drawn = whole(draw(polygons(found), scene(), class_of), scene())
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    x, y = scene().transform @ (columns, rows)
    points = shapely.points(x, y)
    expected, rim = np.zeros((60, 80), np.int16), np.zeros((60, 80), bool)
    for value, shape in zip(class_of, found, strict=True):
        expected[shapely.contains(shape, points)] = value
        rim |= shapely.distance(shape.boundary, points) < 1e-3
    np.testing.assert_array_equal(drawn[~rim], expected[~rim])


@given(st.floats(1.0, 12.0), st.floats(0, 90))
def test_a_band_in_utm_is_as_wide_in_metres_as_shapely_draws_it(width, angle):
    shape = on_ground(shapely.affinity.rotate(shapely.box(20, 15, 60, 45), angle), scene())
    drawn = whole(draw(polygons([shape]), scene(), boundary=2, boundary_width=width), scene())
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    distance = shapely.distance(shape.boundary, shapely.points(*(scene().transform @ (columns, rows))))
    # Corners are rounded by chords of a quarter of a right angle: 2 % inside the circle. Grid and true metres: 0.04 %.
    assert (drawn[distance < width / 2 * 0.97] == 2).all()
    assert (drawn[distance > width / 2 * 1.002 + 1e-3] != 2).all()


@pytest.mark.parametrize("epsg", [4326, 3857])
def test_a_band_in_degrees_or_web_mercator_is_as_wide_on_the_ground_within_a_pixel(epsg):
    crs = CRS.from_epsg(epsg)
    x, y = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform(15.0, 60.0)
    pixel = 1e-5 if epsg == 4326 else 1.0
    info = scene(200, 200, crs, Affine(pixel, 0, x, 0, -pixel, y))
    shape = on_ground(shapely.box(60, 60, 140, 140), info)
    drawn = whole(draw(polygons([shape], crs), info, boundary=2, boundary_width=12.0), info)
    to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    middle = to_degrees.transform(*(info.transform @ (100, 100)))
    geod = pyproj.Geod(ellps="WGS84")
    for line, step in ((drawn[100], (101, 100)), (drawn[:, 100], (100, 101))):
        metres = geod.inv(*middle, *to_degrees.transform(*(info.transform @ step)))[2]
        assert (line == 2).sum() / 2 * metres == pytest.approx(12.0, abs=metres)


def test_polygons_in_another_coordinate_system_land_in_the_same_place():
    info = scene()
    shape = on_ground(shapely.box(10, 10, 50, 40), info)
    transformer = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    degrees = shapely.transform(shape, lambda xy: np.stack(transformer.transform(*xy.T), axis=1))
    drawn = whole(draw(polygons([degrees], CRS.from_epsg(4326)), info), info)
    expected = np.zeros((60, 80), np.int16)
    expected[10:40, 10:50] = 1
    np.testing.assert_array_equal(drawn, expected)


def test_bands_lie_on_top_of_all_interiors_and_outside_is_the_background():
    info = scene()
    found = [on_ground(shapely.box(10, 10, 40, 50), info), on_ground(shapely.box(40, 10, 70, 50), info)]
    drawn = whole(draw(polygons(found), info, [1, 3], background=-1, boundary=2, boundary_width=4.0), info)
    assert drawn[30, 36:44].tolist() == [1, 1, 2, 2, 2, 2, 3, 3]
    assert drawn[0, 0] == -1


def test_holes_are_not_part_of_a_polygon():
    info = scene()
    ring = shapely.box(10, 10, 40, 40) - shapely.box(20, 20, 30, 30)
    drawn = whole(draw(polygons([on_ground(ring, info)]), info), info)
    assert drawn.sum() == 30 * 30 - 10 * 10
    assert not drawn[20:30, 20:30].any()


def test_only_polygons_that_meet_the_scene_are_counted():
    info = scene()
    found = [on_ground(shapely.box(x, 5, x + 10, 15), info) for x in (-50, -5, 30, 75, 200)]
    assert count_touching(polygons(found), info) == 3


def test_a_scene_without_a_coordinate_system_is_an_error():
    with pytest.raises(DataError, match=r"scene\.tif has no coordinate system"):
        draw(polygons([shapely.box(0, 0, 1, 1)]), scene(crs=None))


def write(path, geometries, columns=None, crs="EPSG:32633", kind="Polygon"):
    columns = columns or {}
    values = [np.array(value, object) for value in columns.values()]
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(geometries, object)), values, list(columns), geometry_type=kind, crs=crs
    )
    return path


@pytest.mark.parametrize("name", ["p.gpkg", "p.shp", "p.geojson", "p.fgb"])
def test_all_formats_give_the_same_labels_and_values(tmp_path, name):
    info = scene()
    boxes = [shapely.box(x, 10 + x // 5, x + 15, 50) for x in (5, 30, 55)]
    found = read_polygons(
        write(tmp_path / name, [on_ground(box, info) for box in boxes], {"kind": ["a", "b", "c"]}), attribute="kind"
    )
    class_of = np.array([" abc".index(str(value)) for value in found.values or ()], np.int16)
    drawn = whole(draw(found, info, class_of), info)
    rows, columns = np.mgrid[:60, :80] + 0.5
    for value, box in enumerate(boxes, start=1):
        np.testing.assert_array_equal(drawn == value, shapely.contains_xy(box, columns, rows))


def test_an_invalid_polygon_is_mended_and_counted(tmp_path):
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    found = read_polygons(write(tmp_path / "p.gpkg", [bow, shapely.box(20, 20, 30, 30)]))
    assert (found.fixed, found.dropped) == (1, 0)
    assert shapely.is_valid(found.geometries).all()
    assert found.geometries[0].area == pytest.approx(50)


def test_a_polygon_without_area_is_dropped_with_its_value(tmp_path):
    line = shapely.Polygon([(0, 0), (10, 10), (0, 0), (0, 0)])
    path = write(tmp_path / "p.gpkg", [line, shapely.box(20, 20, 30, 30)], {"kind": ["a", "b"]})
    found = read_polygons(path, attribute="kind")
    assert found.dropped == 1
    assert found.values == ("b",)


def test_points_are_an_error(tmp_path):
    with pytest.raises(DataError, match="Point"):
        read_polygons(write(tmp_path / "p.gpkg", [shapely.Point(0, 0)], kind="Point"))


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_file_that_does_not_say_its_coordinate_system_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"p\.shp does not say its coordinate system"):
        read_polygons(write(tmp_path / "p.shp", [shapely.box(0, 0, 1, 1)], {"kind": ["a"]}, crs=None))


def test_an_unknown_column_lists_those_that_exist(tmp_path):
    path = write(tmp_path / "p.gpkg", [shapely.box(0, 0, 1, 1)], {"kind": ["a"], "owner": ["b"]})
    with pytest.raises(DataError, match=r"no column 'sort'.*kind, owner"):
        read_polygons(path, attribute="sort")


def test_a_file_without_polygons_or_that_is_none_or_missing_is_named(tmp_path):
    (tmp_path / "empty.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    (tmp_path / "text.geojson").write_text("no")
    for name in ("empty.geojson", "text.geojson", "none.gpkg"):
        with pytest.raises(DataError, match=name):
            read_polygons(tmp_path / name)


@given(st.integers(0, 10**6))
def test_a_window_of_a_large_scene_is_the_same_also_where_outlines_meet_the_centres_of_pixels(seed):
    rng = np.random.default_rng(seed)
    info = scene(1500, 1500, transform=Affine.identity())
    # Corners at whole pixels and a third, so that slanting edges pass through many centres, but for rounding.
    triangles = [shapely.Polygon(rng.integers(0, 1500, (3, 2)) + 1 / 3) for _ in range(12)]
    labels = draw(polygons(triangles), info, list(range(1, 13)))
    expected = whole(labels, info)
    for top, left in rng.integers(0, 1400, (4, 2)).tolist():
        rest = Window(top, left, 1500 - top, 1500 - left)
        np.testing.assert_array_equal(labels.read(rest), expected[top:, left:])


def test_threads_read_the_same_labels():
    info = scene(600, 600)
    found = [on_ground(shapely.Point(x, x).buffer(60), info) for x in range(0, 600, 30)]
    labels = draw(polygons(found), info, boundary=2, boundary_width=5.0)
    windows = [Window(top, left, 150, 150) for top in range(0, 450, 50) for left in range(0, 450, 50)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(labels.read, windows))
    for window, read in zip(windows, together, strict=True):
        np.testing.assert_array_equal(read, labels.read(window))


def test_a_wide_band_reaches_into_the_scene_from_a_polygon_far_outside():
    fine = scene(60, 80, transform=Affine(0.1, 0, 500_000, 0, -0.1, 4_983_000))
    outside = on_ground(shapely.box(-600, -100, -400, 200), fine)
    drawn = whole(draw(polygons([outside]), fine, boundary=2, boundary_width=88.0), fine)
    # 40 metres away, and half of 88 metres wide: 4 metres are left, which are 40 pixels.
    assert (drawn[:, :39] == 2).all()
    assert (drawn[:, 41:] == 0).all()


def test_a_polygon_of_half_the_earth_ends_where_its_meridian_crosses_the_scene():
    info = scene()
    half = shapely.box(-180, -90, 15.0005, 90)
    drawn = whole(draw(polygons([half], CRS.from_epsg(4326)), info), info)
    x, _ = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(15.0005, 45.0)
    assert 10 < x - 500_000 < 70
    for row in drawn:
        assert (row == 1).sum() == pytest.approx(x - 500_000, abs=1)
        assert row.tolist() == sorted(row.tolist(), reverse=True)


def test_a_long_edge_along_a_parallel_is_bent_as_the_parallel_is():
    info = scene(60, 80, transform=Affine(5000, 0, 300_000, 0, -5000, 5_130_000))
    south = shapely.box(5, 40, 25, 45)
    drawn = whole(draw(polygons([south], CRS.from_epsg(4326)), info), info)
    to_degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    _, latitude = to_degrees.transform(300_000 + 5000 * columns, 5_130_000 - 5000 * rows)
    sure = abs(latitude - 45) > 0.005
    np.testing.assert_array_equal(drawn[sure], (latitude < 45)[sure])


def test_a_band_is_as_wide_in_the_north_of_a_tall_scene_in_degrees_as_in_its_south():
    degrees = CRS.from_epsg(4326)
    info = scene(1200, 400, degrees, Affine(0.05, 0, 0, 0, -0.05, 70))
    found = [on_ground(shapely.box(200, top, 600, top + 100), info) for top in (50, 1050)]
    drawn = whole(draw(polygons(found, degrees), info, boundary=2, boundary_width=100_000.0), info)
    geod = pyproj.Geod(ellps="WGS84")
    for row in (100, 1100):
        latitude = 70 - 0.05 * (row + 0.5)
        pixel = geod.inv(10, latitude, 10.05, latitude)[2]
        assert (drawn[row] == 2).sum() == pytest.approx(100_000 / pixel, abs=1)


def test_scenes_that_are_south_up_or_rotated_have_their_labels_in_place():
    box = shapely.box(10, 20, 30, 50)
    expected = np.zeros((60, 80), np.int16)
    expected[20:50, 10:30] = 1
    for transform in (
        Affine(1, 0, 500_000, 0, 1, 4_983_000),
        Affine.translation(500_000, 4_983_000) @ Affine.rotation(30),
    ):
        info = scene(transform=transform)
        np.testing.assert_array_equal(whole(draw(polygons([on_ground(box, info)]), info), info), expected)


def test_whole_numbers_stay_whole_in_a_column_with_gaps(tmp_path):
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    features = [{"type": "Feature", "properties": {"code": code}, "geometry": square} for code in (7, None, 9)]
    (tmp_path / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found = read_polygons(tmp_path / "p.geojson", attribute="code")
    assert [repr(value) for value in found.values or ()] == ["7", "None", "9"]
    assert found.crs == CRS.from_epsg(4326)


def test_two_layers_of_polygons_are_an_error_that_lists_them_and_a_layer_of_points_is_none(tmp_path):
    path = tmp_path / "p.gpkg"
    for layer, shape in (("posts", shapely.Point(0, 0)), ("fields", shapely.box(0, 0, 1, 1))):
        wkb = shapely.to_wkb(np.array([shape], object))
        pyogrio.raw.write(path, wkb, [], [], layer=layer, geometry_type=shape.geom_type, crs="EPSG:32633")
    assert len(read_polygons(path).geometries) == 1
    pyogrio.raw.write(path, wkb, [], [], layer="woods", geometry_type="Polygon", crs="EPSG:32633")
    with pytest.raises(DataError, match=r"2 layers of polygons.*fields of Polygon, woods of Polygon"):
        read_polygons(path)


@pytest.mark.parametrize("undefined", [0, -1])
def test_a_geopackage_of_an_undefined_system_is_an_error(tmp_path, undefined):
    path = write(tmp_path / "p.gpkg", [shapely.box(0, 0, 1, 1)])
    with closing(sqlite3.connect(path)) as tables:
        tables.create_function("ST_IsEmpty", 1, lambda _: 0)
        tables.execute(f"UPDATE gpkg_contents SET srs_id = {undefined}")
        tables.execute(f"UPDATE gpkg_geometry_columns SET srs_id = {undefined}")
        tables.commit()
    with pytest.raises(DataError, match=r"p\.gpkg does not say its coordinate system"):
        read_polygons(path)


def test_a_truncated_geopackage_is_named(tmp_path):
    path = write(tmp_path / "p.gpkg", [shapely.box(i, 0, i + 1, 1) for i in range(2000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"p\.gpkg cannot be read"):
        read_polygons(path)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_polygon_with_a_corner_that_is_no_number_is_dropped(tmp_path):
    broken = shapely.Polygon([(0, 0), (np.nan, 1), (1, 1)])
    assert read_polygons(write(tmp_path / "p.gpkg", [broken, shapely.box(0, 0, 1, 1)])).dropped == 1


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixelwise\[geo\]'"):
        read_polygons(tmp_path / "p.gpkg")
