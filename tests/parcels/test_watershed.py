import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from pixelwise.geo.label_map import LabelMapWriter
from pixelwise.geo.raster import RasterInfo, Window
from pixelwise.labels import make_classes
from pixelwise.parcels import regions
from pixelwise.parcels import watershed as module
from pixelwise.parcels.label_source import NUMBERS, LabelSource
from pixelwise.parcels.watershed import fitting_radius, watershed

OTHER, FIELD, EDGE = range(3)


def source(folder, labels, confidence=None, valid=None):
    height, width = labels.shape
    crs, place = CRS.from_epsg(32633), Affine(2, 0, 500_000, 0, -2, 5_000_000)
    info = RasterInfo(folder / "scene.tif", height, width, 3, None, "uint8", None, crs, place, False)
    given, valid = confidence is not None, np.ones(labels.shape, bool) if valid is None else valid
    classes = make_classes(["other", "field", "edge"])
    with LabelMapWriter(folder / "map.tif", info, classes, tags={}, confidence=given) as writer:
        writer.write(0, labels.astype(np.uint8), None if confidence is None else confidence.astype(np.float32), valid)
    return LabelSource(folder / "map.tif")


def fields(folder, *arguments, radius=3.0, **options):
    made = watershed(source(folder, *arguments, **options), FIELD, EDGE, radius, folder)
    return made.read(Window(0, 0, *made.shape))


def two_fields(gap=0):
    """Two fields of 20x20 with an edge of 5 between and around, and `gap` pixels of field through the edge."""
    labels = np.full((30, 55), EDGE)
    labels[5:25, 5:25] = labels[5:25, 30:50] = FIELD
    labels[15 - gap // 2 : 15 - gap // 2 + gap, 25:30] = FIELD
    return labels


def test_two_fields_share_the_edge_between_them(tmp_path):
    found = fields(tmp_path, two_fields())
    assert set(np.unique(found)) == {NUMBERS, NUMBERS + 1}
    # The edge is five wide, so each has two of it, and one of them the middle.
    assert len(np.unique(found[:, :27])) == len(np.unique(found[:, 28:])) == 1


@pytest.mark.parametrize(("gap", "count"), [(0, 2), (4, 2), (6, 2), (14, 1)])
def test_a_leak_narrower_than_a_core_parts_two_fields(tmp_path, gap, count):
    assert len(np.unique(fields(tmp_path, two_fields(gap)))) == count


def test_without_cores_only_edges_part_fields(tmp_path):
    assert len(np.unique(fields(tmp_path, two_fields(4), radius=0.0))) == 1


def test_the_outline_runs_along_the_crest_of_the_edges_confidence(tmp_path):
    labels = two_fields()
    confidence = np.full(labels.shape, 0.6)
    confidence[:, 28] = 0.9
    found = fields(tmp_path, labels, confidence)
    assert len(np.unique(found[:, :28])) == len(np.unique(found[:, 29:])) == 1
    assert found[0, 0] != found[0, -1]


def test_a_leak_is_cut_where_the_interior_is_least_confident(tmp_path):
    labels = two_fields(4)
    confidence = np.where(labels == FIELD, 0.9, 0.6)
    confidence[13:17, 26] = 0.4
    found = fields(tmp_path, labels, confidence)
    assert len(np.unique(found[13:17, :26])) == len(np.unique(found[13:17, 27:])) == 1
    assert found[15, 25] != found[15, 27]


def test_edges_go_to_fields_and_to_other_classes_alike_and_stay_where_they_touch_neither(tmp_path):
    labels = np.full((20, 40), OTHER)
    labels[:, 18:22] = EDGE
    labels[:, 22:] = FIELD
    found = fields(tmp_path, labels)
    assert (found[:, :20] == OTHER).all()
    assert (found[:, 20:] == NUMBERS).all()
    assert (fields(tmp_path, np.full((5, 5), EDGE)) == EDGE).all()


def test_a_field_too_small_for_a_core_is_still_one(tmp_path):
    labels = np.full((30, 40), OTHER)
    labels[5:25, 5:25] = labels[10:13, 30:33] = FIELD
    found = fields(tmp_path, labels)
    assert len(np.unique(found[found >= NUMBERS])) == 2
    np.testing.assert_array_equal(found >= NUMBERS, labels == FIELD)


def test_fields_go_on_beyond_the_maps_edge_and_nodata(tmp_path):
    labels, valid = np.full((30, 30), FIELD), np.ones((30, 30), bool)
    valid[:, 2:5] = False
    found = fields(tmp_path, labels, valid=valid, radius=3.0)
    assert (found[~valid] == -1).all()
    assert len(np.unique(found[valid])) == 2


def test_tiles_and_strips_change_nothing_while_floods_reach(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.choice([OTHER, FIELD, FIELD, FIELD], (9, 11)), np.ones((12, 12), int))
    labels[::12] = labels[:, ::12] = EDGE
    labels[rng.random(labels.shape) < 0.05] = FIELD
    confidence = rng.uniform(0.4, 1, labels.shape)
    whole = fields(tmp_path, labels, confidence)
    monkeypatch.setattr(module, "TILE", 40)
    monkeypatch.setattr(module, "REACH", 48)
    monkeypatch.setattr(regions, "STRIP_PIXELS", 500)
    np.testing.assert_array_equal(fields(tmp_path, labels, confidence), whole)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("gap", "count"), [(0, 2), (4, 2), (14, 1)])
def test_cores_follow_the_size_of_the_fields_unless_a_radius_is_given(tmp_path, scale, gap, count):
    larger = np.kron(two_fields(gap), np.ones((scale, scale), int))
    assert len(np.unique(fields(tmp_path, larger, radius=None))) == count


def test_fragments_do_not_make_cores_as_small_as_themselves():
    # Ten fields of radius 50, and twelve fragments of radius 6.
    pixels = np.rint(np.pi * np.array([50.0] * 10 + [6.0] * 12) ** 2).astype(np.int64)
    assert fitting_radius(pixels) == pytest.approx((10 * 50 + 12 * 6) / 22 / 5, abs=0.01)


def test_specks_do_not_make_cores_small():
    large = [np.pi * 50**2] * 3
    assert fitting_radius(np.array([*[5] * 100, *large], np.int64)) == pytest.approx(10, abs=0.01)
    assert fitting_radius(np.array([5, 7])) == fitting_radius(np.array([], np.int64)) == 0
