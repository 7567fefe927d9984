"""Which images the lines of lists name: ours, and those that other programs write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.folder import image_place
from pixelwise.data.split_lists import ListedImages

ROOT = Path("/data")
FOLDERS = [ROOT / "tile1/images", ROOT / "tile2/images"]
PATHS = [FOLDERS[0] / "a.jpg", FOLDERS[0] / "sub/b.jpg", FOLDERS[1] / "a.jpg", FOLDERS[1] / "with space.png"]


def test_folders_of_one_name_are_told_apart_by_those_above():
    places = [image_place(path, FOLDERS) for path in PATHS]
    assert places[:2] == ["tile1/images/a.jpg", "tile1/images/sub/b.jpg"]
    assert len(set(places)) == len(PATHS)
    # Folders of other names need no more than their names, as in lists of earlier runs.
    assert image_place(ROOT / "north/a.tif", [ROOT / "north", ROOT / "south"]) == "north/a.tif"
    assert image_place(ROOT / "x/a.tif", [ROOT / "x/a.tif", ROOT / "y/a.tif"]) == "x/a.tif"


@pytest.mark.parametrize(
    ("line", "folder", "found"),
    [
        ("tile1/images/a.jpg", ROOT, {0}),
        ("tile1/images/a", "/elsewhere", {0}),
        ("/data/tile2/images/a.jpg", "/elsewhere", {2}),
        ("../images/a.jpg", "/data/tile2/lists", {2}),
        ("sub/b", ROOT, {1}),
        ("./images/sub/b.jpg masks/sub/b.png", ROOT / "tile1", {1}),
        ("tile2/images/a.jpg,tile2/masks/a.png", ROOT, {2}),
        ("with space.png", ROOT, {3}),
        ("tile2/images/with space.png", ROOT, {3}),
        # Two images have this name, so it names neither alone.
        ("a.jpg", "/elsewhere", {0, 2}),
        ("c.jpg", ROOT, set()),
        ("1/images/a.jpg", "/elsewhere", set()),
    ],
)
def test_a_line_names_an_image_by_its_place_its_path_or_its_end(line, folder, found):
    named = ListedImages(PATHS, [image_place(path, FOLDERS) for path in PATHS])
    assert named.find(line, Path(folder)) == found


names = st.text("abc._- 1", min_size=1, max_size=6).map(str.strip).filter(lambda s: s.strip(". ") == s and s)


@given(st.lists(st.tuples(names, names, names), min_size=1, max_size=8, unique=True))
def test_every_place_that_we_write_names_its_own_image(parts):
    paths = list({ROOT / top / "images" / f"{folder}d" / f"{name}.png" for top, folder, name in parts})
    folders = list(dict.fromkeys(path.parent for path in paths))
    places = [image_place(path, folders) for path in paths]
    assert len(set(places)) == len(paths)
    named = ListedImages(paths, places)
    for i, place in enumerate(places):
        assert named.find(place, Path("/nowhere")) == {i}
