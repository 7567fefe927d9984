"""Damaged and odd inputs: does each end in success or in one paragraph, with nothing half written?

Seeds are fixed: case i is the same everywhere. A case copies a small project (images, masks, polygons, a configuration,
a run, weights, a map, half a map), damages one input, and runs one command in a forked process. It fails if it

* ends in something else than success, one paragraph (exit 1) or wrong usage (exit 2): *traceback*;
* takes more processor time, or time, than a limit: *hang*;
* leaves temporary files, or an output that cannot be opened: *half written*;
* succeeds with other bytes than the undamaged input gives, and says nothing more: *other bytes*. This holds for
  weights, run folders, cards and journals. A changed pixel of an image is only another picture.

    python benchmarks/fuzz.py --cases 2000 --json benchmarks/results/fuzz.json
    python benchmarks/fuzz.py --toy
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from damage import ODD, damage
from PIL import Image

import pixelwise.cli
import pixelwise.evaluation.evaluate
import pixelwise.parcels.polygonize
import pixelwise.parcels.scores
import pixelwise.predictor
import pixelwise.report
import pixelwise.training.train
from pixelwise.config import Config

KINDS = ("images", "masks", "vectors", "toml", "weights", "runs", "journals", "cards", "options", "values")
OURS = ("weights", "runs", "journals", "cards")
"""Kinds of files that only we write, so that a success with other bytes is a silent wrong answer."""
PROCESSOR_SECONDS, SECONDS = 60, 300
MEMORY = 8 << 30
"""Bytes that a case may map; more is refused by the system, as on a small machine."""
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


@dataclass(frozen=True)
class Result:
    case: Case
    status: int
    fault: str
    """Empty where all is well."""
    said: str


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


# Running and judging.


def forked(work: Callable[[], int], log: Path) -> int:
    """Run a function in a child whose output goes to a file; return its status, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            status = work()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGXCPU


def judge(case: Case, status: int, said: str, before: set[str], sound: dict[tuple, tuple[dict, str]]) -> str:
    """Return what is wrong with the end of a case, or nothing."""
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return "hang"
    if status not in (0, 1, 2) or "Traceback (most recent call last)" in said:
        return "traceback"
    errors = [line for line in said.splitlines() if line.startswith("Error:")]
    if status == 1 and not errors:
        return "traceback"
    left = sorted(name for name in _files() - before if _temporary(name))
    if left:
        return f"half written: {', '.join(left[:3])}"
    for name in case.outputs:
        if Path(name).is_file() and name not in case.damage and not _opens(Path(name)):
            return f"half written: {name}"
    if status == 0 and case.kind in OURS and "config.toml" not in case.damage and (case.command, case.outputs) in sound:
        digests, words = sound[case.command, case.outputs]
        new_words = set(said.splitlines()) - set(words.splitlines())
        if digests != _digests(case.outputs) and not any("Note" in line or "damaged" in line for line in new_words):
            return "other bytes"
    return ""


def _files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file() or path.is_symlink()}


def _temporary(name: str) -> bool:
    # The pieces of an unfinished map are kept on purpose, and so are locks.
    path = Path(name)
    parts = any(part.endswith(".parts") for part in path.parts)
    hidden = path.name.startswith(".") or any(part.endswith((".new", ".old", ".scratch")) for part in path.parts)
    return hidden and not parts and not path.name.endswith("lock")


def _opens(path: Path) -> bool:
    try:
        if path.suffix in (".tif", ".png"):
            with rasterio.open(path) as file:
                file.read()
        elif path.suffix == ".gpkg":
            from pyogrio import raw

            raw.read(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            load_file(path)
    except Exception:
        return False
    return True


def _digests(names: tuple[str, ...]) -> dict[str, str]:
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in names if Path(name).is_file()}


def fuzz(cases: int, first: int = 0, *, say: Callable[[str], None] = print) -> list[Result]:
    """Run cases; the current folder is left as it was."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        (room / "case").mkdir()
        log = room / "log.txt"

        def inside(folder: str, work: Callable[[], int]) -> tuple[int, str]:
            os.chdir(room / folder)
            status = forked(work, log)
            return status, log.read_text(errors="replace")

        def make() -> int:
            prepare()
            return 0

        status, said = inside("case", make)
        assert status == 0, said
        # A run knows its data by absolute paths, so every case works in the folder where the project was made.
        os.chdir(room)
        shutil.copytree("case", "sound", symlinks=True)
        sound: dict[tuple, tuple[dict, str]] = {}
        results = []
        for number in range(first, first + cases):
            _copy(room)
            case = make_case(number)
            key = case.command, case.outputs
            if case.kind in OURS and key not in sound:
                _copy(room)
                status, said = inside("case", lambda case=case: run(case.command))
                assert status == 0, f"{case.command}: {said}"
                sound[key] = (_digests(case.outputs), said)
                # The same damage again.
                _copy(room)
                make_case(number)
            before = _files()
            status, said = inside("case", lambda case=case: run(case.command))
            fault = judge(case, status, said, before, sound)
            results.append(Result(case, status, fault, said[-3000:] if fault else said[-300:]))
            if fault:
                say(f"case {number}, {case.kind}: {fault}; {case.damage}; {' '.join(case.command)}\n{said[-1500:]}")
        os.chdir(home)
    return results


def _copy(room: Path) -> None:
    os.chdir(room)
    shutil.rmtree("case", ignore_errors=True)
    shutil.copytree("sound", "case", symlinks=True)
    os.chdir("case")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case; with --cases 1, that one alone")
    parser.add_argument("--toy", action="store_true", help="30 cases, as CI runs them")
    parser.add_argument("--json", type=Path, help="where the result goes")
    given = parser.parse_args()
    # Threads of a parent are lost in a fork, and a pool would wait for them forever.
    torch.set_num_threads(1)
    started = time.monotonic()
    results = fuzz(30 if given.toy else given.cases, given.first)
    faults = [each for each in results if each.fault]
    told = {
        "cases": len(results),
        "kinds": dict(Counter(each.case.kind for each in results)),
        "statuses": {str(key): count for key, count in sorted(Counter(each.status for each in results).items())},
        "faults": dict(Counter(each.fault.partition(":")[0] for each in faults)),
        "seconds": round(time.monotonic() - started),
        "failed": [asdict(each) for each in faults],
    }
    print(json.dumps({key: value for key, value in told.items() if key != "failed"}, indent=1))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
