"""Strips cut into pieces: the same map as in one piece, whatever their width and whatever was kept of earlier ones."""

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import card_of, noise, predictor_of, runs, small_network, write_scene

from pixelwise.inference.images import ArrayReader
from pixelwise.inference.tile_grid import plan_strips
from pixelwise.inference.tiling import Tiling
from pixelwise.mapping import map_scene as scenes
from pixelwise.mapping.journal import journal_folder
from pixelwise.mapping.pieces import make_pieces, places

PRODUCTS = ("map.tif", "map.confidence.tif", "map.probabilities.tif")


def tiling_of(height: int, width: int, grid: tuple[int, int], stride: int, piece: int, *, seed: int = 0) -> Tiling:
    """A network over noise that holds no data in one corner."""
    network = small_network(stride=stride, seed=seed)
    valid = np.ones((height, width), bool)
    valid[: height // 3, width // 2 :] = False
    plan = plan_strips(height, width, *grid, stride, piece=piece)
    return Tiling(network, ArrayReader(noise(3, height, width, seed), valid), card_of(network), plan)


def made(tiling: Tiling, wanted: list[tuple[int, int]], kept: dict) -> dict:
    """Pieces by place; what each leaves to others is added to ``kept``."""
    pieces = {}
    for place, piece, carry in make_pieces(tiling, wanted, kept, confidence=True, cells=True):
        pieces[place], kept[place] = piece, carry
    return pieces


def joined(tiling: Tiling, pieces: dict, what: str) -> np.ndarray:
    rows = range(len(tiling.plan.down))
    columns = range(len(tiling.plan.across))
    strips = [np.concatenate([getattr(pieces[row, column], what) for column in columns], axis=-1) for row in rows]
    return np.concatenate(strips, axis=-2)


def stopping_at(limit: float):
    def stop(share: float) -> None:
        if share > limit:
            raise KeyboardInterrupt

    return stop


heights, widths = st.integers(1, 200), st.integers(130, 300)
"""Up to six tiles down and nine across."""
grids = st.sampled_from([(64, 0), (64, 32), (96, 32), (128, 64)])


@settings(max_examples=40, deadline=None)
@given(heights, widths, grids, st.sampled_from([1, 4, 16, 32]), st.sampled_from([32, 64, 96, 160, 256]))
def test_pieces_of_any_width_make_the_map_of_one_piece_and_each_tile_is_computed_once(
    height, width, grid, stride, piece
):
    whole = tiling_of(height, width, grid, stride, piece=width)
    cut = tiling_of(height, width, grid, stride, piece=piece)
    expected, pieces = made(whole, places(whole.plan), {}), made(cut, places(cut.plan), {})
    assert len(cut.plan.across) == -(-width // piece)
    assert len(whole.plan.across) == 1
    assert cut.model.encoder.seen == whole.model.encoder.seen
    for what in ("labels", "valid", "cells"):
        np.testing.assert_array_equal(joined(cut, pieces, what), joined(whole, expected, what))
    # Sums over classes may be rounded otherwise at the end of a row of pixels.
    confidence = [joined(cut, pieces, "confidence"), joined(whole, expected, "confidence")]
    np.testing.assert_allclose(*confidence, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(60, 200), widths, grids, st.sampled_from([32, 96]))
def test_whatever_was_lost_of_earlier_pieces_is_computed_again_with_the_same_bytes(random, height, width, grid, piece):
    tiling, kept = tiling_of(height, width, grid, 4, piece), {}
    expected = made(tiling, places(tiling.plan), kept)
    lost = [place for place in places(tiling.plan) if random.random() < 0.5]
    still = {place: carry for place, carry in kept.items() if random.random() < 0.5}
    again = made(tiling, lost, still)
    assert list(again) == lost
    for place in lost:
        for what in ("labels", "valid", "cells", "confidence"):
            np.testing.assert_array_equal(getattr(again[place], what), getattr(expected[place], what))
        assert again[place].digest == expected[place].digest


@given(st.integers(1, 300), st.integers(1, 400), grids, st.sampled_from([4, 32]), st.sampled_from([32, 64, 256]))
def test_each_tile_of_a_row_is_first_needed_by_one_column_of_pieces(height, width, grid, stride, piece):
    plan = plan_strips(height, width, *grid, stride, piece=piece)
    for row, tiles in enumerate(plan.rows):
        first = [plan.tiles(row, column, begun=True) for column in range(len(plan.across))]
        assert [tile for column in first for tile in column] == list(tiles)


def test_a_scene_of_several_pieces_gets_the_bytes_of_one_piece(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 600, 1300))
    maps = []
    for piece in (512, 1024, 4096):
        monkeypatch.setattr(scenes, "PIECE", piece)
        predictor = predictor_of(tile=128)
        predictor.map_scene(scene, tmp_path / "map.tif", confidence=True, probabilities=True)
        maps.append([runs(predictor), *((tmp_path / name).read_bytes() for name in PRODUCTS)])
    assert maps[0] == maps[1] == maps[2]


@pytest.mark.parametrize("piece", [32, 96, 160])
def test_a_map_in_narrow_pieces_goes_on_where_it_was_stopped(tmp_path, monkeypatch, piece):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 300, 200))
    monkeypatch.setattr(scenes, "PIECE", piece)
    whole = predictor_of()
    whole.map_scene(scene, tmp_path / "whole/map.tif", confidence=True, probabilities=True)
    tiles, stopped = runs(whole), 0

    for share in (0.2, 0.5, 0.8, 1):
        predictor, stop = predictor_of(), stopping_at(share)
        try:
            predictor.map_scene(scene, tmp_path / "map.tif", confidence=True, probabilities=True, advance=stop)
        except KeyboardInterrupt:
            stopped += 1
            assert len(list(journal_folder(tmp_path / "map.tif").glob("carry-*"))) <= 200 // piece + 2
        tiles -= runs(predictor) - 1
    assert stopped == 3
    # The piece that was interrupted is begun again, and no other.
    plan = plan_strips(300, 200, 64, 32, 4, piece=piece)
    widest = max(len(plan.tiles(0, column, begun=True)) for column in range(len(plan.across)))
    assert 1 - 2 * stopped * widest <= tiles <= 1
    for name in PRODUCTS:
        np.testing.assert_array_equal(
            rasterio.open(tmp_path / name).read(), rasterio.open(tmp_path / "whole" / name).read()
        )


def test_a_changed_scene_is_noticed_in_any_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "PIECE", 64)
    values, said = noise(3, 300, 200), []
    scene = write_scene(tmp_path / "scene.tif", values)

    with pytest.raises(KeyboardInterrupt):
        predictor_of().map_scene(scene, tmp_path / "map.tif", advance=stopping_at(0.5))
    values[1, 60, 190] ^= 1
    write_scene(scene, values)
    predictor_of().map_scene(scene, tmp_path / "map.tif", say=said.append)
    assert any("another scene, which has changed" in text for text in said)


def test_memory_of_sums_does_not_grow_with_the_width():
    largest = []
    for width in (2000, 8000):
        tiling = tiling_of(200, width, (64, 32), 4, 512)
        sizes, sum_of = [], tiling.sum_of

        def noted(*arguments, sum_of=sum_of, sizes=sizes):
            own = sum_of(*arguments)
            sizes.append(own.total.nelement())
            return own

        object.__setattr__(tiling, "sum_of", noted)
        torch.manual_seed(0)
        made(tiling, places(tiling.plan), {})
        largest.append(max(sizes))
    assert largest[0] == largest[1]
