"""Suspicious labels as files: a GeoPackage to walk through in a GIS, and JSON."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from affine import Affine
from jaxtyping import Float64
from rasterio.crs import CRS

from pixelwise.data.footprints import exact_place
from pixelwise.data.scenes import Scene
from pixelwise.evaluation.suspects import Suspect
from pixelwise.files import replacing
from pixelwise.geo.coordinates import placed, transformed
from pixelwise.geo.proj import degrees
from pixelwise.optional import optional_module
from pixelwise.parcels.scratch_folder import scratch_folder
from pixelwise.parcels.vector_file import check_vector_output, write_polygons


def write_suspect_json(path: Path, suspects: Sequence[Suspect], run: Path) -> None:
    """Write suspects for scripts, the likeliest first; boxes are in pixels of the image."""
    listed = [{"rank": rank, **suspect.to_dict()} for rank, suspect in enumerate(suspects, start=1)]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"run": str(run), "suspects": listed}, indent=1), encoding="utf-8")


def write_suspect_polygons(path: Path, suspects: Sequence[Suspect], scenes: Sequence[Scene]) -> int:
    """Write the outlines of suspects on the ground, with their rank, score, label, prediction, scene and part.

    They are in the scenes' coordinate system, if all have one, else in longitude and latitude.

    Returns:
        how many were written; 0, and no file, if no scene has a place on the ground.

    Raises:
        ConfigError: the file cannot be written.
    """
    shapely = optional_module("shapely")
    places = {scene.info.path: place for scene in scenes if (place := exact_place(scene.info)) is not None}
    kept = [(rank, suspect) for rank, suspect in enumerate(suspects, start=1) if suspect.path in places]
    if not kept:
        return 0
    systems = {crs.to_wkt(): crs for crs, _ in places.values()}
    target = next(iter(systems.values())) if len(systems) == 1 else degrees()
    geometries = [shapely.transform(s.outline, partial(_on_ground, *places[s.path], target)) for _, s in kept]
    columns = {
        "rank": np.array([rank for rank, _ in kept]),
        "score": np.array([suspect.score for _, suspect in kept]),
        **{
            key: np.array([getattr(s, key) for _, s in kept], object) for key in ("label", "predicted", "scene", "part")
        },
        "learned": np.array([int(suspect.learned) for _, suspect in kept]),
        "pixels": np.array([suspect.pixels for _, suspect in kept]),
    }
    check_vector_output(path)
    with scratch_folder(path) as scratch:
        write_polygons(path, np.array(geometries, object), columns, target, scratch=scratch)
    return len(kept)


def _on_ground(source: CRS, transform: Affine, target: CRS, points: Float64[np.ndarray, "n 2"]) -> np.ndarray:
    return transformed(source, target, placed(transform, points))
