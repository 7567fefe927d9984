"""Small label maps, and parcels read back."""

import json

import numpy as np
import pyarrow.parquet
import pyogrio
import pyproj
import shapely
from affine import Affine
from hypothesis import strategies as st
from rasterio.crs import CRS

from pixelwise.geo.label_map import LabelMapWriter
from pixelwise.geo.raster import RasterInfo
from pixelwise.labels import make_classes

CLASSES = make_classes(["water", "forest", "road"])

UTM, HERE = CRS.from_epsg(32633), Affine(2, 0, 500_000, 0, -2, 5_000_000)


def write(folder, labels, valid=None, confidence=None, crs=UTM, transform=HERE):
    """Write a label map as prediction does."""
    height, width = labels.shape
    info = RasterInfo(folder / "scene.tif", height, width, 3, None, "uint8", None, crs, transform, False)
    valid = np.ones(labels.shape, bool) if valid is None else valid
    sure = confidence is not None
    with LabelMapWriter(folder / "map.tif", info, CLASSES, tags={}, confidence=sure) as writer:
        writer.write(0, labels.astype(np.uint8), confidence, valid)
    return folder / "map.tif"


def parcels(path):
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
        geo = json.loads(table.schema.metadata[b"geo"])
        columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
        crs = pyproj.CRS.from_json_dict(geo["columns"][geo["primary_column"]]["crs"])
        return shapely.from_wkb(columns.pop(geo["primary_column"])), columns, CRS.from_wkt(crs.to_wkt())
    meta, _, wkb, columns = pyogrio.raw.read(path)
    return (
        shapely.from_wkb(wkb),
        dict(zip(meta["fields"].tolist(), columns, strict=True)),
        CRS.from_user_input(meta["crs"]),
    )


@st.composite
def maps(draw):
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    return rng.integers(0, 3, shape), rng.random(shape) < draw(st.sampled_from([0.6, 1.0])), rng.random(shape)


def pieces(labels):
    """Number the pixels that join by edges, one flood at a time."""
    number = np.full(labels.shape, -1)
    for start in np.ndindex(labels.shape):
        if number[start] >= 0:
            continue
        waiting, own = [start], number.max() + 1
        while waiting:
            r, c = waiting.pop()
            if not (0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]):
                continue
            if number[r, c] < 0 and labels[r, c] == labels[start]:
                number[r, c] = own
                waiting += [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
    return number


def tree_map(size=48, seed=0):
    """A map of blobs with specks, some nodata, and its pixels' confidences."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 3, (size // 8, size // 8)), np.ones((8, 8), int))
    specks = rng.random(labels.shape) < 0.05
    labels[specks] = rng.integers(0, 3, specks.sum())
    valid = np.ones(labels.shape, bool)
    valid[:5, -9:] = valid[20:23, 20:24] = False
    return labels, valid, rng.uniform(0.3, 1, labels.shape).astype(np.float32)
