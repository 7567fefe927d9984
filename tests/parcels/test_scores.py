import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize

from pixelwise.errors import ConfigError, DataError
from pixelwise.parcels.scores import score_parcels

EAST, NORTH = 500_000, 5_000_000


def save(path, shapes, classes=None, crs="EPSG:32633"):
    geometries = np.array([shapely.transform(each, lambda xy: xy + np.array([EAST, NORTH])) for each in shapes])
    names = np.array(classes or ["field"] * len(shapes), object)
    pyogrio.raw.write(path, shapely.to_wkb(geometries), [names], ["class"], geometry_type="Polygon", crs=crs)
    return path


def box(left, bottom, right, top):
    return shapely.box(left, bottom, right, top)


FRAME = box(0, 0, 1000, 1000)


def scored(folder, found, true, *, frame=FRAME, tolerance=3.0, **options):
    area = save(folder / "area.gpkg", [frame])
    paths = save(folder / "p.gpkg", found), save(folder / "t.gpkg", true)
    return score_parcels(*paths, tolerance=tolerance, classes=["field"], within=area, **options)


def test_the_truth_itself_is_perfect(tmp_path):
    shapes = [box(100, 100, 300, 300), box(300, 100, 500, 300), box(600, 600, 900, 900)]
    scores = scored(tmp_path, shapes, shapes)
    assert (scores.precision, scores.recall, scores.f1, scores.matched_iou) == (1, 1, 1, pytest.approx(1))
    assert (scores.f1_low, scores.f1_high) == (1, 1)
    assert scores.boundary_f1 == pytest.approx(1)
    assert scores.over_segmentation == pytest.approx(0, abs=1e-9)
    assert scores.under_segmentation == pytest.approx(0, abs=1e-9)
    (area,) = scores.areas
    assert (area.error, area.low, area.high) == (pytest.approx(0), pytest.approx(0), pytest.approx(0))
    # The plane of UTM is 0.9996 times the ground's at its middle meridian.
    assert area.area == pytest.approx(170_000 / 0.9996**2, rel=1e-6)


def test_objects_match_above_half_of_the_union_and_not_at_it(tmp_path):
    true = [box(0, 0, 100, 100), box(200, 0, 300, 100), box(400, 0, 500, 100)]
    # IoU 0.6, 0.5 less a hair, and nothing; and one that covers nothing true.
    found = [box(0, 0, 100, 60), box(200, 0, 300, 49.999), box(800, 800, 900, 900)]
    scores = scored(tmp_path, found, true, frame=box(-100, -100, 1000, 1000))
    assert (scores.parcels, scores.truth, scores.matched) == (3, 3, 1)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert scores.matched_iou == pytest.approx(0.6)
    assert scores.missed == 1


def test_a_field_in_four_pieces_is_over_segmented_and_four_fields_in_one_piece_under_segmented(tmp_path):
    whole = [box(100, 100, 300, 300)]
    quarters = [box(x, y, x + 100, y + 100) for x in (100, 200) for y in (100, 200)]
    apart, together = scored(tmp_path, quarters, whole), scored(tmp_path, whole, quarters)
    assert (apart.over_segmentation, apart.under_segmentation) == pytest.approx((0.75, 0), abs=1e-6)
    assert (together.over_segmentation, together.under_segmentation) == pytest.approx((0, 0.75), abs=1e-6)
    assert apart.matched == together.matched == 0


def test_a_boundary_counts_within_the_tolerance(tmp_path):
    true, moved = [box(100, 100, 300, 300)], [box(104, 100, 304, 300)]
    assert scored(tmp_path, moved, true, tolerance=4.1).boundary_f1 == pytest.approx(1)
    # Of the two sides along which it was moved all but one metre lies near the true ones; of the side that is now
    # inside, three metres at each end do.
    near = (2 * 199 + 2 * 3) / 800
    scores = scored(tmp_path, moved, true, tolerance=3)
    assert scores.boundary_precision == pytest.approx(near, abs=0.002)
    assert scores.boundary_recall == pytest.approx(near, abs=0.002)


def test_boundary_lengths_agree_with_a_count_of_pixels(tmp_path):
    rng = np.random.default_rng(0)
    found, true = [
        shapely.polygonize([shapely.union_all(shapely.linestrings([[(0, a), (400, b)] for a, b in pairs] + rim))]).geoms
        for pairs in rng.uniform(20, 380, (2, 3, 2))
        for rim in ([[(0, 0), (400, 0)], [(400, 0), (400, 400)], [(400, 400), (0, 400)], [(0, 400), (0, 0)]],)
    ]
    scores = scored(tmp_path, list(found), list(true), frame=box(0, 0, 400, 400), tolerance=8, block=150)
    points = {}
    for name, shapes in (("found", found), ("true", true)):
        line = shapely.union_all([each.boundary for each in shapes])
        parts = shapely.get_parts(line)[:, None]
        steps = shapely.line_interpolate_point(parts, np.linspace(0, 1, 4001), normalized=True)
        weight = np.broadcast_to(shapely.length(parts) / 4001, steps.shape)
        xy = shapely.get_coordinates(steps)
        inner = ((xy > 8) & (xy < 392)).all(axis=1)
        points[name] = steps.ravel()[inner], weight.ravel()[inner], line
    for one, other, score in (("found", "true", "boundary_precision"), ("true", "found", "boundary_recall")):
        near = shapely.distance(points[one][0], points[other][2]) <= 8
        assert getattr(scores, score) == pytest.approx((near * points[one][1]).sum() / points[one][1].sum(), abs=0.01)


def test_the_size_of_blocks_changes_the_interval_only(tmp_path):
    rng = np.random.default_rng(1)
    true = [box(x, y, x + 80, y + 80) for x in range(0, 1000, 100) for y in range(0, 1000, 100)]
    widths = rng.uniform(50, 95, 100)
    corners = shapely.bounds(true)[:, :2]
    found = [box(x, y, x + width, y + 80) for (x, y), width in zip(corners, widths, strict=True)]
    fine, coarse = (scored(tmp_path, found, true, block=block) for block in (100, 450))
    (one,), (other,) = fine.areas, coarse.areas
    assert one.area == pytest.approx(other.area)
    assert one.error == pytest.approx(other.error)
    assert fine.boundary_f1 == pytest.approx(coarse.boundary_f1, abs=1e-4)
    assert one.low < one.error < one.high
    # Independent errors of 100 fields: the interval is that of a mean.
    assert one.high - one.low == pytest.approx(2 * 1.96 * (widths / 80).std() / 10, rel=0.3)


def test_the_interval_of_f1_is_that_of_a_share_where_fields_are_matched_at_random(tmp_path):
    corners = [(x, y) for x in range(0, 1200, 100) for y in range(0, 1200, 100)]
    true = [box(x + 10, y + 10, x + 90, y + 90) for x, y in corners]
    # Six of ten are found; of the others only a corner.
    hit = np.random.default_rng(3).random(len(true)) < 0.6
    found = [
        each if good else box(x + 10, y + 10, x + 30, y + 30)
        for each, good, (x, y) in zip(true, hit, corners, strict=True)
    ]
    frame = box(0, 0, 1200, 1200)
    scores = scored(tmp_path, found, true, frame=frame, block=100)
    assert scores.f1 == pytest.approx(hit.mean())
    assert scores.f1_low < scores.f1 < scores.f1_high
    deviation = (hit.mean() * (1 - hit.mean()) / len(hit)) ** 0.5
    assert scores.f1_high - scores.f1_low == pytest.approx(2 * 1.96 * deviation, rel=0.2)
    again = scored(tmp_path, found, true, frame=frame, block=100)
    assert (again.f1_low, again.f1_high) == (scores.f1_low, scores.f1_high)
    # A field that lies in several blocks is drawn once.
    coarse = scored(tmp_path, found, true, frame=frame, block=333)
    assert coarse.f1 == scores.f1
    assert coarse.f1_high - coarse.f1_low == pytest.approx(2 * 1.96 * deviation, rel=0.5)


def test_one_block_or_no_parcel_gives_no_interval(tmp_path):
    # Blocks have their corner in the middle of the parcels, so that the frame lies in one of them.
    two = [box(100, 100, 300, 300), box(5000, 5000, 5100, 5100)]
    one = scored(tmp_path, two, two, block=1e6)
    assert (one.blocks, one.f1, one.f1_low, one.f1_high) == (1, 1, None, None)
    away = scored(tmp_path, [box(2000, 2000, 2100, 2100)], [box(2000, 2000, 2100, 2100)])
    assert (away.parcels, away.f1, away.f1_low, away.f1_high) == (0, None, None, None)


def test_intersection_over_union_is_that_of_the_pixels(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    radius = np.random.default_rng(2).uniform(60, 100, 30)
    one = shapely.Polygon(np.stack([200 + radius * np.cos(angles), 200 + radius * np.sin(angles)], axis=1))
    other = shapely.transform(one, lambda xy: xy + 15)
    burnt = [rasterize([each], out_shape=(4000, 4000), transform=Affine.scale(0.1)) > 0 for each in (one, other)]
    expected = (burnt[0] & burnt[1]).sum() / (burnt[0] | burnt[1]).sum()
    assert scored(tmp_path, [one], [other]).matched_iou == pytest.approx(expected, abs=1e-3)


def test_only_what_lies_within_a_raster_is_scored(tmp_path):
    place = Affine(10, 0, EAST, 0, -10, NORTH + 400)
    options = {"driver": "GTiff", "height": 40, "width": 40, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "m.tif", "w", crs=CRS.from_epsg(32633), transform=place, **options) as out:
        out.write(np.zeros((40, 40), np.uint8), 1)
    found = save(tmp_path / "p.gpkg", [box(100, 100, 600, 300)])
    true = save(tmp_path / "t.gpkg", [box(100, 100, 400, 300), box(700, 700, 900, 900)])
    scores = score_parcels(found, true, tolerance=3, within=tmp_path / "m.tif")
    assert (scores.parcels, scores.truth, scores.f1) == (1, 1, 1)
    assert scores.boundary_f1 == pytest.approx(1)


def test_a_class_matches_its_own_only(tmp_path):
    shapes = [box(0, 0, 100, 100), box(100, 0, 200, 100)]
    found = save(tmp_path / "p.gpkg", shapes, ["field", "wood"])
    true = save(tmp_path / "t.gpkg", shapes, ["field", "field"])
    scores = score_parcels(found, true, tolerance=3, truth_attribute="class")
    assert scores.matched == 1
    errors = {each.name: each.error for each in scores.areas}
    assert errors == {"field": pytest.approx(-0.5), "wood": None}
    json.dumps(scores.to_dict(), allow_nan=False)


def test_mistakes_are_errors_that_tell_the_fix(tmp_path):
    found = save(tmp_path / "p.gpkg", [box(0, 0, 9, 9), box(9, 0, 18, 9)], ["field", "wood"])
    true = save(tmp_path / "t.gpkg", [box(0, 0, 9, 9)])
    with pytest.raises(ConfigError, match="--class"):
        score_parcels(found, true, tolerance=3)
    with pytest.raises(ConfigError, match="no class 'lake'; it has field, wood"):
        score_parcels(found, true, tolerance=3, classes=["lake"], truth_attribute="class")
    with pytest.raises(ConfigError, match="tolerance = 0"):
        score_parcels(found, true, tolerance=0, classes=["field"])
    with pytest.raises(DataError, match=r"no column 'kind'.*--truth-attribute"):
        score_parcels(found, true, tolerance=3, truth_attribute="kind")
    with pytest.raises(DataError, match="There is no file"):
        score_parcels(found, tmp_path / "none.gpkg", tolerance=3)


def test_a_class_that_is_nowhere_and_truth_of_another_place_are_errors_that_name_them(tmp_path):
    fields = [box(0, 0, 50, 50)]
    here, true = save(tmp_path / "here.gpkg", fields, ["field"]), save(tmp_path / "t.gpkg", fields)
    with pytest.raises(ConfigError, match=r"no class 'feild'; it has field\. Did you mean 'field'"):
        score_parcels(here, true, tolerance=3, classes=["feild"])
    for crs in ("EPSG:32733", "EPSG:32616", "EPSG:32660"):
        elsewhere = save(tmp_path / "there.gpkg", fields, ["field"], crs=crs)
        with pytest.raises(DataError, match=r"there\.gpkg lies near the area that is scored.*here\.gpkg.*longitude"):
            score_parcels(here, elsewhere, tolerance=3, classes=["field"])
        with pytest.raises(DataError, match=r"here\.gpkg lies near the area that is scored.*there\.gpkg"):
            score_parcels(here, here, tolerance=3, classes=["field"], within=elsewhere)
