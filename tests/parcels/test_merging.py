import numpy as np
import pytest
from hypothesis import given
from small_maps import everywhere, numbers, reader

from pixelwise.parcels.merging import merge_small
from pixelwise.parcels.regions import borders, label_regions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def merged(values, folder, minimum):
    """Return the map after merging, by number of the region that stayed, and the regions."""
    made = label_regions(reader(values), *values.shape, folder / "pieces")
    shared = borders(made, made.pixels < minimum)
    lengths = (shared.across + shared.upright).astype(float)
    into = merge_small(made.keys, made.pixels.astype(float), shared, lengths, minimum)
    number = made.read(everywhere(values))
    return np.where(number >= 0, np.append(into, -1)[number], -1), made


@given(numbers())
def test_nothing_below_the_minimum_is_left_but_what_has_no_neighbour(folder, values):
    after, _ = merged(values, folder, 6)
    np.testing.assert_array_equal(after >= 0, values >= 0)
    for region in np.unique(after[after >= 0]):
        own = after == region
        padded = np.pad(own, 1)
        around = (padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]) & ~own
        assert own.sum() >= 6 or not (after[around] >= 0).any()


@given(numbers())
def test_what_stays_is_one_connected_piece_of_the_class_that_it_had(folder, values):
    after, made = merged(values, folder, 6)
    classes = np.where(after >= 0, np.append(made.keys, -1)[after], -1)
    again = label_regions(reader(classes), *values.shape, folder / "again").read(everywhere(values))
    pairs = np.unique(np.stack([after.ravel(), again.ravel()]), axis=1)
    # Connected pieces of the new map are the merged regions: none is torn, and no two of one class touch.
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    large = made.pixels >= 6
    number = made.read(everywhere(values))
    np.testing.assert_array_equal(classes[(number >= 0) & large[number]], values[(number >= 0) & large[number]])


def test_the_longest_shared_border_decides(folder):
    values = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 2, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1]])
    assert merged(values, folder, 2)[0][1, 3] == 0


def test_of_equal_borders_the_larger_neighbour_takes_it(folder):
    after, _ = merged(np.array([[0, 0, 2, 1, 1, 1]]), folder, 2)
    assert after.tolist() == [[0, 0, 2, 2, 2, 2]]


def test_a_sliver_between_two_pieces_of_a_class_makes_them_one(folder):
    values = np.zeros((5, 9), int)
    values[2] = 1
    assert (merged(values, folder, 10)[0] == 0).all()


def test_small_ones_join_the_smallest_first_until_they_are_large_enough(folder):
    # The single pixel joins the strip of three, which is then large enough and stays.
    values = np.array([[0, 0, 0, 0, 0, 1, 1, 1, 2, -1]])
    assert merged(values, folder, 4)[0].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1, -1]]


def test_an_island_in_nodata_stays(folder):
    values = np.full((5, 5), -1)
    values[2, 2] = 0
    assert merged(values, folder, 100)[0][2, 2] == 0
