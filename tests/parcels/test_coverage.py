import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from small_maps import found

from pixelwise.parcels.coverage import densify, is_coverage, simplified

SQUARE = np.eye(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@st.composite
def maps(draw):
    """Blobs of some pixels, with nowhere in them."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    coarse = rng.integers(-1, 3, (6, 6))
    values = np.kron(coarse, np.ones((6, 6), int))
    noise = rng.random(values.shape) < 0.1
    return np.where(noise, np.roll(values, 1, axis=0), values)


@given(maps(), st.floats(0.1, 8), st.sampled_from([0.3, 1.0, 2.0]))
def test_a_simplified_coverage_is_one_with_the_same_sum_of_areas(folder, values, tolerance, pixel):
    _, _, polygons = found(values, folder)
    turned = pixel * np.array([[0.8, 0.6], [-0.6, 0.8]])
    simpler, used = simplified(polygons, tolerance, turned)
    assert used == tolerance
    assert shapely.is_valid(simpler).all()
    assert is_coverage(simpler)
    assert shapely.area(simpler).sum() == shapely.area(polygons).sum()
    assert shapely.union_all(simpler).equals(shapely.union_all(polygons))
    before, after = shapely.get_num_coordinates(polygons), shapely.get_num_coordinates(simpler)
    # Each vertex that goes takes or gives less than a triangle of the tolerance squared.
    assert (np.abs(shapely.area(simpler) - shapely.area(polygons)) * pixel**2 <= (before - after) * tolerance**2).all()


def test_no_tolerance_changes_nothing_and_a_larger_one_leaves_fewer_vertices(folder):
    values = np.add.outer(np.arange(30), 2 * np.arange(30)) // 30
    _, _, polygons = found(values, folder)
    assert simplified(polygons, 0.0, SQUARE)[0] is polygons
    counts = [shapely.get_num_coordinates(simplified(polygons, t, SQUARE)[0]).sum() for t in (0.1, 1.0, 3.0)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]


def test_the_tolerance_is_halved_where_the_result_would_be_no_coverage(folder, monkeypatch):
    values = np.add.outer(np.arange(30), 2 * np.arange(30)) // 30
    _, _, polygons = found(values, folder)
    right, asked = shapely.coverage_simplify, []

    def broken(polygons, tolerance, **options):
        asked.append(tolerance)
        return right(polygons, tolerance, **options) if tolerance < 1 else shapely.buffer(polygons, 1)

    monkeypatch.setattr(shapely, "coverage_simplify", broken)
    assert simplified(polygons, 3.0, SQUARE)[1] == 0.75
    assert asked == [3, 1.5, 0.75]
    monkeypatch.setattr(shapely, "coverage_simplify", lambda polygons, *_, **__: shapely.buffer(polygons, 1))
    kept, tolerance = simplified(polygons, 3.0, SQUARE)
    assert (list(kept), tolerance) == (list(polygons), 0.0)


@given(maps(), st.floats(0.5, 5))
def test_dense_outlines_are_the_same_ones_and_neighbours_share_each_point(folder, values, longest):
    _, _, polygons = found(values, folder)
    turned = shapely.transform(polygons, lambda xy: xy @ np.array([[0.8, 0.6], [-0.6, 0.8]]) * 0.1)
    dense = densify(turned, longest * 0.1)
    assert is_coverage(dense)
    ends, of = shapely.get_coordinates(shapely.get_rings(dense), return_index=True)
    steps = np.hypot(*np.diff(ends, axis=0).T)[np.diff(of) == 0]
    assert steps.max() <= longest * 0.1 + 1e-9
    assert shapely.area(dense) == pytest.approx(shapely.area(turned))
    assert len(densify(np.array([], object), 1.0)) == 0
