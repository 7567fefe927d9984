"""GeoPackages that are there already: who has them open, and which layers in them are not ours."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pixelwise.errors import ConfigError

OPEN = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside a database that is open, or whose program was killed."""
TABLES = "select name from sqlite_master where type in ('table', 'view') and name not like 'gpkg\\_%' escape '\\'"
"""What users and programs put into a GeoPackage, in its contents or not."""
OUR_COLUMNS = (
    {"class", "class_id", "area_m2", "perim_m"},
    {"rank", "score", "label", "predicted", "learned"},
)
"""A layer that has those of a row was drawn by us: parcels, or suspicious labels."""


def layer_name(output: Path) -> str:
    """Return the layer of a file's polygons: the file's name, where a GeoPackage may have such a layer."""
    reserved = output.stem.lower().startswith(("gpkg", "sqlite_", "rtree_"))
    return f"parcels_{output.stem}" if reserved else output.stem


def check_geopackage(output: Path) -> None:
    """See that parcels can be put into a GeoPackage, or that a new one can be made.

    Raises:
        ConfigError: another program has it open or left it unfinished, it cannot be read, or it has a layer of this
            name that is not from here.
    """
    _check_closed(output)
    _other_layers(output)


def _check_closed(output: Path) -> None:
    for suffix in OPEN:
        beside = output.with_name(output.name + suffix)
        if os.path.lexists(beside):
            raise ConfigError(
                f"{beside} shows that another program has {output.name} open, or was killed while it wrote; with a new "
                f"file beside it both would be damaged. Close {output.name} there; if that program is gone, open and "
                "close the file in a GIS once, which puts it in order. Or choose another output.",
                code="PW801",
            )


@contextmanager
def other_layers_kept(output: Path, temporary: Path) -> Iterator[None]:
    """Let a block write our layer into a copy of a GeoPackage that has others; into nothing where it has none.

    Raises:
        ConfigError: as `check_geopackage`, or the file has changed since the block began.
    """
    before = _state(output)
    if _other_layers(output):
        shutil.copyfile(output, temporary)
    yield
    _check_closed(output)
    if _state(output) != before:
        raise ConfigError(
            f"{output} was changed by another program meanwhile. Close it there, and try again.", code="PW801"
        )


def _state(output: Path) -> tuple[int, int] | None:
    if not output.exists():
        return None
    status = output.stat()
    return status.st_size, status.st_mtime_ns


def _other_layers(output: Path) -> list[str]:
    """Return the tables of a GeoPackage that are not of our layer."""
    if not output.exists() or output.stat().st_size == 0:
        return []
    own = layer_name(output)
    try:
        # Nobody has it open, as was seen; so that nothing is written beside it.
        with closing(sqlite3.connect(f"{output.resolve().as_uri()}?immutable=1", uri=True)) as database:
            names = [name for (name,) in database.execute(TABLES)]
            database.execute("select count(*) from gpkg_contents")
            columns = {row[1] for row in database.execute("select * from pragma_table_info(?)", (own,))}
    except sqlite3.Error as error:
        raise ConfigError(
            f"{output} is there, but cannot be read as a GeoPackage: {error}. Move it away, or choose another output.",
            code="PW801",
        ) from None
    if own in names and not any(columns >= ours for ours in OUR_COLUMNS):
        raise ConfigError(
            f"{output} has a layer {own!r} that is not from pixelwise, and would be replaced. Choose another output.",
            code="PW801",
        )
    return [name for name in names if name != own and not name.startswith((f"rtree_{own}_", "sqlite_"))]
