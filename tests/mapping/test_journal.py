"""Files of an unfinished map that were damaged, lost or mixed up: computed again, or named in one paragraph."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_network import noise, predictor_of, runs, write_scene

from pixelwise.errors import ConfigError, DataError
from pixelwise.mapping.journal import journal_folder, read_settings

PRODUCTS = ("map.tif", "map.confidence.tif", "map.probabilities.tif")
TILES = 6
"""Of a strip of the scene."""


def map_scene(folder: Path, **options):
    predictor, said = predictor_of(), []
    predictor.map_scene(
        folder / "scene.tif", folder / "map.tif", confidence=True, probabilities=True, say=said.append, **options
    )
    return runs(predictor) - 1, said


def stop(share: float) -> None:
    if share > 0.6:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A map that was stopped after five of nine strips, and what it has to become."""
    return half_of(tmp_path_factory.mktemp("half"), 300, 200, pieces=5)


@pytest.fixture(scope="module")
def small_half(tmp_path_factory):
    """The same of a scene of four strips."""
    return half_of(tmp_path_factory.mktemp("half"), 160, 70, pieces=2)


def half_of(folder: Path, height: int, width: int, *, pieces: int):
    write_scene(folder / "scene.tif", noise(3, height, width))
    map_scene(folder)
    expected = [(folder / name).read_bytes() for name in PRODUCTS]
    for name in PRODUCTS:
        (folder / name).unlink()
    with pytest.raises(KeyboardInterrupt):
        map_scene(folder, advance=stop)
    assert len(list(journal_folder(folder / "map.tif").glob("piece-*"))) == pieces
    return folder, expected


def copied(half, tmp_path):
    """Times of change travel along, so that the scene is known again."""
    shutil.copytree(half[0], tmp_path / "copy")
    return tmp_path / "copy", journal_folder(tmp_path / "copy/map.tif")


def made(folder):
    return [(folder / name).read_bytes() for name in PRODUCTS]


def damage(path: Path, how: str, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "flipped":
        place = min(len(content) - 1, int(at * len(content)))
        content[place] ^= 1 << place % 8
    elif how == "cut":
        del content[int(at * len(content)) :]
    elif how == "empty":
        content.clear()
    else:
        content = bytearray({"foreign": b"not ours", "braces": b"{}", "list": b"[]"}[how])
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "flipped", "cut", "empty", "foreign", "braces", "list"])
def test_no_finished_piece_is_lost_with_its_journal(half, tmp_path, how):
    folder, journal = copied(half, tmp_path)
    damage(journal / "journal.json", how)
    tiles, said = map_scene(folder)
    assert made(folder) == half[1]
    assert tiles == TILES * (9 - 5)
    assert "5 of 9 pieces were finished before; going on." in said
    assert not journal.exists()


@pytest.mark.parametrize("how", ["missing", "flipped", "cut", "empty", "foreign"])
@pytest.mark.parametrize(
    ("name", "again"), [("piece-000001-0000.npz", 3), ("cells-000001-0000.npy", 3), ("carry-000004-0000.npz", 2)]
)
def test_what_was_damaged_is_computed_again_and_nothing_else(half, tmp_path, name, again, how):
    """A strip in the middle needs the rows of tiles around it; a lost carry, the two rows above."""
    folder, journal = copied(half, tmp_path)
    damage(journal / name, how)
    tiles, said = map_scene(folder)
    assert made(folder) == half[1]
    assert TILES * (9 - 5) < tiles <= TILES * (9 - 5 + again)
    assert ("1 pieces in" in "".join(said)) == ((name[:5] != "carry" and how != "missing") or name[:5] == "cells")


@given(st.sampled_from(["journal.json", "piece", "cells", "carry"]), st.floats(0, 1, exclude_max=True), st.booleans())
def test_any_byte_may_be_damaged(small_half, tmp_path_factory, kind, at, cut):
    folder, journal = copied(small_half, tmp_path_factory.mktemp("any"))
    damage(sorted(journal.glob(f"{kind}*"))[-1], "cut" if cut else "flipped", at)
    map_scene(folder)
    assert made(folder) == small_half[1]


def test_pieces_of_another_map_or_place_are_not_taken(half, tmp_path):
    folder, journal = copied(half, tmp_path)
    pieces = sorted(journal.glob("piece-*"))
    os.replace(pieces[0], journal / "between")
    os.replace(pieces[1], pieces[0])
    os.replace(journal / "between", pieces[1])
    (folder / "other").mkdir()
    write_scene(folder / "other/scene.tif", noise(3, 300, 200, seed=1))
    with pytest.raises(KeyboardInterrupt):
        map_scene(folder / "other", advance=stop)
    shutil.copy(journal_folder(folder / "other/map.tif") / pieces[2].name, pieces[2])
    tiles, said = map_scene(folder)
    assert any("pieces in" in text and "computed again" in text for text in said)
    assert made(folder) == half[1]
    assert tiles > TILES * (9 - 5)


def test_a_journal_of_an_older_format_is_set_aside(half, tmp_path):
    folder, journal = copied(half, tmp_path)
    settings = json.loads((journal / "journal.json").read_text())
    for key in ("format", "checksum"):
        del settings[key]
    (journal / "journal.json").write_text(json.dumps(settings))
    for path in journal.glob("piece-*"):
        with np.load(path) as file:
            old = {name: file[name] for name in ("labels", "confidence", "digest")}
        np.savez(path, **old)
    _, said = map_scene(folder)
    assert ".map.tif.parts.old1" in said[0]
    assert len(list((folder / ".map.tif.parts.old1").glob("piece-*"))) == 5
    assert made(folder) == half[1]


def test_a_scene_that_is_changed_while_it_is_mapped_is_noticed(half, tmp_path):
    folder, _ = copied(half, tmp_path)
    shutil.rmtree(journal_folder(folder / "map.tif"))

    def change(share: float) -> None:
        if 0.5 < share < 0.6:
            write_scene(folder / "scene.tif", noise(3, 300, 200, seed=1))

    with pytest.raises(DataError, match=r"scene\.tif was changed while it was mapped.*same command again"):
        map_scene(folder, advance=change)
    assert not (folder / "map.tif").exists()
    _, said = map_scene(folder)
    assert any("another scene, which has changed" in text for text in said)
    again = made(folder)
    map_scene(folder)
    assert made(folder) == again != half[1]


def test_a_scene_that_is_only_touched_while_it_is_mapped_is_no_mistake(half, tmp_path):
    folder, journal = copied(half, tmp_path)
    map_scene(folder, advance=lambda share: os.utime(folder / "scene.tif", ns=(0, 0)))
    assert made(folder) == half[1]
    assert not journal.exists()


@pytest.mark.parametrize("place", ["folder", "lock", "content"])
def test_nothing_is_deleted_through_a_link(half, tmp_path, place):
    folder, journal = copied(half, tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("x")
    if place == "folder":
        shutil.rmtree(journal)
        journal.symlink_to(theirs)
    elif place == "lock":
        (journal / "lock").unlink(missing_ok=True)
        (journal / "lock").symlink_to(theirs / "thesis.tex")
    else:
        (journal / "piece-000007-0000.npz").symlink_to(theirs / "thesis.tex")
        (journal / "notes.txt").write_text("x")
    if place == "content":
        map_scene(folder)
        assert made(folder) == half[1]
        assert (journal / "notes.txt").read_text() == "x"
    else:
        with pytest.raises(ConfigError, match="link"):
            map_scene(folder)
    assert (theirs / "thesis.tex").read_text() == "x"


def test_no_file_of_a_map_tells_where_on_the_machine_it_was_made(half, tmp_path):
    folder, journal = copied(half, tmp_path)
    place = str(half[0]).encode()
    assert read_settings(folder / "map.tif")["scene"] == "scene.tif"
    assert [path.name for path in journal.iterdir() if place in path.read_bytes()] == []
    map_scene(folder)
    assert [path.name for path in folder.iterdir() if path.is_file() and place in path.read_bytes()] == []
