import json
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

from pixelwise.errors import DataError
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.geo.vector import Polygons, count_touching, labels_for_scene, read_polygons

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
    boxes = [shapely.box(x, 10 + x / 2, x + 15, 50) for x in (5, 30, 55)]
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
    assert (found.mended, found.dropped) == (1, 0)
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
