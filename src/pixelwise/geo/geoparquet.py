"""Reading GeoParquet (https://geoparquet.org/releases/v1.1.0), which the GDAL in pyogrio's wheels does not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from pixelwise.errors import DataError
from pixelwise.optional import optional_module

Table = tuple[list[str], Shaped[np.ndarray, " n"] | None, list[Any], str | None]
"""The names of the columns, the geometries as WKB, the values of one column, and the coordinate system."""


def read_geoparquet(path: Path, attribute: str | None) -> Table:
    """Read the geometries of a file, and one of its columns.

    Raises:
        DataError: no GeoParquet, a damaged one, or geometries that are not WKB.
        MissingExtraError: the extra ``parquet`` is not installed.
    """
    pyarrow, parquet = optional_module("pyarrow"), optional_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            about = json.loads((schema.metadata or {})[b"geo"])
            place = about["primary_column"]
            column = about["columns"][place]
            if column["encoding"] != "WKB":
                raise DataError(
                    f"{path} holds geometries as {column['encoding']}, not as WKB. Write them as WKB.", code="PW420"
                )
            fields = [name for name in schema.names if name not in about["columns"]]
            table = file.read([place, *([attribute] if attribute in fields else [])])
            wkb = np.array([None, *table.column(place).cast(pyarrow.binary()).to_pylist()], object)[1:]
            values = table.column(attribute).to_pylist() if attribute in fields else []
    except KeyError as missing:
        raise DataError(
            f"{path} is no GeoParquet: {missing} is missing in its metadata. Export it again.", code="PW420"
        ) from None
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"{path} cannot be read as GeoParquet: {reason}. It is corrupt; write it again.", code="PW420"
        ) from None
    # No crs means longitude and latitude; null means that none is known.
    crs = column.get("crs", "OGC:CRS84")
    return fields, wkb, values, json.dumps(crs) if isinstance(crs, dict) else crs
