import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from small_parcels import parcels, tree_map, write

from pixelwise.parcels.polygonize import polygonize


def test_areas_in_degrees_are_geodesic(tmp_path):
    place = Affine(0.001, 0, 15, 0, -0.001, 60)
    polygonize(write(tmp_path, np.zeros((40, 30)), crs=CRS.from_epsg(4326), transform=place), tmp_path / "p.gpkg")
    _, columns, _ = parcels(tmp_path / "p.gpkg")
    area, perimeter = pyproj.Geod(ellps="WGS84").polygon_area_perimeter([15, 15, 15.03, 15.03], [60, 59.96, 59.96, 60])
    assert columns["area_m2"][0] == pytest.approx(area, rel=1e-9)
    assert columns["perim_m"][0] == pytest.approx(perimeter, rel=1e-9)


def test_areas_in_feet_are_given_in_square_metres(tmp_path):
    # In the middle of New York; the unit of its state plane is the US survey foot.
    place = Affine(2, 0, 984_000, 0, -2, 200_000)
    polygonize(write(tmp_path, np.zeros((10, 10)), crs=CRS.from_epsg(2263), transform=place), tmp_path / "p.gpkg")
    foot = 1200 / 3937
    assert parcels(tmp_path / "p.gpkg")[1]["area_m2"][0] == pytest.approx(100 * 4 * foot**2, rel=1e-6)


def test_areas_in_web_mercator_are_those_on_the_ground(tmp_path):
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(15.0, 60.0)
    place = Affine(2, 0, x, 0, -2, y)
    polygonize(write(tmp_path, np.zeros((10, 10)), crs=CRS.from_epsg(3857), transform=place), tmp_path / "p.gpkg")
    # Web Mercator stretches lengths at 60 degrees by 2; the ellipsoid takes some thousandths off.
    assert parcels(tmp_path / "p.gpkg")[1]["area_m2"][0] == pytest.approx(400 / 4, rel=0.01)


def test_a_geojson_is_in_degrees_and_its_areas_are_those_of_the_map(tmp_path):
    polygonize(write(tmp_path, np.zeros((10, 10))), tmp_path / "p.geojson")
    shapes, columns, crs = parcels(tmp_path / "p.geojson")
    expected = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform_bounds(
        500_000, 4_999_980, 500_020, 5_000_000
    )
    assert crs == CRS.from_epsg(4326)
    assert shapes[0].bounds == pytest.approx(expected, abs=1e-6)
    assert columns["area_m2"][0] == 400


def test_areas_in_degrees_add_up_to_that_of_the_whole(tmp_path):
    place = Affine(0.01, 0, 15, 0, -0.01, 60)
    labels = tree_map()[0]
    polygonize(write(tmp_path, labels, crs=CRS.from_epsg(4326), transform=place), tmp_path / "p.gpkg")
    shapes, columns, _ = parcels(tmp_path / "p.gpkg")
    whole, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.union_all(shapes))
    assert columns["area_m2"].sum() == pytest.approx(abs(whole), rel=1e-9)
