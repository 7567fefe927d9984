"""GeoPackages that are there already."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pyogrio
import pytest
import shapely
from small_parcels import write

from pixelwise.errors import ConfigError
from pixelwise.parcels.polygonize import polygonize

SQUARE = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)]))
KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(f"pragma journal_mode={sys.argv[2]}")
database.execute("pragma cache_size=1")
database.execute("begin immediate")
database.execute("create table note(x)")
for _ in range(2000):
    database.execute("insert into note values (?)", ("x" * 500,))
os.kill(os.getpid(), signal.SIGKILL)
"""


def notes(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select * from note").fetchall()


def label_map(folder):
    return write(folder, np.kron(np.eye(4, dtype=int), np.ones((10, 10), int)))


def add_layer(path, name, append):
    options = {"geometry_type": "Polygon", "crs": "EPSG:32633", "driver": "GPKG", "layer": name, "append": append}
    pyogrio.raw.write(path, SQUARE, [np.array([7])], ["number"], **options)


def test_other_layers_are_kept_and_ours_is_replaced_in_them(tmp_path):
    path, output = label_map(tmp_path), tmp_path / "project.gpkg"
    add_layer(output, "by hand", False)
    add_layer(output, "roads", True)
    for smallest in (0.0, 1e9):
        made = polygonize(path, output, minimum_area=smallest, merge=False)
        assert sorted(pyogrio.list_layers(output)[:, 0]) == ["by hand", "project", "roads"]
        assert pyogrio.read_info(output, layer="project")["features"] == made.parcels
        for name in ("by hand", "roads"):
            _, _, geometries, columns = pyogrio.raw.read(output, layer=name)
            assert (geometries.tolist(), columns[0].tolist()) == (SQUARE.tolist(), [7])
    assert sqlite3.connect(output).execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_layer_of_the_same_name_that_is_not_ours_and_a_file_that_is_none_are_kept(tmp_path):
    path, output = label_map(tmp_path), tmp_path / "fields.gpkg"
    add_layer(output, "fields", False)
    before = output.read_bytes()
    with pytest.raises(ConfigError, match="layer 'fields' that is not from pixelwise"):
        polygonize(path, output)
    assert output.read_bytes() == before
    output.write_text("notes")
    with pytest.raises(ConfigError, match=r"fields\.gpkg is there, but cannot be read as a GeoPackage"):
        polygonize(path, output)
    assert output.read_text() == "notes"


def test_a_file_that_another_program_has_open_is_left_alone(tmp_path):
    path, output = label_map(tmp_path), tmp_path / "p.gpkg"
    polygonize(path, output)
    database = sqlite3.connect(output)
    database.execute("pragma journal_mode=wal")
    database.execute("create table note(x)")
    database.commit()
    with pytest.raises(ConfigError, match=r"p\.gpkg-wal shows that another program has p\.gpkg open"):
        polygonize(path, output)
    database.execute("insert into note values (1)")
    database.commit()
    database.close()
    assert notes(output) == [(1,)]
    polygonize(path, output)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_a_killed_program_left_beside_the_file_is_named(tmp_path, mode):
    path, output = label_map(tmp_path), tmp_path / "p.gpkg"
    polygonize(path, output)
    killed = subprocess.run([sys.executable, "-c", KILLED, output, mode], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = output.read_bytes()
    with pytest.raises(ConfigError, match=r"p\.gpkg-(wal|journal) shows"):
        polygonize(path, output)
    assert output.read_bytes() == before
    output.unlink()
    with pytest.raises(ConfigError, match=r"p\.gpkg-(wal|journal) shows"):
        polygonize(path, output)


def test_an_edit_that_is_saved_while_parcels_are_drawn_is_kept(tmp_path):
    path, output = label_map(tmp_path), tmp_path / "p.gpkg"
    polygonize(path, output)

    def edit(stage, share):
        if stage == "Writing parcels" and share == 0:
            with closing(sqlite3.connect(output)) as database:
                database.execute("create table note(x)")

    polygonize(path, output, advance=edit)
    assert notes(output) == []
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["gpkg_fields", "sqlite_fields", "rtree_fields", "GPKG", "fields of 2026"])
def test_any_file_name_gives_a_layer(tmp_path, name):
    made = polygonize(label_map(tmp_path), tmp_path / f"{name}.gpkg")
    assert pyogrio.read_info(tmp_path / f"{name}.gpkg")["features"] == made.parcels


@pytest.mark.parametrize("suffix", [".dbf", ".prj", ".cpg", ".shx", ".qix"])
def test_a_shapefile_takes_no_file_that_belonged_to_none(tmp_path, suffix):
    (tmp_path / f"p{suffix}").write_text("mine")
    with pytest.raises(ConfigError, match=rf"p\{suffix} is there without p\.shp"):
        polygonize(label_map(tmp_path), tmp_path / "p.shp")
    assert (tmp_path / f"p{suffix}").read_text() == "mine"


@pytest.mark.parametrize("place", ["folder", "content", "lock", "foreign"])
def test_nothing_is_deleted_through_a_link_or_in_a_folder_of_somebody_else(tmp_path, place):
    path, theirs, scratch = label_map(tmp_path), tmp_path / "theirs", tmp_path / ".p.gpkg.scratch"
    (theirs / "below").mkdir(parents=True)
    (theirs / "thesis.tex").write_text("x")
    (theirs / "below/data.csv").write_text("x")
    if place == "folder":
        scratch.symlink_to(theirs)
    elif place == "foreign":
        theirs.rename(scratch)
        theirs = scratch
    else:
        scratch.mkdir()
        (scratch / "lock").touch()
        if place == "lock":
            (scratch / "lock").unlink()
            (scratch / "lock").symlink_to(theirs / "thesis.tex")
        else:
            (scratch / "link").symlink_to(theirs)
    if place == "content":
        polygonize(path, tmp_path / "p.gpkg")
    else:
        with pytest.raises(ConfigError, match=r"scratch"):
            polygonize(path, tmp_path / "p.gpkg")
    assert [(theirs / name).read_text() for name in ("thesis.tex", "below/data.csv")] == ["x", "x"]
    assert os.path.exists(tmp_path / "p.gpkg") == (place == "content")
