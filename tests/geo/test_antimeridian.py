"""A place at 180 degrees, or a pole, is a place like any other: checked against copies elsewhere and pyproj's Geod."""

import json
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from pixelwise.data.footprints import overlapping_groups
from pixelwise.geo.polygon_labels import count_touching, labels_for_scene
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.geo.vector import Polygons, read_polygons
from pixelwise.parcels.polygonize import polygonize
from pixelwise.parcels.scores import score_parcels

DEGREES = CRS.from_epsg(4326)
SIDE = 60


def header(crs, transform, height=SIDE, width=SIDE, name="scene.tif"):
    return RasterInfo(Path(name), height, width, 1, None, "uint8", None, CRS.from_user_input(crs), transform, False)


def around(crs, longitude, latitude, pixel, size=SIDE):
    """Return the transform of a scene around a place."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    return Affine(pixel, 0, x - size * pixel / 2, 0, -pixel, y + size * pixel / 2)


def geojson(path, geometries):
    features = [
        {"type": "Feature", "properties": {"class": "a"}, "geometry": shapely.geometry.mapping(g)} for g in geometries
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def cut(shape):
    """Cut a shape that runs on beyond 180 degrees as RFC 7946 has it."""
    west = shapely.intersection(shape, shapely.box(-180, -90, 180, 90))
    east = shapely.affinity.translate(shapely.intersection(shape, shapely.box(180, -90, 540, 90)), -360)
    parts = [part for half in (west, east) for part in shapely.get_parts(half) if part.geom_type == "Polygon"]
    return shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0]


def the_short_way(shape):
    """Write longitudes between -180 and 180 and leave it to the reader which way edges go."""
    return shapely.transform(shape, lambda xy: np.stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]], axis=1))


def drawn(path, info, boundary=True):
    found = read_polygons(path)
    labels = labels_for_scene(
        found,
        info,
        np.ones(len(found.geometries), np.int16),
        background=0,
        boundary=2 if boundary else None,
        boundary_width=25.0,
    )
    return labels.read(Window(0, 0, info.height, info.width))


triangles = st.lists(
    st.lists(st.tuples(st.floats(-0.004, 0.004), st.floats(-0.004, 0.004)), min_size=3, max_size=3),
    min_size=1,
    max_size=3,
)


@settings(max_examples=12)
@given(triangles, st.sampled_from(["utm", "degrees", "degrees 0-360", "mercator"]), st.booleans())
def test_labels_at_180_degrees_are_those_of_a_copy_at_0(tmp_path_factory, found, system, rfc7946):
    folder, latitude = tmp_path_factory.mktemp("labels"), -17.0
    shapes = [shapely.Polygon(corners) for corners in found]
    shapes = [shape for shape in shapes if shape.area > 1e-7]
    if not shapes:
        return
    here = [shapely.affinity.translate(shape, 3.0, latitude) for shape in shapes]
    there = [shapely.affinity.translate(shape, 180.0, latitude) for shape in shapes]
    written = [cut(shape) if rfc7946 else the_short_way(shape) for shape in there]
    pixel = {"utm": 15.0, "mercator": 15.0}.get(system, 0.00015)
    if system == "utm":
        # Zone 31 is around 3 degrees, and a transverse Mercator around 180 degrees is its copy.
        crs = "+proj=tmerc +lat_0=0 +lon_0={} +k=0.9996 +x_0=500000 +y_0=0 +datum=WGS84 +units=m"
        infos = [header(crs.format(lon), around(crs.format(3), 3, latitude, pixel)) for lon in (3, 180)]
    elif system == "mercator":
        infos = [header("EPSG:3857", around("EPSG:3857", lon, latitude, pixel)) for lon in (3, 180)]
    else:
        step = -180.0 if system == "degrees" else 180.0
        infos = [
            header("EPSG:4326", Affine(pixel, 0, lon - SIDE * pixel / 2, 0, -pixel, latitude + SIDE * pixel / 2))
            for lon in (3.0, step)
        ]
    expected = drawn(geojson(folder / "here.geojson", here), infos[0])
    got = drawn(geojson(folder / "there.geojson", written), infos[1])
    # Rounding of a coordinate of 180 instead of 3 may move an outline over a pixel's centre.
    assert (got != expected).mean() <= 2e-3
    assert (got != 0).any() == (expected != 0).any()


def test_a_scene_in_0_to_360_degrees_meets_polygons_in_minus_180_to_180(tmp_path):
    info = header("EPSG:4326", Affine(0.01, 0, 190.0, 0, -0.01, 10.0))
    path = geojson(tmp_path / "p.geojson", [shapely.box(-169.9, 9.6, -169.7, 9.8)])
    found = read_polygons(path)
    assert count_touching(found, info) == 1
    assert drawn(path, info, boundary=False).sum() == 20 * 20


def test_a_scene_of_the_whole_world_in_0_to_360_degrees_shows_a_polygon_across_greenwich_at_both_ends(tmp_path):
    info = header("EPSG:4326", Affine(1, 0, 0, 0, -1, 90), 180, 360)
    labels = drawn(geojson(tmp_path / "p.geojson", [shapely.box(-5, -5, 5, 5)]), info, boundary=False)
    assert labels.sum() == 100
    assert labels[:, :5].sum() == labels[:, -5:].sum() == 50


@pytest.mark.parametrize("crs", ["EPSG:5041", "EPSG:3413"])
def test_polygons_around_a_pole_cover_it_without_an_outline_along_the_antimeridian(tmp_path, crs):
    info = header(crs, around(crs, 0, 90, 1000.0))
    path = geojson(tmp_path / "p.geojson", [shapely.box(-180, 89.8, 180, 90)])
    found = read_polygons(path)
    labels = labels_for_scene(found, info, np.ones(1, np.int16), background=0, boundary=2, boundary_width=2500.0)
    labels = labels.read(Window(0, 0, SIDE, SIDE))
    columns, rows = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    x, y = info.transform @ (columns, rows)
    _, latitude = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    away = (latitude - 89.8) * 111_690
    np.testing.assert_array_equal(labels[abs(away) > 2500], np.where(away > 0, 1, 0)[abs(away) > 2500])


@settings(max_examples=20)
@given(
    st.sampled_from(
        [
            *(("EPSG:32660", 180, -17, 10.0), ("EPSG:32701", 180, 10, 10.0), ("EPSG:3832", 180, -17, 10.0)),
            *(("EPSG:3413", 180, 75, 100.0), ("EPSG:5041", 0, 90, 1000.0), ("EPSG:3031", 30, -90, 1000.0)),
            *(("EPSG:4326", 180, 60, 0.001), ("EPSG:3857", 180, 50, 10.0), ("EPSG:32616", -87, 41, 10.0)),
        ]
    ),
    st.integers(0, 10**6),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)) | st.just((0.0, 0.0)),
)
def test_a_geojson_is_cut_at_180_and_keeps_each_area_and_the_coverage(tmp_path_factory, place, seed, shift):
    folder, (crs, longitude, latitude, pixel) = tmp_path_factory.mktemp("cut"), place
    labels = np.kron(np.random.default_rng(seed).integers(0, 3, (6, 6)), np.ones((5, 5), int)).astype(np.uint8)
    transform = around(crs, longitude, latitude, pixel, 30) @ Affine.translation(*shift)
    profile = {"driver": "GTiff", "count": 1, "height": 30, "width": 30, "dtype": "uint8", "nodata": 255}
    with rasterio.open(folder / "map.tif", "w", crs=crs, transform=transform, **profile) as file:
        file.write(labels, 1)
    polygonize(folder / "map.tif", folder / "p.geojson")
    polygonize(folder / "map.tif", folder / "p.gpkg")
    shapes = shapely.from_wkb(pyogrio.raw.read(folder / "p.geojson")[2])
    truth = shapely.from_wkb(pyogrio.raw.read(folder / "p.gpkg")[2])
    bounds = shapely.bounds(shapes)
    assert bounds[:, 0].min() >= -180
    assert bounds[:, 2].max() <= 180
    assert {shape.geom_type for shape in shapes} <= {"Polygon", "MultiPolygon"}
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    # The outlines in the map's plane, with a corner every half pixel, measured on the ellipsoid.
    geod, back = pyproj.Geod(ellps="WGS84"), pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    fine = shapely.transform(
        shapely.segmentize(truth, pixel / 2), lambda xy: np.stack(back.transform(xy[:, 0], xy[:, 1]), axis=1)
    )
    exact = np.array([abs(geod.geometry_area_perimeter(shape)[0]) for shape in fine])
    area = np.array([abs(geod.geometry_area_perimeter(shape)[0]) for shape in shapes])
    np.testing.assert_allclose(area, exact, rtol=2e-3)
    assert area.sum() == pytest.approx(exact.sum(), rel=1e-5)


def test_parcels_at_180_degrees_score_as_their_copy_elsewhere(tmp_path):
    rng = np.random.default_rng(3)
    boxes = [shapely.box(x, y, x + 0.0009, y + 0.0009) for x in np.arange(-4, 4) / 1e3 for y in np.arange(-4, 4) / 1e3]
    moved = [shapely.affinity.translate(box, *rng.uniform(-3e-4, 3e-4, 2)) for box in boxes]
    scores = []
    for longitude, write in ((10.0, lambda shape: shape), (180.0, cut), (180.0, the_short_way)):
        found, true = (
            geojson(tmp_path / name, [write(shapely.affinity.translate(each, longitude, -17)) for each in shapes])
            for name, shapes in (("found.geojson", moved), ("true.geojson", boxes))
        )
        scores.append(score_parcels(found, true, tolerance=5, truth_attribute="class", block=100).to_dict())
    assert 0.1 < scores[0]["f1"] < 0.9
    for other in scores[1:]:
        for key in ("parcels", "truth", "matched", "missed", "blocks"):
            assert other[key] == pytest.approx(scores[0][key], abs=0 if key != "blocks" else 20)
        for key in ("f1", "matched_iou", "over_segmentation", "under_segmentation", "boundary_f1"):
            assert other[key] == pytest.approx(scores[0][key], abs=2e-3)
        assert other["areas"][0]["area"] == pytest.approx(scores[0]["areas"][0]["area"], rel=1e-4)


def test_a_polygon_of_most_of_the_earth_is_not_taken_for_a_narrow_one(tmp_path):
    for shape in (shapely.box(-180, -90, 15, 90), shapely.box(-179, -80, 179, 80), shapely.box(-180, -90, 180, 90)):
        assert read_polygons(geojson(tmp_path / "p.geojson", [shape])).geometries[0].area == pytest.approx(shape.area)


def test_a_hole_of_a_polygon_across_180_degrees_stays_a_hole(tmp_path):
    ring = shapely.box(179.99, -17.01, 180.01, -16.99) - shapely.box(179.995, -17.005, 179.999, -16.995)
    for write in (cut, the_short_way):
        (found,) = read_polygons(geojson(tmp_path / "p.geojson", [write(ring)])).geometries
        assert found.area == pytest.approx(ring.area)


@given(
    st.sampled_from([("EPSG:32760", "EPSG:32701"), ("EPSG:32760", "EPSG:4326"), ("EPSG:3857", "EPSG:32701")]),
    st.floats(-0.3, 0.3),
    st.floats(-40, 40),
)
def test_scenes_of_one_place_at_180_degrees_are_one_group_in_any_two_systems(systems, shift, latitude):
    infos = []
    for crs in systems:
        pixel = 1e-4 if crs == "EPSG:4326" else 10.0
        infos.append(
            header(crs, around(crs, 180 + shift if shift < 0 else -180 + shift, latitude, pixel, 100), 100, 100)
        )
    assert overlapping_groups(infos) == [[0, 1]]
    far = header(
        systems[1], around(systems[1], 178 if shift > 0 else -178, latitude, infos[1].transform.a, 100), 100, 100
    )
    assert overlapping_groups([*infos, far]) == [[0, 1], [2]]


@given(
    st.floats(-179, 179),
    st.floats(-70, 70),
    st.floats(0, 359),
    st.integers(5, 80),
    st.floats(0, 0.05),
    st.floats(0, 6.28),
)
def test_overlaps_in_different_systems_are_those_of_shapely_in_one_plane(longitude, latitude, angle, size, apart, way):
    plane = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84"
    one = header("EPSG:4326", around("EPSG:4326", longitude, latitude, 1e-3))
    there = (longitude + apart * np.cos(way) / np.cos(np.radians(latitude)), latitude + apart * np.sin(way))
    crs = f"+proj=tmerc +lon_0={longitude - 3} +datum=WGS84"
    other = header(crs, around(crs, *there, 100.0, size) @ Affine.rotation(angle, (size / 2, size / 2)), size, size)
    shapes = []
    for info in (one, other):
        box = shapely.segmentize(shapely.box(0, 0, info.width, info.height), 1)
        to_plane = pyproj.Transformer.from_crs(info.crs.to_wkt(), plane, always_xy=True)
        ground = shapely.transform(box, lambda xy, t=info.transform: np.stack(t @ (xy[:, 0], xy[:, 1]), axis=1))
        shapes.append(
            shapely.transform(ground, lambda xy, f=to_plane: np.stack(f.transform(xy[:, 0], xy[:, 1]), axis=1))
        )
    if abs(shapely.area(shapely.intersection(*shapes))) > 1e4:
        assert overlapping_groups([one, other]) == [[0, 1]]
    elif shapely.distance(*shapes) > 20:
        assert overlapping_groups([one, other]) == [[0], [1]]


def test_polygons_has_no_place_for_infinite_ground():
    found = Polygons(Path("p"), np.array([shapely.box(0, 0, 1, 1)], object), None, DEGREES, 0, 0)
    info = header("EPSG:32633", Affine(1, 0, 1e12, 0, -1, 1e12))
    assert count_touching(found, info) == 0
