"""Parts by folders, tables and groups; each class in each part; lists on disk."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pixelwise.cli import commands
from pixelwise.config import parse_config
from pixelwise.data.part_names import part_in_name, part_named
from pixelwise.data.split import open_split
from pixelwise.data.split_ways import stratified
from pixelwise.errors import ConfigError

SIDE = 8
PARTS = ("training", "validation", "test")


def pair(folder: Path, place: str, value: int = 0) -> None:
    for kind, shape in (("images", (SIDE, SIDE, 3)), ("masks", (SIDE, SIDE))):
        path = folder / kind / place
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.zeros(shape, np.uint8)
        values[0, 0] = value
        Image.fromarray(values).save(path)


def parts_of(folder: Path, classes=2, **keys) -> dict[str, list[str]]:
    names = [f"c{i}" for i in range(classes)]
    table = {"images": str(folder / "images"), "labels": str(folder / "masks"), "classes": names, **keys}
    _, split = open_split(parse_config({"data": table}, "t"))
    return {part: [scene.info.path.stem for scene in getattr(split, part)] for part in PARTS}


@pytest.mark.parametrize(
    ("word", "part"),
    [("train", "training"), ("Valid", "validation"), ("TEST", "test"), ("train2017", "training"), ("latest", None)],
)
def test_words_of_parts(word, part):
    assert part_named(word) == part
    assert part_in_name(f"instances_{word}.json") == part


def test_folders_say_the_parts(tmp_path):
    for place in ("train/a.png", "train/b.png", "val/c.png", "test/d.png"):
        pair(tmp_path, place)
    assert parts_of(tmp_path, split="given") == {"training": ["a", "b"], "validation": ["c"], "test": ["d"]}
    pair(tmp_path, "e.png")
    with pytest.raises(ConfigError, match=r"1 images, such as .*e\.png"):
        parts_of(tmp_path, split="given")


def test_without_a_validation_folder_a_share_of_training_is_taken(tmp_path):
    for place in ("train/a.png", "train/b.png", "train/c.png", "train/d.png", "test/e.png"):
        pair(tmp_path, place)
    found = parts_of(tmp_path, split="given", validation=0.25)
    assert found["test"] == ["e"]
    assert (len(found["training"]), len(found["validation"])) == (3, 1)


def test_a_table_says_the_parts(tmp_path):
    for name in "abcd":
        pair(tmp_path, f"{name}.png")
    table = tmp_path / "split.csv"
    table.write_text("file_name,fold\na.png,train\nb,Validation\nc.png,test\n")
    found = parts_of(tmp_path, split_table=str(table), split_column="fold")
    assert found == {"training": ["a"], "validation": ["b"], "test": ["c"]}
    with pytest.raises(ConfigError, match=r"no column 'split'; it has file_name, fold"):
        parts_of(tmp_path, split_table=str(table))
    table.write_text("file_name,split\na.png,later\n")
    with pytest.raises(ConfigError, match=r"line 2: 'later' is no part"):
        parts_of(tmp_path, split_table=str(table))
    table.write_text("file_name,split\nz.png,train\n")
    with pytest.raises(ConfigError, match=r"line 2: 'z\.png' names no image"):
        parts_of(tmp_path, split_table=str(table))


def test_images_of_a_group_stay_together(tmp_path):
    for video in "abcdef":
        for frame in range(3):
            pair(tmp_path, f"{video}_{frame:03}.png")
    for seed in range(3):
        found = parts_of(tmp_path, group=r"^([a-z])_", validation=0.3, test=0.2)
        videos = {part: {name[0] for name in names} for part, names in found.items()}
        assert sum(len(names) for names in found.values()) == 18, seed
        assert not videos["training"] & videos["validation"]
        assert not videos["test"] & (videos["training"] | videos["validation"])
        assert all(videos.values())
    with pytest.raises(ConfigError, match=r"finds nothing in 'a_000\.png'"):
        parts_of(tmp_path, group=r"^(\d+)")
    with pytest.raises(ConfigError, match="regular expression"):
        parts_of(tmp_path, group="(")


def test_each_class_is_in_each_part_where_that_can_be(tmp_path):
    # Of 20 images, three have class 1, and two class 2.
    for i in range(20):
        pair(tmp_path, f"{i:02}.png", {3: 1, 4: 1, 5: 1, 11: 2, 12: 2}.get(i, 0))
    found = parts_of(tmp_path, classes=3, stratify=True, validation=0.2, test=0.2)
    for part, names in found.items():
        assert {"03", "04", "05"} & set(names), part
    assert {"11", "12"} & set(found["training"])
    assert {"11", "12"} & set(found["validation"])
    assert [len(names) for names in found.values()] == [12, 4, 4]


@given(
    st.lists(st.frozensets(st.integers(0, 4), min_size=1), min_size=3, max_size=25),
    st.integers(0, 5),
)
def test_stratified_covers_what_can_be_covered(present, seed):
    shares = {"training": 0.6, "validation": 0.2, "test": 0.2}
    found = stratified(present, [10] * len(present), shares, np.random.default_rng(seed))
    assert set(found) <= set(shares)
    assert set(found) == set(shares)
    rarest = min({label for each in present for label in each}, key=lambda c: (sum(c in each for each in present), c))
    holders = [part for part, each in zip(found, present, strict=True) if rarest in each]
    assert len(set(holders)) == min(3, len(holders))


def test_lists_are_written_for_other_tools_and_read_back(tmp_path):
    for name in ("a a", "b", "c", "d", "e"):
        pair(tmp_path, f"{name}.png")
    config = tmp_path / "t.toml"
    config.write_text(
        '[data]\nimages = "images"\nlabels = "masks"\nclasses = ["x", "y"]\nvalidation = 0.2\ntest = 0.2\n'
    )

    def run(folder, *more):
        return CliRunner().invoke(commands, ["split", str(config), str(tmp_path / folder), *more])

    assert run("lists").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["test.txt", "train.txt", "val.txt"]
    names = ("train", "val", "test")
    lists = {f"{part}_list": str(tmp_path / f"lists/{file}.txt") for part, file in zip(PARTS, names, strict=True)}
    first = parts_of(tmp_path, validation=0.2, test=0.2)
    assert parts_of(tmp_path, **lists) == first
    assert isinstance(run("lists").exception, ConfigError)
    assert run("pairs", "--lines", "pair").exit_code == 0
    lines = [line for path in sorted((tmp_path / "pairs").iterdir()) for line in path.read_text().splitlines()]
    assert "../images/b.png ../masks/b.png" in lines
    assert "../images/a a.png\t../masks/a a.png" in lines
    assert run("names", "--lines", "name").exit_code == 0
    assert set((tmp_path / "names/train.txt").read_text().splitlines()) == set(first["training"])
