from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from pixelwise.config import DataConfig
from pixelwise.data.scenes import Scene, distinct_names
from pixelwise.data.split import split_scenes, write_split
from pixelwise.data.split_lists import kept_lists
from pixelwise.errors import ConfigError
from pixelwise.geo.raster import RasterInfo, RasterReader
from pixelwise.labels import IGNORE

UTM = CRS.from_epsg(32633)


class Flat(RasterReader):
    """An image of zeros, and a mask of zeros, of any size."""

    def __init__(self, info):
        self.info, self.bands = info, (1,)

    def read(self, window):
        shape = (window.height, window.width)
        return np.zeros((1, *shape), np.uint8), np.ones(shape, bool)


class Zeros:
    def read(self, window):
        return np.zeros((window.height, window.width), np.int16)


def scene(name, top, left, height, width, crs=UTM, pixel=1.0):
    info = RasterInfo(
        Path(name), height, width, 1, None, "uint8", None, crs, Affine(pixel, 0, left, 0, -pixel, top), False
    )
    return Scene(name, Flat(info), Zeros())


@st.composite
def lists_of_scenes(draw):
    """Draw overlapping scenes on one pixel grid of one coordinate system."""
    number = st.integers(-80, 80)
    return [
        scene(f"scene {i}", draw(number), draw(number), draw(st.integers(1, 90)), draw(st.integers(1, 90)))
        for i in range(draw(st.integers(2, 6)))
    ]


def config(split, validation=0.3, block=32):
    return DataConfig(images="i", labels="l", classes=["a"], split=split, validation=validation, block=block)


def ground(scenes):
    """Return the places on the ground, to a pixel, that have a label."""
    found = set()
    for each in scenes:
        rows, columns = np.nonzero(each.read(each.whole).mask != IGNORE)
        x, y = each.info.transform @ (columns + 0.5, rows + 0.5)
        found |= set(zip(x.tolist(), y.tolist(), strict=True))
    return found


@given(lists_of_scenes(), st.sampled_from(["scene", "block"]), st.integers(0, 99), st.sampled_from([0.05, 0.3, 0.8]))
def test_no_pixel_of_the_ground_is_in_both_parts_and_none_is_lost(scenes, split, seed, share):
    try:
        parts = split_scenes(scenes, config(split, share), seed=seed)
    except ConfigError:
        return
    training, validation = ground(parts.training), ground(parts.validation)
    assert not training & validation
    assert training | validation == ground(scenes)
    assert training
    assert validation


@given(lists_of_scenes(), st.sampled_from(["scene", "block"]), st.integers(0, 99))
def test_the_same_seed_gives_the_same_parts(scenes, split, seed):
    try:
        first, second = (split_scenes(scenes, config(split), seed=seed) for _ in range(2))
    except ConfigError:
        return
    assert ground(first.validation) == ground(second.validation)
    assert [s.name for s in first.training] == [s.name for s in second.training]


@settings(max_examples=8)
@given(st.integers(0, 99), st.sampled_from([0.1, 0.25, 0.5]))
def test_blocks_of_a_large_scene_give_about_the_share_that_is_wanted(seed, share):
    (part,) = split_scenes([scene("large", 640, 0, 640, 640)], config("block", share), seed=seed).validation
    assert abs((part.read(part.whole).mask != IGNORE).mean() - share) <= 1 / 400


@given(st.integers(0, 99))
def test_scenes_without_a_georeference_are_divided_by_their_own_pixels(seed):
    scenes = [scene(f"photo {i}", 0, 0, 70, 70, crs=None) for i in range(2)]
    parts = split_scenes(scenes, config("block"), seed=seed)
    for each in scenes:
        masks = [[p.read(p.whole).mask != IGNORE for p in side if p.name == each.name] for side in vars(parts).values()]
        assert sum(np.sum(part) for side in masks for part in side) == 70 * 70


def test_other_seeds_give_other_parts():
    scenes = [scene(f"scene {i}", 0, 100 * i, 50, 50) for i in range(10)]
    chosen = {tuple(s.name for s in split_scenes(scenes, config("scene"), seed=seed).validation) for seed in range(20)}
    assert len(chosen) > 3


def test_half_of_ten_equal_scenes_are_five():
    scenes = [scene(f"scene {i}", 0, 100 * i, 50, 50) for i in range(10)]
    assert len(split_scenes(scenes, config("scene", 0.5), seed=3).validation) == 5


def test_neighbours_that_share_an_edge_only_may_be_divided():
    scenes = [scene("west", 50, 0, 50, 50), scene("east", 50, 50, 50, 50)]
    parts = split_scenes(scenes, config("scene", 0.5), seed=0)
    assert len(parts.training) == len(parts.validation) == 1


def test_scenes_that_all_overlap_form_one_group_and_are_an_error():
    scenes = [scene(f"scene {i}", 50, 30 * i, 50, 50) for i in range(4)]
    with pytest.raises(ConfigError, match=r"4 scenes .* one group: they overlap"):
        split_scenes(scenes, config("scene"), seed=0)


def test_one_scene_cannot_be_divided_by_scene():
    with pytest.raises(ConfigError, match=r"split = 'block'"):
        split_scenes([scene("only", 50, 0, 50, 50)], config("scene"), seed=0)


def test_one_block_over_everything_is_an_error():
    with pytest.raises(ConfigError, match="block"):
        split_scenes([scene("only", 50, 1, 40, 40)], config("block", block=512), seed=0)


def test_a_share_of_0_keeps_everything_for_training():
    scenes = [scene("only", 50, 0, 50, 50)]
    parts = split_scenes(scenes, config("scene", 0.0), seed=0)
    assert (parts.training, parts.validation) == (scenes, [])


def test_scenes_of_two_coordinate_systems_that_overlap_stay_together():
    # The central meridian of zone 33 is 15 degrees east; 500000 metres east is there.
    metres = scene("metres", 5_000_000, 500_000, 50, 50, pixel=10.0)
    degrees = scene("degrees", 45.154, 15.0, 50, 50, crs=CRS.from_epsg(4326), pixel=0.0002)
    far = scene("far", 10.0, 0.0, 50, 50, crs=CRS.from_epsg(4326), pixel=0.0002)
    for seed in range(5):
        parts = split_scenes([metres, degrees, far], config("scene"), seed=seed)
        sides = [{s.name for s in side} for side in (parts.training, parts.validation)]
        assert {"metres", "degrees"} in sides


def three(split, **more):
    return DataConfig(images="i", labels="l", classes=["a"], split=split, block=32, **more)


@given(lists_of_scenes(), st.sampled_from(["scene", "block"]), st.integers(0, 99))
def test_three_parts_share_no_ground_and_lose_none(scenes, split, seed):
    try:
        parts = split_scenes(scenes, three(split, validation=0.2, test=0.3), seed=seed)
    except ConfigError:
        return
    found = [ground(parts.training), ground(parts.validation), ground(parts.test)]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))
    assert set.union(*found) == ground(scenes)


@given(lists_of_scenes(), st.sampled_from(["scene", "block"]), st.integers(0, 99))
def test_a_test_part_leaves_validation_as_it_is_without_one(scenes, split, seed):
    try:
        two, parts = (split_scenes(scenes, three(split, validation=0.2, test=test), seed=seed) for test in (0.0, 0.3))
    except ConfigError:
        return
    if len(scenes) > 3:
        assert ground(parts.validation) <= ground(two.validation)


@given(lists_of_scenes(), st.sampled_from(["scene", "block"]), st.integers(0, 99))
def test_lists_give_the_same_parts_again_whatever_the_seed(tmp_path_factory, scenes, split, seed):
    folder, data = tmp_path_factory.mktemp("lists"), three(split, validation=0.2, test=0.3)
    try:
        parts = split_scenes(scenes, data, seed=seed)
    except ConfigError:
        return
    write_split(folder, data, parts)
    again = split_scenes(scenes, data, seed=seed + 1, lists=kept_lists(folder))
    for name in ("training", "validation", "test"):
        assert ground(getattr(again, name)) == ground(getattr(parts, name))


def test_a_list_takes_names_with_or_without_suffix_and_leaves_the_rest_out(tmp_path):
    scenes = [scene(f"i/{name}.tif", 0, 100 * i, 50, 50) for i, name in enumerate(["a/x", "b/x", "y", "z"])]
    (tmp_path / "t.txt").write_text("# mine\na/x\n\ny.tif\n")
    (tmp_path / "v.txt").write_text("b/x.tif\n")
    lists = {"training": tmp_path / "t.txt", "validation": tmp_path / "v.txt"}
    parts = split_scenes(scenes, config("scene"), seed=0, lists=lists)
    assert [[s.name for s in part] for part in vars(parts).values()] == [["i/a/x.tif", "i/y.tif"], ["i/b/x.tif"], []]
    for text, words in (
        ("q\n", "no image of this name"),
        ("x.tif\n", "2 images of this name"),
        ("b/x\n", "lists of training"),
    ):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(ConfigError, match=words):
            split_scenes(scenes, config("scene"), seed=0, lists=lists)


def test_lists_of_other_blocks_are_refused(tmp_path):
    scenes = [scene("large", 640, 0, 640, 640)]
    write_split(tmp_path, config("block"), split_scenes(scenes, config("block"), seed=0))
    with pytest.raises(ConfigError, match="blocks of this size"):
        split_scenes(scenes, config("block", block=64), seed=0, lists=kept_lists(tmp_path))


@given(st.floats(-0.4, 0.4), st.integers(0, 20))
def test_blocks_of_one_place_are_one_whether_its_longitude_is_181_or_minus_179(shift, seed):
    degrees = CRS.from_epsg(4326)
    here, there = (
        scene(name, 10.0, round(x + shift, 3), 100, 100, crs=degrees, pixel=0.001)
        for name, x in (("e", 180.5), ("w", -179.5))
    )
    parts = split_scenes([here, there], config("block", 0.4), seed=seed)
    for side in vars(parts).values():
        masks = [each.read(each.whole).mask for each in side]
        assert len(masks) in (0, 2)
        if masks:
            assert (masks[0] != masks[1]).mean() < 0.05


def test_two_images_of_one_name_have_names_of_their_own():
    paths = [Path("i/a/x.tif"), Path("i/b/x.tif"), Path("i/y.tif"), Path("i/y.png"), Path("i/z.tif")]
    assert distinct_names(paths) == ["a/x", "b/x", "y.tif", "y.png", "z"]
