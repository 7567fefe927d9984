"""Files that name classes, in the forms that people have them."""

import pytest

from pixelwise.data.survey.names import find_name_files

COLOURS = {0xFF0000: "road", 0x00FF00: "tree"}
FORMS = {
    "classes.json": '{"classes": [{"title": "road", "color": "#FF0000"}, {"title": "tree", "color": "#00ff00"}]}',
    "class_dict.csv": "name,r,g,b\nroad,255,0,0\ntree,0,255,0\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:255,0,0::\ntree:0,255,0::\n",
    "label_colors.txt": "255 0 0 road\n0 255 0 tree\n",
    "palette.json": '{"road": [255, 0, 0], "tree": [0, 255, 0]}',
    "colour_names.json": '{"#ff0000": "road", "#00ff00": "tree"}',
    "legend.csv": "class;rgb\nroad;(255, 0, 0)\ntree;(0, 255, 0)\n",
}
NUMBERS = {
    "labels.txt": "road\ntree\nroof\n",
    "classes.csv": "id,name\n0,road\n1,tree\n2,roof\n",
    "id2label.json": '{"0": "road", "1": "tree", "2": "roof"}',
    "label2id.json": '{"road": 0, "tree": 1, "roof": 2}',
    "class_names.json": '["road", "tree", "roof"]',
    "classes.txt": "0 road\n1 tree\n2 roof\n",
    "categories.json": '[{"id": 0, "name": "road"}, {"id": 1, "name": "tree"}, {"id": 2, "name": "roof"}]',
    "label_map.txt": "0: road\n1: tree\n2: roof\n",
}


def named(tmp_path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    (found,) = find_name_files([path])
    return found


@pytest.mark.parametrize("name", FORMS)
def test_colours_have_their_names(tmp_path, name):
    assert named(tmp_path, name, FORMS[name]).by_colour([*COLOURS, 0x123456]) == COLOURS


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_their_names(tmp_path, name):
    found = named(tmp_path, name, NUMBERS[name]).by_value([0, 1, 2, 255])
    assert found is not None
    assert [found[i] for i in range(3)] == ["road", "tree", "roof"]


def test_names_from_1_on_leave_0_without_a_name(tmp_path):
    found = named(tmp_path, "labels.txt", NUMBERS["labels.txt"])
    assert found.by_value([0, 1, 2, 3]) == {1: "road", 2: "tree", 3: "roof"}
    assert found.by_value([1, 2, 3]) == {1: "road", 2: "tree", 3: "roof"}
    assert found.by_value([0, 7]) is None


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": {"b": 1}}', "just one line"])
@pytest.mark.parametrize("name", ["classes.json", "classes.txt", "classes.csv"])
def test_other_files_name_nothing(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert find_name_files([tmp_path / name]) == []
