import json
import math
import sys

import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize

from pixelwise.errors import ConfigError, DataError, MissingExtraError
from pixelwise.geo import regions
from pixelwise.geo.label_map import CONFIDENCE_NODATA, LabelMapWriter
from pixelwise.geo.raster import RasterInfo
from pixelwise.jobs.polygonize import polygonize
from pixelwise.labels import make_classes

CLASSES = make_classes(["water", "forest", "road"])
UTM, HERE = CRS.from_epsg(32633), Affine(2, 0, 500_000, 0, -2, 5_000_000)


def write(folder, labels, valid=None, confidence=None, crs=UTM, transform=HERE):
    """Write a label map as prediction does."""
    height, width = labels.shape
    info = RasterInfo(folder / "scene.tif", height, width, 3, None, "uint8", None, crs, transform, False)
    valid = np.ones(labels.shape, bool) if valid is None else valid
    sure = confidence is not None
    with LabelMapWriter(folder / "map.tif", info, CLASSES, tags={}, confidence=sure) as writer:
        writer.write(0, labels.astype(np.uint8), confidence, valid)
    return folder / "map.tif"


def parcels(path):
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        geo = json.loads(table.schema.metadata[b"geo"])
        columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
        crs = pyproj.CRS.from_json_dict(geo["columns"][geo["primary_column"]]["crs"])
        return shapely.from_wkb(columns.pop(geo["primary_column"])), columns, CRS.from_wkt(crs.to_wkt())
    meta, _, wkb, columns = pyogrio.raw.read(path)
    return (
        shapely.from_wkb(wkb),
        dict(zip(meta["fields"].tolist(), columns, strict=True)),
        CRS.from_user_input(meta["crs"]),
    )


@st.composite
def maps(draw):
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return rng.integers(0, 3, shape), rng.random(shape) < draw(st.sampled_from([0.6, 1.0])), rng.random(shape)


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


def pieces(labels):
    """Number the pixels that join by edges, one flood at a time."""
    number = np.full(labels.shape, -1)
    for start in np.ndindex(labels.shape):
        if number[start] >= 0:
            continue
        waiting, own = [start], number.max() + 1
        while waiting:
            r, c = waiting.pop()
            if not (0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]):
                continue
            if number[r, c] < 0 and labels[r, c] == labels[start]:
                number[r, c] = own
                waiting += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
    return number


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


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson", "fgb", "shp"])
def test_every_format_holds_every_parcel(tmp_path, suffix):
    labels = np.random.default_rng(0).integers(0, 3, (8, 8))
    summary = polygonize(write(tmp_path, labels), tmp_path / f"p.{suffix}")
    shapes, columns, _ = parcels(tmp_path / f"p.{suffix}")
    assert len(shapes) == summary.parcels == pieces(labels).max() + 1
    assert set(columns["class"]) == set(CLASSES.names)


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
    with rasterio.open(tmp_path / "map.confidence.tif") as sure:
        assert (sure.read(1)[:2] == CONFIDENCE_NODATA).all()
    assert parcels(tmp_path / "p.gpkg")[1]["confidence"].tolist() == [pytest.approx(127 / 254)]


def test_a_map_without_data_gives_an_empty_file(tmp_path):
    path = write(tmp_path, np.zeros((4, 4), int), np.zeros((4, 4), bool))
    assert polygonize(path, tmp_path / "p.gpkg").parcels == 0
    assert len(parcels(tmp_path / "p.gpkg")[0]) == 0


def test_an_unknown_suffix_or_class_is_an_error_that_lists_the_known_ones(tmp_path):
    path = write(tmp_path, np.zeros((4, 4), int))
    with pytest.raises(ConfigError, match=r"\.gpkg, \.parquet, \.geojson"):
        polygonize(path, tmp_path / "p.kml")
    with pytest.raises(ConfigError, match="no class 'lake'; it has water, forest, road"):
        polygonize(path, tmp_path / "p.gpkg", classes=["lake"])
    assert not (tmp_path / "p.gpkg").exists()


def test_a_map_without_a_place_and_a_picture_are_errors(tmp_path):
    with pytest.raises(DataError, match="coordinate system"):
        polygonize(write(tmp_path, np.zeros((4, 4), int), crs=None), tmp_path / "p.gpkg")
    with rasterio.open(
        tmp_path / "rgb.tif", "w", driver="GTiff", height=4, width=4, count=3, dtype="uint8", crs=UTM, transform=HERE
    ) as out:
        out.write(np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match="no label map"):
        polygonize(tmp_path / "rgb.tif", tmp_path / "p.gpkg")


@given(maps(), st.sampled_from([HERE, HERE @ Affine.rotation(30), Affine(2, 0, 500_000, 0, 2, 5_000_000)]))
def test_parcels_are_valid_and_never_overlap_north_up_south_up_or_rotated(tmp_path_factory, case, transform):
    folder = tmp_path_factory.mktemp("map")
    labels, valid, _ = case
    polygonize(write(folder, labels, valid, transform=transform), folder / "p.gpkg")
    shapes, columns, _ = parcels(folder / "p.gpkg")
    assert shapely.is_valid(shapes).all()
    assert columns["area_m2"].sum() == pytest.approx(valid.sum() * 4, rel=1e-6)
    assert shapely.union_all(shapes).area == pytest.approx(valid.sum() * 4, rel=1e-6)


def test_a_geojson_follows_its_standard_and_neighbours_still_meet(tmp_path):
    # 40 km wide: its straight edges are metres away from straight ones in degrees.
    labels = np.zeros((20, 400), int)
    labels[10:] = 1
    labels[9, 200] = labels[10, 100] = 2
    place = Affine(100, 0, 500_000, 0, -100, 7_000_000)
    polygonize(write(tmp_path, labels, transform=place), tmp_path / "p.geojson")
    content = json.loads((tmp_path / "p.geojson").read_text())
    assert "crs" not in content
    shapes = parcels(tmp_path / "p.geojson")[0]
    assert shapely.is_valid(shapes).all()
    assert all(shape.exterior.is_ccw for shape in shapes)
    geod = pyproj.Geod(ellps="WGS84")
    gaps = [ring for part in shapely.get_parts(shapely.union_all(shapes)) for ring in part.interiors]
    overlaps = shapely.intersection(shapes[0], shapes[1:])
    between = [shapely.Polygon(gap) for gap in gaps] + overlaps.tolist()
    # A thousandth of the pixels along the border, at most.
    assert sum(abs(geod.geometry_area_perimeter(each)[0]) for each in between) < 400 * 100**2 / 1000


def test_any_raster_of_whole_numbers_is_a_map_whose_classes_are_called_by_their_numbers(tmp_path):
    labels = np.array([[10, 10, 70], [10, 30, 70]], np.int16)
    with rasterio.open(
        tmp_path / "m.tif", "w", driver="GTiff", height=2, width=3, count=1, dtype="int16", crs=UTM, transform=HERE
    ) as out:
        out.write(labels, 1)
    summary = polygonize(tmp_path / "m.tif", tmp_path / "p.gpkg")
    assert summary.areas == {"class 10": 12, "class 30": 4, "class 70": 8}
    assert polygonize(tmp_path / "m.tif", tmp_path / "p.gpkg", classes=["class 70"]).parcels == 1
    assert parcels(tmp_path / "p.gpkg")[1]["class_id"].tolist() == [70]


def test_a_number_that_the_tags_do_not_name_is_kept(tmp_path):
    path = write(tmp_path, np.full((3, 3), 7))
    assert polygonize(path, tmp_path / "p.gpkg").areas == {"water": 0, "forest": 0, "road": 0, "class 7": 36}


def test_a_damaged_tag_is_an_error(tmp_path):
    path = write(tmp_path, np.zeros((3, 3), int))
    with rasterio.open(path, "r+") as out:
        out.update_tags(PIXELWISE_CLASSES="water, forest")
    with pytest.raises(DataError, match="PIXELWISE_CLASSES"):
        polygonize(path, tmp_path / "p.gpkg")


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson", "fgb", "shp"])
def test_an_older_output_is_replaced_as_a_whole_and_an_empty_one_can_be_written(tmp_path, suffix):
    path = write(tmp_path, np.random.default_rng(0).integers(0, 3, (8, 8)))
    polygonize(path, tmp_path / f"p.{suffix}")
    names = sorted(each.name for each in tmp_path.iterdir())
    (tmp_path / "p.qix").write_bytes(b"an older index")
    for smallest, count in ((5.0, None), (1e9, 0)):
        made = polygonize(path, tmp_path / f"p.{suffix}", minimum_area=smallest, merge=False)
        shapes = parcels(tmp_path / f"p.{suffix}")[0]
        assert (0 if shapes is None else len(shapes)) == made.parcels
        assert count is None or made.parcels == count
    left = sorted(each.name for each in tmp_path.iterdir() if suffix == "shp" or each.suffix != ".qix")
    assert left == names


def test_a_folder_in_place_of_the_output_is_an_error(tmp_path):
    (tmp_path / "p.gpkg").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        polygonize(write(tmp_path, np.zeros((3, 3), int)), tmp_path / "p.gpkg")


def tree_map(size=48, seed=0):
    """A map of blobs with specks, some nodata, and its pixels' confidences."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 3, (size // 8, size // 8)), np.ones((8, 8), int))
    specks = rng.random(labels.shape) < 0.05
    labels[specks] = rng.integers(0, 3, specks.sum())
    valid = np.ones(labels.shape, bool)
    valid[:5, -9:] = valid[20:23, 20:24] = False
    return labels, valid, rng.uniform(0.3, 1, labels.shape).astype(np.float32)


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
    labels, sure = np.zeros((10, 10), int), np.full((10, 10), 200 / 254, np.float32)
    labels[:, 5:], sure[3, 3] = 1, 100 / 254
    polygonize(write(tmp_path, labels, confidence=sure), tmp_path / "p.gpkg")
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


def test_neighbours_in_a_geojson_meet_in_each_point(tmp_path):
    polygonize(write(tmp_path, *tree_map()[:2]), tmp_path / "p.geojson")
    shapes = parcels(tmp_path / "p.geojson")[0]
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)


def test_areas_in_degrees_add_up_to_that_of_the_whole(tmp_path):
    place = Affine(0.01, 0, 15, 0, -0.01, 60)
    labels = tree_map()[0]
    polygonize(write(tmp_path, labels, crs=CRS.from_epsg(4326), transform=place), tmp_path / "p.gpkg")
    shapes, columns, _ = parcels(tmp_path / "p.gpkg")
    whole, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.union_all(shapes))
    assert columns["area_m2"].sum() == pytest.approx(abs(whole), rel=1e-9)


def test_a_style_with_the_colours_of_the_map_lies_beside(tmp_path):
    polygonize(write(tmp_path, np.zeros((4, 4), int)), tmp_path / "p.gpkg", classes=["water"])
    red, green, blue = CLASSES.palette[0]
    text = (tmp_path / "p.qml").read_text()
    assert f"{red},{green},{blue}," in text
    assert "forest" not in text


def test_wrong_numbers_and_classes_of_instances_are_errors_that_tell_the_mend(tmp_path):
    path = write(tmp_path, np.zeros((4, 4), int))
    with pytest.raises(ConfigError, match=r"simplify = -1.* Give 0 or more"):
        polygonize(path, tmp_path / "p.gpkg", simplify=-1)
    with pytest.raises(ConfigError, match="no class 'lake' for instances; it has water, forest, road"):
        polygonize(path, tmp_path / "p.gpkg", instances=("lake", "road"))
    with pytest.raises(ConfigError, match="names 'road' twice"):
        polygonize(path, tmp_path / "p.gpkg", instances=("road", "road"))
    assert not list(tmp_path.glob("p.*"))
    assert not list(tmp_path.glob(".*"))


def test_a_geoparquet_without_pyarrow_is_an_error_before_any_work(tmp_path, monkeypatch):
    path = write(tmp_path, np.zeros((4, 4), int))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixelwise\[parquet\]'"):
        polygonize(path, tmp_path / "p.parquet")
