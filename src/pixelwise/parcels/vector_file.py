"""Polygons with columns to a file: GeoPackage, GeoParquet, GeoJSON, FlatGeobuf, Shapefile."""

import json
import os
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from pixelwise.errors import ConfigError
from pixelwise.files import move_durably, replacing
from pixelwise.geo.antimeridian import DECIMALS
from pixelwise.optional import optional_module
from pixelwise.parcels.geopackage import check_geopackage, layer_name, other_layers_kept

DRIVERS = {
    ".gpkg": "GPKG",
    ".parquet": "GeoParquet",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".fgb": "FlatGeobuf",
    ".shp": "ESRI Shapefile",
}
SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def check_vector_output(output: Path) -> None:
    """See that a file of polygons can have this name, and takes nothing from anybody.

    Raises:
        ConfigError: an unknown suffix, a folder of that name, parts of a Shapefile that is not there, or a GeoPackage
            that `check_geopackage` refuses.
        MissingExtraError: GeoParquet without pyarrow.
    """
    if output.suffix.lower() not in DRIVERS:
        raise ConfigError(
            f"{output}: parcels are written as {', '.join(DRIVERS)}. Let the name end in one of them.", code="PW804"
        )
    if output.is_dir():
        raise ConfigError(f"{output} is a folder, and no file can take its name. Choose another output.", code="PW802")
    driver = DRIVERS[output.suffix.lower()]
    if driver == "GeoParquet":
        optional_module("pyarrow.parquet")
    elif driver == "GPKG":
        check_geopackage(output)
    elif driver == "ESRI Shapefile" and not output.exists():
        for part in written_files(output):
            if os.path.lexists(part):
                raise ConfigError(
                    f"{part} is there without {output.name}, and would be overwritten as a part of it. Move it away, "
                    "or choose another output.",
                    code="PW801",
                )


def written_files(output: Path) -> list[Path]:
    """Return all files that belong to a file of polygons; they are written, or go with an older one."""
    if DRIVERS[output.suffix.lower()] == "ESRI Shapefile":
        return [output, *(output.with_suffix(suffix) for suffix in SHAPEFILE_PARTS[1:])]
    return [output]


def in_degrees(output: Path) -> bool:
    """Return whether the format of a file holds degrees only (GeoJSON, RFC 7946)."""
    return DRIVERS[output.suffix.lower()] == "GeoJSON"


def write_polygons(
    output: Path, geometries: np.ndarray, columns: dict[str, np.ndarray], crs: CRS, *, scratch: Path
) -> None:
    """Write polygons, and replace an older file as a whole; of a GeoPackage, the layer of that name.

    Args:
        columns: with names of at most ten letters, which is all that a Shapefile keeps.
        crs: of the geometries; WGS 84 for a GeoJSON.
        scratch: a folder on the same disk, where the file is written before it takes its name.

    Raises:
        ConfigError: the file cannot be written.
    """
    driver = DRIVERS[output.suffix.lower()]
    if driver == "GPKG":
        with replacing(output, scratch=scratch) as temporary, other_layers_kept(output, temporary):
            _write(temporary, output, geometries, columns, crs)
        return
    if driver != "ESRI Shapefile":
        with replacing(output, scratch=scratch) as temporary:
            _write(temporary, output, geometries, columns, crs)
        return
    # A Shapefile is several files, whose names belong together.
    folder = scratch / "shapefile"
    folder.mkdir()
    _write(folder / output.name, output, geometries, columns, crs)
    for index in (".qix", ".sbn", ".sbx"):
        output.with_suffix(index).unlink(missing_ok=True)
    # The one by which it is known comes last.
    for part in sorted(folder.iterdir(), key=lambda part: part.suffix.lower() == ".shp"):
        move_durably(part, output.with_name(part.name))


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
            layer=layer_name(output),
            layer_options=precise,
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
        raise ConfigError(
            f"{output} could not be written: {error}. If the disk is full, make room; else choose another output.",
            code="PW803",
        ) from None


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
    # By it readers skip what lies elsewhere, without decoding any geometry.
    column["covering"] = {"bbox": {side: ["bbox", side] for side in SIDES}}
    bounds = shapely.bounds(geometries).reshape(-1, 4)
    boxes = pyarrow.StructArray.from_arrays([pyarrow.array(each) for each in bounds.T], names=list(SIDES))
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    table = pyarrow.table(
        {name: pyarrow.array(values.tolist() if values.dtype == object else values) for name, values in columns.items()}
        | {"geometry": pyarrow.array(wkb.tolist(), pyarrow.binary()), "bbox": boxes}
    )
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path, compression="zstd")
