import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC

from pixelwise.data.footprints import overlapping_groups, pixel_metres, resolution_note
from pixelwise.errors import DataError
from pixelwise.geo.coordinates import around_globe, placement, transform_of_points, transformed
from pixelwise.geo.polygon_labels import labels_for_scene
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.geo.vector import Polygons

UTM = CRS.from_epsg(32616)


def scene(name="s.tif", crs=None, transform=None, **more):
    return RasterInfo(Path(name), 40, 50, 1, None, "uint8", None, crs, transform or Affine.identity(), False, **more)


def points(transform, bend=0.0):
    return tuple(
        GroundControlPoint(row, col, *(transform @ (col + bend * np.sin(row / 8), row)))
        for row in (0, 13, 40)
        for col in (0, 25, 50)
    )


placements = st.tuples(st.floats(0, 360), st.floats(0.1, 30), st.floats(-0.3, 0.3)).map(
    lambda v: (
        Affine.translation(500000, 4600000) @ Affine.rotation(v[0]) @ Affine.shear(v[2]) @ Affine.scale(v[1], -v[1])
    )
)


@given(placements)
def test_control_points_on_a_straight_grid_place_a_scene_as_its_transform_does(transform):
    info = scene(gcps=points(transform), gcps_crs=UTM)
    crs, found = placement(info, "")
    assert crs == UTM
    corners = np.array([(0, 0), (50, 0), (50, 40), (0, 40)])
    for corner in corners:
        np.testing.assert_allclose(found @ corner, transform @ corner, atol=1e-4)
    shape = shapely.Polygon([transform @ corner for corner in [(10, 10), (30, 12), (20, 30)]])
    polygons, one = Polygons(Path("p"), np.array([shape], object), None, UTM, 0, 0), np.ones(1, np.int16)
    options = {"background": 0, "boundary": None, "boundary_width": 1.0}
    drawn, expected = (
        labels_for_scene(polygons, each, one, **options).read(Window(0, 0, 40, 50))
        for each in (info, scene(crs=UTM, transform=transform))
    )
    assert (drawn != expected).sum() <= 2


def test_control_points_that_bend_and_camera_models_are_refused_with_what_to_do():
    transform = Affine(2, 0, 500000, 0, -2, 4600000)
    bent = scene(gcps=points(transform, bend=3.0), gcps_crs=UTM)
    assert transform_of_points(bent) is None
    with pytest.raises(DataError, match=r"s\.tif is placed by control points.*gdalwarp -tps"):
        placement(bent, "it has no place")
    with pytest.raises(DataError, match=r"camera model \(RPCs\).*gdalwarp -rpc"):
        placement(scene(rpcs=camera(40, -87)), "it has no place")
    with pytest.raises(DataError, match="pixels of size 0"):
        placement(scene(crs=UTM, transform=Affine(0, 0, 500000, 0, 0, 4600000)), "it has no place")


def camera(latitude, longitude):
    zero = [0.0] * 17
    return RPC(
        height_off=0, height_scale=1, lat_off=latitude, lat_scale=0.001, long_off=longitude, long_scale=0.001,
        line_off=20, line_scale=20, samp_off=25, samp_scale=25, line_num_coeff=[0, 0, 1, *zero],
        line_den_coeff=[1, 0, 0, *zero], samp_num_coeff=[0, 1, 0, *zero], samp_den_coeff=[1, 0, 0, *zero],
        err_bias=0, err_rand=0,
    )  # fmt: skip


def test_scenes_placed_by_points_or_a_camera_stay_with_those_they_share_ground_with():
    transform = Affine(2, 0, 500000, 0, -2, 4600000)
    x, y = pyproj.Transformer.from_crs(4326, 32616, always_xy=True).transform(-87.0, 40.0)
    scenes = [
        scene("0.tif", gcps=points(transform), gcps_crs=UTM),
        scene("1.tif", gcps=points(transform, bend=3.0), gcps_crs=UTM),
        scene("2.tif", UTM, transform @ Affine.translation(20, 20)),
        scene("3.tif", rpcs=camera(40, -87)),
        scene("4.tif", UTM, Affine(1, 0, x, 0, -1, y)),
        scene("5.tif", rpcs=camera(40, -87.1)),
        scene("6.tif"),
    ]
    assert overlapping_groups(scenes) == [[0, 1, 2], [3, 4], [5], [6]]


@pytest.mark.parametrize(
    ("epsg", "length"), [(4326, 360), (3857, 2 * np.pi * 6378137), (3832, 2 * np.pi * 6378137), (32660, None)]
)
def test_where_a_coordinate_system_goes_around_the_globe(epsg, length):
    circle = around_globe(CRS.from_epsg(epsg))
    assert (circle.length if circle else None) == (length and pytest.approx(length))


def test_a_point_without_a_place_is_infinite_and_the_others_are_not():
    found = transformed(CRS.from_epsg(4326), CRS.from_epsg(3857), np.array([[15.0, 0.0], [15.0, 95.0]]))
    assert found[0].tolist() == pytest.approx([1669792.36, 0.0])
    assert not np.isfinite(found[1]).all()


def test_pixels_of_different_size_on_the_ground_are_said():
    geod = pyproj.Geod(ellps="WGS84")
    degrees = scene("degrees.tif", CRS.from_epsg(4326), Affine(1e-4, 0, 10, 0, -1e-4, 60))
    across, down = geod.inv(10, 60, 10 + 1e-4, 60)[2], geod.inv(10, 60, 10, 60 + 1e-4)[2]
    assert pixel_metres(degrees) == pytest.approx(np.sqrt(across * down), rel=5e-3)
    metres = scene("metres.tif", UTM, Affine(8, 0, 500000, 0, -8, 4600000))
    assert resolution_note([degrees, metres, scene()]) is None
    note = resolution_note([degrees, scene("fine.tif", UTM, Affine(0.5, 0, 500000, 0, -0.5, 4600000))])
    assert note is not None
    assert "0.5 m wide on the ground in fine.tif" in note
    assert "degrees.tif" in note


@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
def test_files_of_another_proj_are_named_and_no_place_is_guessed(tmp_path, variable):
    code = (
        "import sys; from pixelwise.errors import PixelwiseError\n"
        "try:\n    from pixelwise.geo.raster import describe; import pixelwise.parcels.polygonize\n"
        "    describe(sys.argv[1])\nexcept PixelwiseError as error:\n    print(error)\n"
    )
    import rasterio

    for epsg in (32616, 3857):
        profile = {"driver": "GTiff", "count": 1, "height": 2, "width": 2, "dtype": "uint8"}
        with rasterio.open(
            tmp_path / "s.tif", "w", crs=f"EPSG:{epsg}", transform=Affine(2, 0, 5e5, 0, -2, 4.6e6), **profile
        ):
            pass
        (tmp_path / "other").mkdir(exist_ok=True)
        told = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "s.tif"],
            env={**os.environ, variable: str(tmp_path / "other")}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"{variable} = {tmp_path / 'other'}" in told.stdout
        assert "Unset it" in told.stdout
