import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pixelwise.errors import ConfigError, DataError
from pixelwise.labels import (
    IGNORE,
    UnknownMaskValuesError,
    label_dtype,
    make_classes,
    make_mask_table,
    pack_colours,
    parse_colour,
)

NAMES = ("water", "forest", "field", "road", "town", "rock")
numbers = st.integers(-1000, 70000)
colours = st.tuples(*[st.integers(0, 255)] * 3).map("#{0[0]:02x}{0[1]:02x}{0[2]:02x}".format)


@st.composite
def tables(draw, raw):
    """Draw names of classes, the raw values of each, and ignored values."""
    count = draw(st.integers(1, len(NAMES)))
    found = draw(st.lists(raw, min_size=count, max_size=3 * count + 2, unique=True))
    owners = [
        *range(count),
        *draw(st.lists(st.integers(0, count), min_size=len(found) - count, max_size=len(found) - count)),
    ]
    values = {NAMES[i]: [v for v, owner in zip(found, owners, strict=True) if owner == i] for i in range(count)}
    return NAMES[:count], values, [v for v, owner in zip(found, owners, strict=True) if owner == count]


@given(tables(numbers), st.randoms(use_true_random=False))
def test_each_raw_value_becomes_its_class_and_each_ignored_one_is_ignored(case, random):
    names, values, ignore = case
    expected = {v: names.index(name) for name, listed in values.items() for v in listed}
    expected |= dict.fromkeys(ignore, IGNORE)
    mask = np.array(random.choices(list(expected), k=24), np.int32).reshape(4, 6)
    indices = make_mask_table(make_classes(names), values, ignore).to_indices(mask, "mask.png")
    assert indices.tolist() == [[expected[v] for v in row] for row in mask.tolist()]


@given(tables(colours), st.randoms(use_true_random=False))
def test_each_colour_becomes_its_class(case, random):
    names, values, ignore = case
    expected = {v: names.index(name) for name, listed in values.items() for v in listed}
    expected |= dict.fromkeys(ignore, IGNORE)
    drawn = random.choices(list(expected), k=12)
    image = np.array([[int(v[i : i + 2], 16) for v in drawn] for i in (1, 3, 5)], np.uint8).reshape(3, 3, 4)
    indices = make_mask_table(make_classes(names), values, ignore).to_indices(pack_colours(image), "mask.png")
    assert indices.ravel().tolist() == [expected[v] for v in drawn]


@given(tables(numbers), numbers, st.integers(0, 23))
def test_a_value_that_nothing_maps_is_named_with_its_file(case, strange, place):
    names, values, ignore = case
    known = [v for listed in values.values() for v in listed] + ignore
    mask = np.full(24, known[0], np.int32)
    mask[place] = strange
    table = make_mask_table(make_classes(names), values, ignore)
    if strange in known:
        assert (
            table.to_indices(mask.reshape(4, 6), "masks/7.png") != table.to_indices(mask.reshape(4, 6), "")
        ).sum() == 0
        return
    with pytest.raises(DataError) as caught:
        table.to_indices(mask.reshape(4, 6), "masks/7.png")
    said = str(caught.value)
    assert said.startswith(f"masks/7.png holds the value {strange} (1 pixels)")
    listed = [*([255] if ignore is None and 255 not in known else ignore or []), strange]
    assert f"ignore = {listed}" in said, "what was ignored before stays ignored"


def test_a_strange_colour_is_named_as_a_colour():
    table = make_mask_table(make_classes(["a", "b"]), {"a": ["#000000"], "b": ["#ffffff"]})
    with pytest.raises(DataError, match=r"mask.png holds the colour #fe0102 .*ignore = \['#fe0102'\]"):
        table.to_indices(np.array([[0, 0xFE0102]], np.int32), "mask.png")


def test_the_most_frequent_strange_values_come_first_and_all_are_named():
    table = make_mask_table(make_classes(["a"]))
    mask = np.repeat(np.arange(7), [100, 1, 2, 3, 4, 5, 6])[None]
    with pytest.raises(DataError, match=r"values 6, 5, 4, 3, 2, 1 \(21 pixels\)"):
        table.to_indices(mask, "mask.png")


@given(st.integers(1, 255), st.sampled_from([np.uint8, np.uint16, np.int16, np.int32]))
def test_without_a_table_a_mask_holds_indices_and_255_is_ignored(count, kind):
    table = make_mask_table(make_classes([f"class {i}" for i in range(count)]))
    mask = np.array([[*range(count), 255]], kind)
    assert table.to_indices(mask, "mask.png").tolist() == [[*range(count), IGNORE]]


def test_255_is_a_class_where_the_table_says_so():
    table = make_mask_table(make_classes(["cell", "membrane"]), {"cell": [255], "membrane": [0]})
    assert table.to_indices(np.array([[0, 255]], np.uint8), "mask.png").tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("values", "ignore", "message"),
    [
        ({"a": [0]}, None, "no value for the class 'b'"),
        ({"a": [0], "b": []}, None, "no value for the class 'b'"),
        ({"a": [0], "b": [1], "c": [2]}, None, "no 'c'; it has a, b"),
        ({"a": [0], "b": [0]}, None, "mask value 0 is listed twice"),
        ({"a": [0], "b": [1]}, [1], "mask value 1 is listed twice"),
        ({"a": [0], "b": ["#ffffff"]}, None, "mix numbers and colours"),
        ({"a": [0], "b": [1]}, ["#ffffff"], "mix numbers and colours"),
        ({"a": ["#000000"], "b": ["white"]}, None, "'white' is not a colour"),
    ],
)
def test_a_table_that_cannot_be_says_why(values, ignore, message):
    with pytest.raises(ConfigError, match=message):
        make_mask_table(make_classes(["a", "b"]), values, ignore)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_colour_reads_back_as_its_three_numbers(colour):
    assert parse_colour("#{:02x}{:02x}{:02x}".format(*colour)) == colour
    assert parse_colour("#{:02X}{:02X}{:02X}".format(*colour)) == colour


@given(st.text(max_size=8) | st.text("0f+- _x", min_size=6, max_size=6).map("#{}".format))
@example("#-1-1-1")
def test_what_is_no_colour_is_refused(text):
    assume(not (len(text) == 7 and text[0] == "#" and set(text[1:]) <= set("0123456789abcdefABCDEF")))
    with pytest.raises(ConfigError, match="is not a colour"):
        parse_colour(text)


@given(st.integers(1, 200))
def test_the_palette_that_is_made_up_has_no_colour_twice(count):
    palette = make_classes([str(i) for i in range(count)]).palette
    assert len(set(palette)) == count
    assert all(0 <= part <= 255 for colour in palette for part in colour)


def test_classes_with_one_name_or_too_few_colours_are_refused():
    with pytest.raises(ConfigError, match="names 'a' twice"):
        make_classes(["a", "b", "a"])
    with pytest.raises(ConfigError, match="has 1 colours for 2 classes"):
        make_classes(["a", "b"], ["#000000"])


@given(st.integers(1, 1000))
def test_a_label_map_has_room_for_every_class(count):
    largest = np.iinfo(label_dtype(count)).max
    assert largest >= count - 1
    assert (label_dtype(count) is np.uint8) == (count <= 256)


def test_unknown_values_of_many_masks_are_one_paragraph_with_counts_files_and_a_line_to_paste():
    table = make_mask_table(make_classes(["a", "b"]))
    problems = []
    for i, values in enumerate(([7, 7, 9], [7, 0, 1], [3, 255, 1])):
        with pytest.raises(UnknownMaskValuesError) as caught:
            table.to_indices(np.array([values]), f"masks/{i}.png")
        problems.append(caught.value)
    said = str(problems[0].joined(problems[1]).joined(problems[2]))
    assert said.startswith("3 masks hold values that no class has: 7 (3 pixels in 2 masks), 3 (1 pixels in 1 mask)")
    assert "ignore = [255, 7, 3, 9]" in said
    assert all(f"masks/{i}.png" in said for i in range(3))
    assert "\n" not in said


def test_two_strips_of_one_mask_are_one_file():
    table = make_mask_table(make_classes(["a", "b"]))
    problem = UnknownMaskValuesError({"m.png": {7: 2}}, table).joined(UnknownMaskValuesError({"m.png": {7: 3}}, table))
    assert str(problem).startswith("m.png holds the value 7 (5 pixels)")


def test_very_many_unknown_values_are_called_compression_and_not_classes():
    table = make_mask_table(make_classes(["a", "b"]))
    with pytest.raises(UnknownMaskValuesError, match="JPEG") as caught:
        table.to_indices(np.arange(2, 102)[None], "m.png")
    assert "and 80 more" in str(caught.value)
    assert "ignore" not in str(caught.value)


def test_other_values_become_the_nearest_class_the_ignored_one_or_a_class_of_their_own():
    classes = make_classes(["ground", "roof"])
    colours = {"ground": ["#000000"], "roof": ["#ff0000"]}
    raw = np.array([[0x000000, 0xFF0000, 0x100804, 0xF01010, 0x9B9B9B]])
    near = make_mask_table(classes, colours, ["#999999"], "nearest").to_indices(raw, "a.png")
    np.testing.assert_array_equal(near, [[0, 1, 0, 1, IGNORE]])
    ignored = make_mask_table(classes, colours, None, "ignore").to_indices(raw, "a.png")
    np.testing.assert_array_equal(ignored, [[0, 1, IGNORE, IGNORE, IGNORE]])
    objects = make_mask_table(classes, {"ground": [0]}, [], "roof").to_indices(np.array([[0, 1, 77, 255]]), "a.png")
    np.testing.assert_array_equal(objects, [[0, 1, 1, 1]])
    with pytest.raises(ConfigError, match="other_values is 'closest'"):
        make_mask_table(classes, None, None, "closest")
