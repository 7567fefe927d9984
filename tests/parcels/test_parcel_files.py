import json
import sys

import numpy as np
import pyarrow.parquet
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from small_parcels import CLASSES, HERE, UTM, parcels, pieces, tree_map, write

from pixelwise.errors import ConfigError, DataError, MissingExtraError
from pixelwise.parcels.polygonize import polygonize


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson", "fgb", "shp"])
def test_every_format_holds_every_parcel(tmp_path, suffix):
    labels = np.random.default_rng(0).integers(0, 3, (8, 8))
    summary = polygonize(write(tmp_path, labels), tmp_path / f"p.{suffix}")
    shapes, columns, _ = parcels(tmp_path / f"p.{suffix}")
    assert len(shapes) == summary.parcels == pieces(labels).max() + 1
    assert set(columns["class"]) == set(CLASSES.names)


def test_a_map_without_data_gives_an_empty_file(tmp_path):
    path = write(tmp_path, np.zeros((4, 4), int), np.zeros((4, 4), bool))
    made = polygonize(path, tmp_path / "p.gpkg", simplify=2, minimum_area=50)
    assert (made.parcels, made.removed, made.tolerance) == (0, 0, 2)
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
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as out:
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


def test_neighbours_in_a_geojson_meet_in_each_point(tmp_path):
    polygonize(write(tmp_path, *tree_map()[:2]), tmp_path / "p.geojson")
    shapes = parcels(tmp_path / "p.geojson")[0]
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)


def test_a_style_with_the_colours_of_the_map_lies_beside(tmp_path):
    polygonize(write(tmp_path, np.zeros((4, 4), int)), tmp_path / "p.gpkg", classes=["water"])
    red, green, blue = CLASSES.palette[0]
    text = (tmp_path / "p.qml").read_text()
    assert f"{red},{green},{blue}," in text
    assert "forest" not in text


def test_wrong_numbers_and_classes_of_instances_are_errors_that_tell_the_fix(tmp_path):
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


def test_a_geoparquet_says_where_each_parcel_is(tmp_path):
    polygonize(write(tmp_path, *tree_map()[:2]), tmp_path / "p.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet")
    column = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    sides = ("xmin", "ymin", "xmax", "ymax")
    assert column["covering"] == {"bbox": {side: ["bbox", side] for side in sides}}
    boxes = [[box[side] for side in sides] for box in table["bbox"].to_pylist()]
    assert boxes == shapely.bounds(shapely.from_wkb(table["geometry"].to_pylist())).tolist()
