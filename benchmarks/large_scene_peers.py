"""Maps of large scenes beside geoai, raster-vision and torchgeo: memory, time, seams; one network for all.

    python benchmarks/large_scene_peers.py SCENES --sides 2000 4000 8000
    python benchmarks/large_scene_peers.py SCENES --seams      # trains a network on the example fields first

SCENES is a folder of 8-bit scenes of three bands, such as `examples/fields/train`; `huge.py` makes a large one of them.
The calls of each tool are in `peers/maps.py`. A tool runs in a process of its own with one thread or ``--threads``, on
tiles of 512 pixels that share 128, one at a time. All have the same fused network, so that the work around it is
compared. In each round every tool takes its turn, and the ratio of a round is taken before the median over rounds.
"seconds" are those of the call, with the map on disk and without imports; "cpu" is its processor time. A tool whose
memory would pass ``--memory`` is stopped, and the result says so. Results are merged into
`results/large_scene_peers.json`. A tool that is not installed is left out.

With ``--seams``: labels that change when the grid of tiles is shifted by half a tile (`seams.py`), tiles of 256 pixels
that share 64, on four scenes. Labels count as near a border where each tool has its borders.

The tools need an environment of their own; packages that they do not import are left out:

    python -m venv peers && . peers/bin/activate && pip install -e '.[geo]'
    pip install --no-deps geoai-py==0.40.1 torchgeo==0.8.1 rastervision_core==0.31.1 rastervision_pipeline==0.31.1 \\
        rastervision_pytorch_learner==0.31.1 rastervision_pytorch_backend==0.31.1 torchvision==0.28.0 timm lightning \\
        segmentation-models-pytorch pytorch-lightning kornia kornia-rs jsonargparse docstring-parser typeshed-client \\
        lightly lightly_utils einops everett==3.4.0 stackstac albumentations==2.0.8 albucore==0.0.24 stringzilla simsimd
    pip install leafmap pystac==1.12.2 boto3 configobj xarray dask humanize triangle opencv-python-headless torchinfo \\
        pycocotools tensorboard psutil scooby rioxarray planetary-computer smoothify pystac-client contextily \\
        mapclassify overturemaps maplibre geopandas torchmetrics scikit-image scikit-learn transformers tqdm numkong
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from huge import write_model, write_scene

RESULTS = Path(__file__).parent / "results" / "large_scene_peers.json"
TILE, OVERLAP = 512, 128
SEAM_SIDE = 1024
"""Side of the example scenes in pixels."""
PACKAGES = {
    "pixelwise": ("pixelwise.predictor", "pixelwise"),
    "geoai predict_geotiff": ("geoai.utils", "geoai-py"),
    "geoai semantic_segmentation": ("geoai.train", "geoai-py"),
    "raster-vision smooth": ("rastervision.pytorch_learner", "rastervision_core"),
    "raster-vision crop": ("rastervision.pytorch_learner", "rastervision_core"),
    "torchgeo grid": ("torchgeo.samplers", "torchgeo"),
}
"""Way -> the module that it imports, and the name under which that is installed."""


def keep(key: str, found: object) -> None:
    """Merge a result into the file."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**kept, key: found}, indent=1) + "\n", encoding="utf-8")


def installed() -> list[str]:
    """Return the ways whose package is here, and say which are not."""
    ways = []
    for way, (module, _) in PACKAGES.items():
        package = module.split(".")[0]
        if importlib.util.find_spec(package) is None:
            print(f"{way}: {package} is not installed, left out", flush=True)
        else:
            ways.append(way)
    return ways


def peak_mib() -> float:
    """Return the most memory that this process has had resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def map_here(folder: Path, way: str, memory: float) -> None:
    """Make one map in this process, and print what it took."""
    import torch
    from peers.maps import MAPS

    # Some peers ask for as many as there are cores.
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    importlib.import_module(PACKAGES[way][0])
    if memory:
        limit = int(memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before = peak_mib()
    started, cpu = time.perf_counter(), time.process_time()
    try:
        # Peers draw bars on the standard output.
        with contextlib.redirect_stdout(sys.stderr):
            path = MAPS[way](folder / "model", folder / "scene.tif", folder / f"{way}.tif", TILE, OVERLAP)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        print(json.dumps({"out_of_memory": True, "peak_mib": peak_mib(), "imported_mib": before}))
        return
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    found = {"seconds": seconds, "cpu": cpu, "peak_mib": peak_mib(), "imported_mib": before}
    print(json.dumps({**found, "map": str(path), "map_mib": path.stat().st_size / 2**20}))


def in_own_process(folder: Path, way: str, memory: float, threads: int) -> dict:
    """Make one map in a new process; return what it printed."""
    command = [sys.executable, __file__, str(folder), "--here", way, "--memory", str(memory)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise RuntimeError(f"{way} failed:\n{ended.stderr[-3000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def write_plain_scene(sources: list[Path], path: Path, side: int) -> None:
    """Write a scene without loss: geoai copies the scene's profile for its map, which JPEG in YCbCr does not allow."""
    rough = path.with_name("jpeg.tif")
    write_scene(sources, rough, side, side)
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "photometric": "rgb", "compress": "deflate"}
    rasterio.shutil.copy(rough, path, driver="GTiff", interleave="pixel", **layout)
    rough.unlink()


def compare(scenes: Path, side: int, rounds: int, memory: float, network: str, classes: int, threads: int) -> None:
    """Map one scene by all ways, in turn, and keep the ratios."""
    ways, took = installed(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Not here: what this process has in memory when it starts another counts in the other's peak.
        command = [sys.executable, __file__, str(scenes), "--prepare", str(folder), "--sides", str(side)]
        subprocess.run([*command, "--network", network, "--classes", str(classes)], check=True)
        for turn in range(rounds):
            took.append({way: in_own_process(folder, way, memory, threads) for way in ways})
            ways = [way for way in ways if "out_of_memory" not in took[turn][way]]
    found = {}
    for way in took[0]:
        turns = [turn[way] for turn in took if way in turn]
        own = {key: max(turn[key] for turn in turns) for key in ("peak_mib", "imported_mib")}
        if "out_of_memory" in turns[0]:
            own["out_of_memory_at_gib"] = memory
        else:
            for key in ("seconds", "cpu"):
                own[key] = statistics.median(turn[key] for turn in turns)
                ratios = [turn[way][key] / turn["pixelwise"][key] for turn in took]
                own[f"{key}_ratio"], own[f"{key}_ratios"] = statistics.median(ratios), [round(r, 2) for r in ratios]
            own["map_mib"] = turns[0]["map_mib"]
        found[way] = {key: round(value, 2) if isinstance(value, float) else value for key, value in own.items()}
        print(f"{network} {side} {way}: {found[way]}", flush=True)
    found["versions"] = {package: version(package) for _, package in map(PACKAGES.__getitem__, took[0])}
    found |= {"classes": classes, "rounds": rounds, "load": round(os.getloadavg()[0], 2)}
    keep(f"{network} {side}" + (f", {threads} threads" if threads > 1 else ""), found)


def middles(first: int) -> Callable[[int, int, int], np.ndarray]:
    """Return the function that marks pixels near a border, for kept parts whose second one begins at step + first."""
    from seams import NEAR

    def near_borders(length: int, tile: int, overlap: int) -> np.ndarray:
        near = np.zeros(length, bool)
        for start in range(tile - overlap + first, length, tile - overlap):
            near[start - NEAR : start + NEAR] = True
        return near

    return near_borders


def ends(length: int, tile: int, overlap: int) -> np.ndarray:
    """Mark pixels near the edge of any tile, where labels of plain averages change."""
    return middles(0)(length, tile, overlap) | middles(overlap)(length, tile, overlap)


def measure_seams() -> None:
    """Shift each way's grid by half a tile; keep the shares of labels that change, and how many are pixelwise's."""
    import torch
    from peers.maps import MAPS
    from seams import GRID, ArrayReader, RasterReader, Window, changed, cropped, trained

    import pixelwise as pw

    torch.set_num_threads(1)
    folder, tile, overlap = trained(), 256, 64
    predictor = pw.load(folder, device="cpu")
    examples = sorted((Path(__file__).parents[1] / "examples/fields/test").glob("*.tif"))
    # In the middle of an overlap; at its ends where scores are averaged without weights. raster-vision's crop starts
    # its grid outside of the scene: of 1024 pixels at -128, so kept parts begin at -96, 96, 288.
    places = {way: middles(overlap // 2) for way in installed() if way != "torchgeo grid"}
    places |= {"raster-vision smooth": ends} if "raster-vision smooth" in places else {}
    places |= {"raster-vision crop": middles(-96)} if "raster-vision crop" in places else {}

    def mapped(way: str, reader: ArrayReader, tile: int, overlap: int) -> np.ndarray:
        with tempfile.TemporaryDirectory() as name:
            scene, (height, width) = Path(name) / "scene.tif", reader.valid.shape
            values = reader.values
            if way == "raster-vision crop":
                # Where it starts its grid depends on the scene's size, so all get one size.
                values = np.pad(values, ((0, 0), (0, SEAM_SIDE - height), (0, SEAM_SIDE - width)), "reflect")
            bands, height, width = values.shape
            profile = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": "uint8"}
            profile |= {"crs": "EPSG:32615", "transform": rasterio.transform.from_origin(5e5, 4.5e6, 1, 1)}
            with rasterio.open(scene, "w", **profile) as file:
                file.write(values)
            with contextlib.redirect_stdout(sys.stderr):
                path = MAPS[way](folder, scene, Path(name) / "map.tif", tile, overlap)
            with rasterio.open(path) as file:
                return file.read(1)[: reader.valid.shape[0], : reader.valid.shape[1]]

    makes = {way: (partial(mapped, way), overlap, near) for way, near in places.items()}
    makes["side by side"] = (partial(cropped, predictor), 0, middles(0))
    readers = []
    for path in examples:
        raster = RasterReader(path, bands=predictor.card.bands)
        area = Window(0, 0, raster.info.height // GRID * GRID, raster.info.width // GRID * GRID)
        readers.append(ArrayReader(*raster.read(area)))
    own = [mapped("pixelwise", reader, tile, overlap) for reader in readers]
    results: dict[str, object] = {"tile": tile, "overlap": overlap, "scenes": len(readers)}
    for way, (make, shared, near) in makes.items():
        with torch.no_grad():
            found = [changed(make, reader, tile, shared, near) for reader in readers]
            same = [(make(reader, tile, shared) == labels).mean() for reader, labels in zip(readers, own, strict=True)]
        shares = {key: round(float(np.mean([each[key] for each in found])), 5) for key in found[0]}
        results[way] = {**shares, "as pixelwise": round(float(np.mean(same)), 5)}
        print(f"{way:28} {results[way]}", flush=True)
    keep("seams", results)


def measure_nodata() -> None:
    """Map a scene with an empty corner and an empty band of pixels; keep what the maps hold there."""
    from peers.maps import MAPS

    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", "small", 8)
        values = np.random.default_rng(0).integers(1, 255, (3, 1024, 1024), np.uint8)
        values[:, :600, :600] = 0
        profile = {"driver": "GTiff", "count": 3, "height": 1024, "width": 1024, "dtype": "uint8", "nodata": 0}
        profile |= {"crs": "EPSG:32615", "transform": rasterio.transform.from_origin(5e5, 4.5e6, 1, 1)}
        with rasterio.open(folder / "scene.tif", "w", **profile) as file:
            file.write(values)
        for way in installed():
            with contextlib.redirect_stdout(sys.stderr):
                path = MAPS[way](folder / "model", folder / "scene.tif", folder / f"{way}.tif", TILE, OVERLAP)
            with rasterio.open(path) as file:
                empty = file.dataset_mask() == 0
                found[way] = {
                    "of no data marked so": round(float(empty[:600, :600].mean()), 4),
                    "of data marked as none": round(float(empty[(values > 0).all(0)].mean()), 4),
                    "map's nodata": file.nodata,
                    "coordinate system": file.crs is not None,
                    "names of classes": bool(file.descriptions[0]) or "PIXELWISE_CLASSES" in file.tags(),
                    "colours": file.colorinterp[0].name == "palette",
                }
            print(f"{way}: {found[way]}", flush=True)
    keep("nodata", found)


def main() -> None:
    """Compare on scenes of the sides given, or measure seams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[2000, 4000, 8000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=float, default=10.0, help="GiB that a process may have")
    parser.add_argument("--network", default="small")
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seams", action="store_true")
    parser.add_argument("--nodata", action="store_true", help="what maps hold where a scene has no data")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        map_here(given.scenes, given.here, given.memory)
    elif given.prepare:
        write_plain_scene(sorted(given.scenes.glob("*.tif")), given.prepare / "scene.tif", given.sides[0])
        write_model(given.prepare / "model", given.network, given.classes)
    elif given.seams:
        measure_seams()
    elif given.nodata:
        measure_nodata()
    else:
        for side in given.sides:
            compare(given.scenes, side, given.rounds, given.memory, given.network, given.classes, given.threads)


if __name__ == "__main__":
    main()
