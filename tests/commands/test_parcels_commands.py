"""The commands of parcels: from a map to polygons, and their scores."""

import json

import numpy as np
import pytest
import rasterio


def test_parcels_of_fields_are_drawn_and_scored(pixelwise, tmp_path):
    crs, place = rasterio.crs.CRS.from_epsg(32633), rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000)
    labels = np.full((30, 55), 2, np.uint8)
    labels[5:25, 5:25] = labels[5:25, 30:50] = 1
    options = {"driver": "GTiff", "height": 30, "width": 55, "count": 1, "dtype": "uint8", "crs": crs}
    with rasterio.open(tmp_path / "m.tif", "w", transform=place, **options) as out:
        out.write(labels, 1)
    arguments = ("--instances", "class 1", "class 2", "--simplify", "1", "--minimum-area", "10")
    status, out, err = pixelwise("polygonize", tmp_path / "m.tif", tmp_path / "p.gpkg", *arguments)
    assert status == 0, err
    assert "2 parcels" in out
    assert "overlapped" not in out
    scored = ("score-parcels", tmp_path / "p.gpkg", tmp_path / "p.gpkg", "--tolerance", "3")
    status, out, err = pixelwise(*scored, "--json")
    assert status == 0, err
    scores = json.loads(out)
    assert (scores["parcels"], scores["f1"], scores["boundary_f1"]) == (2, 1, pytest.approx(1))
    status, out, err = pixelwise(*scored)
    assert status == 0, err
    assert "class 1" in out
    status, _, err = pixelwise(*scored, "--class", "lake", "--truth-attribute", "class")
    assert status == 1
    assert "no class 'lake'" in err


def test_a_map_without_data_gives_no_parcels_and_no_word_of_overlaps(pixelwise, tmp_path):
    options = {"driver": "GTiff", "height": 20, "width": 20, "count": 1, "dtype": "uint8", "nodata": 255}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 500_000, 0, -2, 5_000_000)}
    with rasterio.open(tmp_path / "m.tif", "w", **options, **place) as out:
        out.write(np.full((1, 20, 20), 255, np.uint8))
    status, out, err = pixelwise("polygonize", tmp_path / "m.tif", tmp_path / "p.gpkg", "--simplify", "2")
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"{tmp_path / 'p.gpkg'}: 0 parcels, 0 smaller ones joined a neighbour."]
