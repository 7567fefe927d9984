"""What `fuzz.py` damages, and which command meets it: a small project, and case i, the same everywhere."""

import contextlib
import random
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from damage import ODD, damage
from PIL import Image

import pixelwise.cli
import pixelwise.predictor
import pixelwise.runs.model_folder
from pixelwise.config import Config

KINDS = ("images", "masks", "vectors", "toml", "weights", "runs", "journals", "cards", "options", "values")
OURS = ("weights", "runs", "journals", "cards")
"""Kinds of files that only we write, so that a success with other bytes is a silent wrong answer."""
SETTINGS = (
    "[train]\nsteps = 2\nbatch_size = 2\ncrop_size = 64\nevaluate_every = 1\nworkers = 1\n"
    "[predict]\ntile = 64\noverlap = 32\n"
)


@dataclass(frozen=True)
class Case:
    """One command on a damaged project; ``outputs`` are what it writes."""

    number: int
    kind: str
    damage: str
    command: tuple[str, ...]
    outputs: tuple[str, ...] = ()


# The project.


def prepare() -> None:
    """Make the project in the current folder."""
    from pyogrio import raw
    from shapely import box, to_wkb

    rng = np.random.default_rng(0)
    for name in ("images", "masks", "scenes"):
        Path(name).mkdir()
    for i in range(3):
        mask = np.kron(rng.integers(0, 2, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        photo = (mask[..., None] * 100 + rng.integers(0, 60, (72, 72, 3))).astype(np.uint8)
        Image.fromarray(photo).save(f"images/{i}.png")
        Image.fromarray(mask).save(f"masks/{i}.png")
    place = {"driver": "GTiff", "crs": "EPSG:32616", "dtype": "uint8", "count": 3}
    for i in range(2):
        values = rng.integers(1, 255, (3, 200, 80), np.uint8)
        ground = rasterio.Affine(2, 0, 500000 + 1000 * i, 0, -2, 4600000)
        with rasterio.open(f"scenes/{i}.tif", "w", height=200, width=80, transform=ground, **place) as file:
            file.write(values)
    boxes = np.array([box(500020 + 1000 * i, 4599800, 500120 + 1000 * i, 4599950) for i in range(2)])
    for name, driver in (("fields.gpkg", "GPKG"), ("fields.geojson", "GeoJSON")):
        options = {"geometry_type": "Polygon", "crs": "EPSG:32616", "driver": driver}
        raw.write(name, to_wkb(boxes), [np.array(["field"] * 2)], ["class"], **options)
    classes = 'classes = ["background", "field"]\n'
    Path("small.toml").write_text(f'[data]\nimages = "images"\nlabels = "masks"\n{classes}validation = 0.4\n{SETTINGS}')
    for name in ("gpkg", "geojson"):
        text = f'[data]\nimages = "scenes"\nlabels = "fields.{name}"\n{classes}validation = 0.4\n{SETTINGS}'
        Path(f"{name}.toml").write_text(text)
    must("train", "small.toml")
    shutil.copy("runs/small/model/model.safetensors", "w.safetensors")
    torch.save({"state_dict": pixelwise.runs.model_folder.load_model("runs/small")[0].state_dict()}, "w.pt")
    weights = SETTINGS + '[model]\nweights = "w.{}"\n'
    for suffix in ("pt", "safetensors"):
        text = Path("small.toml").read_text().replace(SETTINGS, weights.format(suffix))
        Path(f"from_{suffix}.toml").write_text(text)
    must("predict", "runs/small", "scenes/0.tif", "map.tif", "--confidence")
    must("polygonize", "map.tif", "parcels.gpkg")
    _half_a_map()


def _keys(table: str) -> list[str]:
    return list(Config.model_fields[table].annotation.model_fields)


def _half_a_map() -> None:
    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        pixelwise.predictor.load("runs/small", device="cpu").map_scene(
            "scenes/0.tif", "half.tif", confidence=True, advance=stop
        )


def must(*command: str) -> None:
    assert run(command) == 0, command


def run(command: tuple[str, ...]) -> int:
    """Run a command in this process, and return its exit status; a traceback is 99."""
    sys.argv = ["pixelwise", *command]
    try:
        pixelwise.cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


# Cases: which file, and which command meets it.

MAP = ("predict", "runs/small", "scenes/0.tif", "out.tif", "--device", "cpu")
EVALUATE = ("evaluate", "runs/small", "--json")
RESUME = ("train", "small.toml", "--resume")
RESUME_HALF = ("predict", "runs/small", "scenes/0.tif", "half.tif", "--confidence", "--device", "cpu")
TARGETS: dict[str, list[tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "images": [
        ("images/0.png", ("check", "small.toml"), ()),
        ("images/1.png", ("predict", "runs/small", "images/1.png", "out.png"), ("out.png",)),
        ("images/2.png", EVALUATE, ()),
        ("scenes/0.tif", MAP, ("out.tif",)),
        ("scenes/1.tif", ("check", "gpkg.toml"), ()),
        ("map.tif", ("polygonize", "map.tif", "out.gpkg"), ("out.gpkg",)),
    ],
    "masks": [("masks/0.png", ("check", "small.toml"), ()), ("masks/1.png", EVALUATE, ())],
    "vectors": [
        ("fields.gpkg", ("check", "gpkg.toml"), ()),
        ("fields.geojson", ("check", "geojson.toml"), ()),
        ("fields.gpkg", (*MAP, "--aoi", "fields.gpkg"), ("out.tif",)),
        ("parcels.gpkg", ("score-parcels", "parcels.gpkg", "fields.gpkg", "--tolerance", "3"), ()),
        ("parcels.gpkg", ("report", "runs/small"), ()),
    ],
    "toml": [
        ("small.toml", ("check", "small.toml"), ()),
        ("small.toml", ("evaluate", "runs/small", "small.toml"), ()),
        ("gpkg.toml", ("check", "gpkg.toml"), ()),
    ],
    "weights": [
        ("runs/small/model/model.safetensors", MAP, ("out.tif",)),
        ("w.safetensors", ("check", "from_safetensors.toml"), ()),
        ("w.pt", ("check", "from_pt.toml"), ()),
    ],
    "runs": [
        ("runs/small/last/*", RESUME, ("runs/small/model/model.safetensors",)),
        ("runs/small/*.json*", RESUME, ("runs/small/model/model.safetensors",)),
        ("runs/small/config.toml", RESUME, ()),
        ("runs/small/config.toml", EVALUATE, ()),
        ("runs/small/*.json*", EVALUATE, ("runs/small/metrics.json",)),
        ("runs/small/*.json*", ("report", "runs/small"), ()),
        ("runs/small/evaluations/*", ("report", "runs/small"), ()),
        ("runs/small/model/*", ("report", "runs/small"), ()),
    ],
    "journals": [(".half.tif.parts/*", RESUME_HALF, ("half.tif", "half.confidence.tif"))],
    "cards": [("runs/small/model/model.toml", MAP, ("out.tif",)), ("runs/small/model/model.toml", EVALUATE, ())],
}


def make_case(number: int) -> Case:
    """Damage the project in the current folder as a case's number says."""
    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    if kind == "options":
        command = _odd_command(rng)
        return Case(number, kind, "", command, tuple(each for each in command if each.startswith("out.")))
    if kind == "values":
        table = rng.choice(["data", "model", "train", "augment", "predict", "run"])
        key, odd = rng.choice(_keys(table)), rng.choice(ODD)
        also = ("--set", "run.folder=runs/new") if table != "run" else ()
        # The odd value comes last; steps stay few, since many are no mistake.
        bounded = ("steps", "workers")
        command = "train" if table in ("train", "augment", "predict", "run") and key not in bounded else "check"
        return Case(
            number, kind, f"{table}.{key}={odd}", (command, "small.toml", *also, "--set", f"{table}.{key}={odd}")
        )
    pattern, command, outputs = rng.choice(TARGETS[kind])
    files = sorted(path for path in Path().glob(pattern) if path.is_file())
    if not files:
        return Case(number, kind, f"no {pattern}", command, outputs)
    return Case(number, kind, damage(rng.choice(files), rng), command, outputs)


def _odd_command(rng: random.Random) -> tuple[str, ...]:
    import click

    base = rng.choice(
        [
            MAP,
            EVALUATE,
            ("polygonize", "map.tif", "out.gpkg"),
            ("score-parcels", "parcels.gpkg", "fields.gpkg", "--tolerance", "3"),
            ("models", "--match", "segformer-b0"),
            ("check", "small.toml"),
            ("report", "runs/small"),
            ("predict", "runs/small", "images", "outputs"),
            ("predict", "runs/small", "images/0.png", "out.png"),
        ]
    )
    options = [each for each in pixelwise.cli.commands.commands[base[0]].params if isinstance(each, click.Option)]
    # A cluster is not started, and odd configurations are another kind.
    options = [each for each in options if each.name not in ("on", "overrides")]
    extra: list[str] = []
    for option in rng.sample(options, min(len(options), rng.randint(1, 2))):
        count = 0 if option.is_flag else option.nargs
        extra += [option.opts[0], *(rng.choice(ODD).replace("\x00", "?") for _ in range(count))]
    return (*base, *extra)
