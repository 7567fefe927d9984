import math

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize
from small_parcels import CLASSES, HERE, UTM, maps, parcels, pieces, tree_map, write

from pixelwise.geo.label_map import CONFIDENCE_NODATA
from pixelwise.parcels import regions
from pixelwise.parcels.polygonize import polygonize


@given(maps())
def test_parcels_give_the_map_back_and_their_areas_are_those_of_their_pixels(tmp_path_factory, case):
    folder = tmp_path_factory.mktemp("map")
    labels, valid, _ = case
    valid[0, 0] = True
    summary = polygonize(write(folder, labels, valid), folder / "p.gpkg")
    shapes, columns, crs = parcels(folder / "p.gpkg")
    burnt = rasterize(
        zip(shapes, columns["class_id"].tolist(), strict=True), out_shape=labels.shape, transform=HERE, fill=255
    )
    np.testing.assert_array_equal(burnt, np.where(valid, labels, 255))
    assert crs == UTM
    assert shapely.is_valid(shapes).all()
    assert summary.parcels == len(shapes)
    for i, name in enumerate(CLASSES.names):
        pixels = ((labels == i) & valid).sum()
        assert columns["area_m2"][columns["class"] == name].sum() == pytest.approx(pixels * 4)
        assert summary.areas[name] == pytest.approx(pixels * 4)
    np.testing.assert_allclose(columns["perim_m"], shapely.length(shapes))


@given(maps())
def test_each_parcel_is_one_flood_of_its_class_and_has_the_mean_confidence_of_its_pixels(tmp_path_factory, case):
    folder = tmp_path_factory.mktemp("map")
    labels, _, confidence = case
    polygonize(write(folder, labels, confidence=confidence.astype(np.float32)), folder / "p.gpkg")
    shapes, columns, _ = parcels(folder / "p.gpkg")
    number = pieces(labels)
    expected = sorted((float((number == i).sum() * 4), confidence[number == i].mean()) for i in range(number.max() + 1))
    found = sorted(zip(columns["area_m2"].tolist(), columns["confidence"].tolist(), strict=True))
    assert len(shapes) == len(expected)
    # One step of the confidence on disk is 1/254.
    assert [area for area, _ in found] == pytest.approx([area for area, _ in expected])
    assert sorted(c for _, c in found) == pytest.approx(sorted(c for _, c in expected), abs=0.5 / 254 + 1e-6)


def test_a_hole_is_kept(tmp_path):
    labels = np.zeros((9, 9), int)
    labels[3:6, 3:6] = 1
    polygonize(write(tmp_path, labels), tmp_path / "p.gpkg", classes=["water"])
    shapes, columns, _ = parcels(tmp_path / "p.gpkg")
    assert len(shapes) == 1
    assert len(shapes[0].interiors) == 1
    assert columns["area_m2"].tolist() == [(81 - 9) * 4]
    assert columns["perim_m"].tolist() == [(36 + 12) * 2]


def test_pixels_that_touch_at_a_corner_are_two_parcels(tmp_path):
    summary = polygonize(write(tmp_path, np.eye(2, dtype=int)), tmp_path / "p.gpkg", classes=["forest"])
    assert summary.parcels == 2


def test_parcels_below_the_smallest_area_become_part_of_their_neighbour_or_are_left_out(tmp_path):
    labels = np.zeros((9, 9), int)
    labels[1, 1] = labels[4:6, 4] = 1
    path = write(tmp_path, labels)
    summary = polygonize(path, tmp_path / "p.gpkg", minimum_area=8)
    assert (summary.parcels, summary.removed) == (2, 1)
    assert summary.areas == {"water": 79 * 4, "forest": 8, "road": 0}
    summary = polygonize(path, tmp_path / "p.gpkg", minimum_area=8, merge=False)
    assert (summary.parcels, summary.removed) == (2, 1)
    assert summary.areas == {"water": 78 * 4, "forest": 8, "road": 0}


def test_nodata_in_the_confidence_is_not_in_any_mean(tmp_path):
    labels, valid = np.zeros((4, 4), int), np.ones((4, 4), bool)
    valid[:2] = False
    polygonize(write(tmp_path, labels, valid, np.full((4, 4), 0.5, np.float32)), tmp_path / "p.gpkg")
    with rasterio.open(tmp_path / "map.confidence.tif") as file:
        assert (file.read(1)[:2] == CONFIDENCE_NODATA).all()
    assert parcels(tmp_path / "p.gpkg")[1]["confidence"].tolist() == [pytest.approx(127 / 254)]


@given(maps(), st.sampled_from([HERE, HERE @ Affine.rotation(30), Affine(2, 0, 500_000, 0, 2, 5_000_000)]))
def test_parcels_are_valid_and_never_overlap_north_up_south_up_or_rotated(tmp_path_factory, case, transform):
    folder = tmp_path_factory.mktemp("map")
    labels, valid, _ = case
    polygonize(write(folder, labels, valid, transform=transform), folder / "p.gpkg")
    shapes, columns, _ = parcels(folder / "p.gpkg")
    assert shapely.is_valid(shapes).all()
    assert columns["area_m2"].sum() == pytest.approx(valid.sum() * 4, rel=1e-6)
    assert shapely.union_all(shapes).area == pytest.approx(valid.sum() * 4, rel=1e-6)


PLACES = [HERE, HERE @ Affine.rotation(30), Affine(2, 0, 500_000, 0, 3, 5_000_000)]


@pytest.mark.parametrize("transform", PLACES)
@pytest.mark.parametrize("simplify", [0.0, 3.0, 20.0])
@pytest.mark.parametrize("minimum", [0.0, 60.0])
def test_parcels_are_a_coverage_whose_areas_are_the_rasters_to_the_square_millimetre(
    tmp_path, transform, simplify, minimum
):
    labels, valid, _ = tree_map()
    path = write(tmp_path, labels, valid, transform=transform)
    made = polygonize(path, tmp_path / "p.gpkg", simplify=simplify, minimum_area=minimum)
    shapes, columns, _ = parcels(tmp_path / "p.gpkg")
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    assert made.tolerance == simplify
    assert abs(math.fsum(columns["area_m2"]) - valid.sum() * abs(transform.determinant)) < 1e-6
    assert columns["area_m2"] == pytest.approx(shapely.area(shapes), abs=1e-3)
    assert minimum == 0 or simplify > 0 or columns["area_m2"].min() >= minimum


@pytest.mark.parametrize("strip_pixels", [1, 100, 777])
def test_the_height_of_strips_changes_no_byte_of_what_is_written(tmp_path, monkeypatch, strip_pixels):
    path = write(tmp_path, *tree_map())
    options = {"minimum_area": 40.0, "simplify": 2.0, "instances": ("forest", "road"), "core": 3.0}
    polygonize(path, tmp_path / "whole.fgb", **options)
    monkeypatch.setattr(regions, "STRIP_PIXELS", strip_pixels)
    polygonize(path, tmp_path / "strips.fgb", **options)
    (one, one_columns, _), (other, other_columns, _) = parcels(tmp_path / "whole.fgb"), parcels(tmp_path / "strips.fgb")
    assert shapely.to_wkb(one).tolist() == shapely.to_wkb(other).tolist()
    for name, column in one_columns.items():
        np.testing.assert_array_equal(column, other_columns[name])


def test_the_lowest_confidence_and_the_compactness_are_those_of_the_parcel(tmp_path):
    labels, confidence = np.zeros((10, 10), int), np.full((10, 10), 200 / 254, np.float32)
    labels[:, 5:], confidence[3, 3] = 1, 100 / 254
    polygonize(write(tmp_path, labels, confidence=confidence), tmp_path / "p.gpkg")
    _, columns, _ = parcels(tmp_path / "p.gpkg")
    assert columns["conf_min"].tolist() == pytest.approx([100 / 254, 200 / 254])
    assert columns["compact"].tolist() == pytest.approx([4 * np.pi * 200 / 60**2] * 2)


def test_two_fields_are_two_parcels_that_share_the_boundary_between_them(tmp_path):
    labels = np.full((30, 55), 2)
    labels[5:25, 5:25] = labels[5:25, 30:50] = 1
    labels[14:17, 25:30] = 1
    path = write(tmp_path, labels)
    assert polygonize(path, tmp_path / "p.gpkg", classes=["forest"]).parcels == 1
    made = polygonize(path, tmp_path / "p.gpkg", classes=["forest"], instances=("forest", "road"), core=4.0)
    assert made.parcels == 2
    assert made.areas["forest"] == labels.size * 4
    assert polygonize(path, tmp_path / "p.gpkg", instances=("forest", "road"), core=0.0).parcels == 1
