"""A corrected copy of a file of polygons: axes swapped back, the right system assigned, invalid shapes fixed."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from pixelwise.data.doctor.finding import Finding
from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.geo.vector import areal_parts
from pixelwise.geo.vector_source import vector_source
from pixelwise.optional import optional_module

POLYGON_CODES = ("PW160", "PW162", "PW163", "PW222")
"""Findings on polygons that a copy can cure."""


def fix_polygons(source: Path, target: Path, findings: Sequence[Finding], *, layer: str | None) -> list[str]:
    """Write a GeoPackage with the shapes and columns of a file, corrected.

    Returns:
        a sentence for each thing that was done.

    Raises:
        ConfigError: the copy is there already.
    """
    if target.exists():
        raise ConfigError(f"{target} is there already. Remove it, or rename it.", code="PW801")
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meta, _, wkb, columns = pyogrio.raw.read(vector_source(source), layer=layer, force_2d=True)
    shapes = shapely.from_wkb(wkb, on_invalid="fix")
    codes, done, crs = {finding.code: finding for finding in findings}, [], meta["crs"]
    if "PW163" in codes:
        shapes = shapely.transform(shapes, lambda xy: xy[:, ::-1])
        done.append(f"{target}: axes swapped back.")
    if "PW162" in codes:
        value = codes["PW162"].value
        assert isinstance(value, dict)
        if value.get("swapped"):
            shapes = shapely.transform(shapes, lambda xy: xy[:, ::-1])
        crs = value["fits"]
        done.append(f"{target}: its coordinate system is {crs} now.")
    invalid = ~(shapely.is_missing(shapes) | shapely.is_valid(shapes))
    if invalid.any():
        shapes[invalid] = [areal_parts(shape) for shape in shapely.make_valid(shapes[invalid])]
        done.append(f"{target}: {int(invalid.sum())} invalid polygons fixed.")
    with replacing(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.raw.write(
            temporary,
            geometry=shapely.to_wkb(shapes),
            field_data=columns,
            fields=meta["fields"],
            crs=crs,
            geometry_type="Unknown",
            driver="GPKG",
            layer=target.stem,
        )
    return done
