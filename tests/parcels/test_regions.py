import numpy as np
import pytest
import scipy.ndimage
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from small_maps import found, numbers, reader

from pixelwise.parcels import regions as module
from pixelwise.parcels.coverage import is_coverage
from pixelwise.parcels.regions import borders, region_confidence


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@given(numbers())
def test_regions_are_those_that_scipy_finds_class_by_class(folder, values):
    made, number, _ = found(values, folder)
    expected = np.zeros(values.shape, int)
    for value in np.unique(values[values >= 0]):
        own, _ = scipy.ndimage.label(values == value)
        expected += np.where(own > 0, own + expected.max(), 0)
    pairs = np.unique(np.stack([number.ravel(), expected.ravel()]), axis=1)
    # One region of theirs for each of ours, and the other way round.
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    firsts = [np.flatnonzero(number == i)[0] for i in range(len(made.keys))]
    assert firsts == sorted(firsts)
    assert [values.ravel()[at] for at in firsts] == made.keys.tolist()
    assert np.bincount(number[number >= 0], minlength=len(made.keys)).tolist() == made.pixels.tolist()
    for i, centre in enumerate(made.centres):
        rows, columns = np.nonzero(number == i)
        assert centre == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))


@given(numbers(), st.integers(1, 60))
def test_the_height_of_strips_changes_nothing(folder, values, strip_pixels):
    one, number, polygons = found(values, folder)
    other, other_number, other_polygons = found(values, folder, strip_pixels)
    np.testing.assert_array_equal(number, other_number)
    np.testing.assert_array_equal(one.keys, other.keys)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_allclose(one.centres, other.centres)
    assert shapely.to_wkb(polygons).tolist() == shapely.to_wkb(other_polygons).tolist()


@given(numbers())
def test_outlines_are_the_valid_polygons_that_gdal_draws_and_a_coverage(folder, values):
    made, number, polygons = found(values, folder)
    assert shapely.is_valid(polygons).all()
    assert is_coverage(polygons)
    assert shapely.area(polygons).tolist() == made.pixels.tolist()
    drawn = [shapely.geometry.shape(each) for each, _ in shapes(values.astype(np.int32), mask=values >= 0)]
    assert len(drawn) == len(polygons)
    # shapely's normal form after dropping vertices in the midst of straight edges.
    ours = sorted(shapely.to_wkb(shapely.normalize(shapely.simplify(polygons, 0))).tolist())
    assert ours == sorted(shapely.to_wkb(shapely.normalize(shapely.simplify(drawn, 0))).tolist())
    if len(polygons):
        burnt = rasterize(
            zip(polygons, range(len(polygons)), strict=True), out_shape=values.shape, fill=-1, dtype="int32"
        )
        np.testing.assert_array_equal(burnt, number)


@given(numbers(), st.integers(1, 60))
def test_borders_are_as_long_as_the_lines_that_polygons_share(folder, values, strip_pixels):
    made, _, polygons = found(values, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP_PIXELS", strip_pixels)
        shared = borders(made, np.ones(len(made.keys), bool))
    lengths = {}
    for i in range(len(polygons)):
        for j in range(i + 1, len(polygons)):
            length = shapely.intersection(polygons[i], polygons[j]).length
            if length:
                lengths[i, j] = length
    pairs = zip(shared.first.tolist(), shared.second.tolist(), strict=True)
    assert dict(zip(pairs, (shared.across + shared.upright).tolist(), strict=True)) == lengths


@given(numbers(), st.integers(1, 60))
def test_confidence_is_that_of_the_pixels_and_nothing_where_there_is_none(folder, values, strip_pixels):
    confidence = np.random.default_rng(0).integers(-1, 255, values.shape)
    made, number, _ = found(values, folder)
    # The first two regions are taken for one.
    final = np.maximum(np.arange(len(made.keys)) - 1, 0)
    count = int(final.max(initial=-1)) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP_PIXELS", strip_pixels)
        scores = region_confidence(made, final, count, reader(confidence))
    for i in range(count):
        own = confidence[np.isin(number, np.flatnonzero(final == i)) & (confidence >= 0)] / 254
        if len(own) == 0:
            assert np.isnan([scores.mean[i], scores.lowest[i]]).all()
        else:
            assert (scores.mean[i], scores.lowest[i]) == (pytest.approx(own.mean()), own.min())


def test_a_ring_that_closes_at_a_corner_has_a_hole_that_touches_its_outline(folder):
    values = np.array([[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
    _, _, polygons = found(values, folder)
    assert shapely.is_valid(polygons).all()
    assert [len(each.interiors) for each in polygons] == [1, 0, 0]
