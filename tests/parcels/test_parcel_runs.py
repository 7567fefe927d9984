"""What a run tells while it works, and what it leaves when it is killed."""

import errno
import signal
import subprocess
import sys

import numpy as np
import pytest
from small_parcels import parcels, tree_map, write

from pixelwise.errors import ConfigError
from pixelwise.parcels import regions
from pixelwise.parcels.polygonize import polygonize

KILLED_WHILE_DRAWING = """
def advance(stage, share):
    if stage == "Drawing outlines":
        os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_BEFORE_THE_FILE_HAS_ITS_NAME = """
def advance(stage, share):
    if stage == "Writing parcels":
        os.replace = lambda old, new: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("suffix", ["gpkg", "shp"])
@pytest.mark.parametrize("advance", [KILLED_WHILE_DRAWING, KILLED_BEFORE_THE_FILE_HAS_ITS_NAME])
def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path, advance, suffix):
    path, output = write(tmp_path, *tree_map()), tmp_path / f"p.{suffix}"
    script = "import os, signal, sys\nfrom pathlib import Path\nfrom pixelwise.parcels.polygonize import polygonize\n"
    script += advance + "polygonize(Path(sys.argv[1]), Path(sys.argv[2]), advance=advance)"
    killed = subprocess.run([sys.executable, "-c", script, path, output], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [each.name for each in tmp_path.glob(".*")]
    assert left == [f".p.{suffix}.scratch"]
    assert len(list((tmp_path / left[0]).iterdir())) > 1
    made = polygonize(path, output)
    assert len(parcels(output)[0]) == made.parcels > 0
    assert not list(tmp_path.glob(".*"))


def test_a_living_run_keeps_its_scratch_files_from_another_for_the_same_output(tmp_path):
    path, refused = write(tmp_path, *tree_map()), []

    def intrude(stage, share):
        if stage == "Drawing outlines" and not refused:
            with pytest.raises(ConfigError, match=r"Another process is making .*p\.gpkg .* choose another output"):
                polygonize(path, tmp_path / "p.gpkg")
            refused.append(stage)
            polygonize(path, tmp_path / "other.gpkg")

    made = polygonize(path, tmp_path / "p.gpkg", advance=intrude)
    assert refused
    assert len(parcels(tmp_path / "p.gpkg")[0]) == len(parcels(tmp_path / "other.gpkg")[0]) == made.parcels
    assert not list(tmp_path.glob(".*"))


def test_each_stage_tells_growing_shares_up_to_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "STRIP_PIXELS", 500)
    told = {}
    polygonize(
        write(tmp_path, *tree_map()),
        tmp_path / "p.gpkg",
        minimum_area=40.0,
        simplify=2.0,
        instances=("forest", "road"),
        core=3.0,
        advance=lambda stage, share: told.setdefault(stage, []).append(share),
    )
    assert list(told) == [
        "Finding interiors of fields",
        "Finding cores of fields",
        "Flooding fields",
        "Finding regions",
        "Finding neighbours of small regions",
        "Reading confidence",
        "Drawing outlines",
        "Simplifying outlines",
        "Writing parcels",
    ]
    for shares in told.values():
        assert (np.diff(shares) > 0).all()
        assert shares[-1] == 1
    assert len(told["Drawing outlines"]) > 3


def test_a_full_disk_is_named_with_the_output(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pixelwise.parcels.polygonize.label_regions", full)
    with pytest.raises(ConfigError, match=r"p\.gpkg failed: No space left.*Free space"):
        polygonize(write(tmp_path, *tree_map()), tmp_path / "p.gpkg")
    assert not list(tmp_path.glob(".p*"))
