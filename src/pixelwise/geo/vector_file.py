"""Polygons with columns to a file: GeoPackage, GeoParquet, GeoJSON, FlatGeobuf, Shapefile."""

import json
import os
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from pixelwise.errors import ConfigError
from pixelwise.files import replacing
from pixelwise.geo.antimeridian import DECIMALS
from pixelwise.optional import optional_module

DRIVERS = {
    ".gpkg": "GPKG",
    ".parquet": "GeoParquet",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".shp": "ESRI Shapefile",
}


def check_vector_output(output: Path) -> None:
    """See that a file of polygons can have this name.

    Raises:
        ConfigError: an unknown suffix, or a folder of that name.
        MissingExtraError: GeoParquet without pyarrow.
    """
    if output.suffix.lower() not in DRIVERS:
        raise ConfigError(f"{output}: parcels are written as {', '.join(DRIVERS)}. Let the name end in one of them.")
    if output.is_dir():
        raise ConfigError(f"{output} is a folder, and no file can take its name. Choose another output.")
    if DRIVERS[output.suffix.lower()] == "GeoParquet":
        optional_module("pyarrow.parquet")


def in_degrees(output: Path) -> bool:
    """Return whether the format of a file holds degrees only (GeoJSON, RFC 7946)."""
    return DRIVERS[output.suffix.lower()] == "GeoJSON"


def write_polygons(
    output: Path, geometries: np.ndarray, columns: dict[str, np.ndarray], crs: CRS, *, scratch: Path
) -> None:
    """Write polygons, and replace an older file as a whole.

    Args:
        columns: with names of at most ten letters, which is all that a Shapefile keeps.
        crs: of the geometries; WGS 84 for a GeoJSON.
        scratch: a folder on the same disk, where the file is written before it takes its name.

    Raises:
        ConfigError: the file cannot be written.
    """
    if DRIVERS[output.suffix.lower()] != "ESRI Shapefile":
        with replacing(output, scratch=scratch) as temporary:
            _write(temporary, output, geometries, columns, crs)
        return
    # A Shapefile is several files, whose names belong together.
    folder = scratch / "shapefile"
    folder.mkdir()
    _write(folder / output.name, output, geometries, columns, crs)
    for index in (".qix", ".sbn", ".sbx"):
        output.with_suffix(index).unlink(missing_ok=True)
    for part in folder.iterdir():
        os.replace(part, output.with_name(part.name))


def _write(path: Path, output: Path, geometries: np.ndarray, columns: dict[str, np.ndarray], crs: CRS) -> None:
    pyogrio, shapely = optional_module("pyogrio"), optional_module("shapely")
    driver = DRIVERS[output.suffix.lower()]
    wkb = shapely.to_wkb(geometries) if len(geometries) else np.array([], object)
    if driver == "GeoParquet":
        _write_parquet(path, geometries, wkb, columns, crs)
        return
    precise = {"RFC7946": "YES", "COORDINATE_PRECISION": str(DECIMALS)} if driver == "GeoJSON" else None
    try:
        pyogrio.raw.write(
            path,
            wkb,
            list(columns.values()),
            list(columns),
            geometry_type="Unknown" if driver == "GeoJSON" else "Polygon",
            crs=crs.to_wkt(),
            driver=driver,
            layer=output.stem,
            layer_options=precise,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise ConfigError(f"{output} cannot be written: {error}. Make room, or choose another output.") from None


def _write_parquet(
    path: Path, geometries: np.ndarray, wkb: np.ndarray, columns: dict[str, np.ndarray], crs: CRS
) -> None:
    """Write GeoParquet 1.1.0 (https://geoparquet.org/releases/v1.1.0): WKB in a column, its meaning in the metadata."""
    pyarrow, parquet = optional_module("pyarrow"), optional_module("pyarrow.parquet")
    shapely, pyproj = optional_module("shapely"), optional_module("pyproj")
    column: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"] if len(geometries) else [],
        "crs": pyproj.CRS.from_wkt(crs.to_wkt()).to_json_dict(),
    }
    if len(geometries):
        column["bbox"] = shapely.total_bounds(geometries).tolist()
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = pyarrow.table(
        {name: pyarrow.array(values.tolist() if values.dtype == object else values) for name, values in columns.items()}
        | {"geometry": pyarrow.array(wkb.tolist(), pyarrow.binary())}
    )
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path, compression="zstd")
