"""int8 against float32 and bfloat16, ours against the runtimes; and what a neighbour on one of the cores does.

    python benchmarks/int8.py --data examples/fields.toml --json benchmarks/results/int8.json
    python benchmarks/int8.py --run segformer-b0=runs/fields --rounds 15
    python benchmarks/int8.py --run segformer-b0=runs/fields --only neighbour
    python benchmarks/int8.py --toy --network segformer-b0 --network deeplabv3plus

Networks are trained shortly, or given as runs. Each is exported, which tells size, mIoU and where the export spends its
time: reading crops, calibrating, and the certificate, which runs network and file on the validation part for each try.
Then all ways take turns on one image, each in a process of its own. The second part runs again while a process keeps
one core busy: threads that wait for a thread which waits for a core lose the most. Give it a machine on which nothing
else works. The first line says which instructions for 8 and 16 bits the processor has (VNNI, AMX).
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import Way, clocked, machine, take_turns

import pixelwise as pw
from pixelwise.config import load_config
from pixelwise.exporting import export, lowered
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.inference.networks import arithmetic_of
from pixelwise.machine import instructions

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "segformer-b0": ["model.name=segformer-b0"],
    "unet": ["model.name=unet", "model.options.encoder=efficientnet-lite0"],
    "deeplabv3plus": ["model.name=deeplabv3plus", "model.options.encoder=resnet50"],
}
SMALL = ["train.crop_size=64", "train.batch_size=1", "predict.tile=64", "predict.overlap=0"]
TOYS = {
    "segformer-b0": [
        "model.name=segformer-b0",
        "model.options={widths=[8, 16, 20, 32], depths=[1, 1, 1, 1], decoder_channels=16}",
        *SMALL,
    ],
    "unet": ["model.name=unet", "model.options.filters=[4,8]", *SMALL],
    "deeplabv3plus": ["model.name=deeplabv3plus", "model.options.encoder=resnet18", *SMALL],
}
"""As little of each as possible."""
STAGES = (
    (lowered, "calibration_crops", "reading crops"),
    (lowered, "quantized_openvino", "calibrating"),
    (lowered, "quantized_onnx", "calibrating"),
    (export, "certify", "certificate"),
)
"""Of an export: module, function, what it does."""
FILES = {
    "OpenVINO float32": ("float32.xml", "float32"),
    "OpenVINO bfloat16": ("bfloat16.xml", "bfloat16"),
    "OpenVINO int8": ("int8.xml", "int8"),
    "ONNX Runtime float32": ("float32.onnx", "float32"),
    "ONNX Runtime int8": ("int8.onnx", "int8"),
}
"""Way -> its file, and the precision. Files that only halve the weights compute as float32 does, and are not timed."""
TOY_FILES = ("OpenVINO int8", "ONNX Runtime float32")
"""One of each runtime and of each kind of number."""
SHARING = ("OpenVINO float32", "OpenVINO int8", "ONNX Runtime float32")
"""Files that are measured beside a neighbour too."""
PASSIVE = (("OMP_WAIT_POLICY", "PASSIVE"),)
SPINS = ("1000", "10000", "100000")
"""How often a thread of libgomp looks for work before it sleeps; 300,000 to millions by default."""


def labelled(model: str, size: int) -> Callable[[], float]:
    """Prepare a network or a file that finds the classes of an image."""
    network, image = pw.load(model).model, np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    arithmetic, full = arithmetic_of(network), network.padded_size((size, size))

    def run() -> float:
        logits = arithmetic.decode(network, arithmetic.given(network, image))
        return float(arithmetic.taken(arithmetic.argmax_upsampled(logits, full)[0]).sum())

    return run


def one(model: str, size: int, threads: int) -> Callable[[], float]:
    """Prepare a network that finds the classes of an image with some threads."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    return labelled(model, size)


def together(model: str, size: int, tiles: int) -> Callable[[], float]:
    """Prepare a network that works on some images at the same time, each with one thread."""
    keep_freed_memory()
    torch.set_num_threads(1)
    label = labelled(model, size)
    pool = ThreadPoolExecutor(tiles, initializer=torch.set_num_threads, initargs=(1,))

    def run() -> float:
        return sum(pool.map(lambda _: label(), range(tiles))) / tiles

    return run


def spin(core: int) -> None:
    """Keep a core busy."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    while True:
        sum(range(100_000))


@contextmanager
def neighbour() -> Iterator[None]:
    """Let another process work on the first core."""
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    busy = multiprocessing.get_context("spawn").Process(target=spin, args=(core,), daemon=True)
    busy.start()
    try:
        yield
    finally:
        busy.terminate()
        busy.join()


def trained(name: str, settings: Sequence[str], data: Path, steps: int, folder: Path) -> Path:
    """Train a network shortly."""
    chosen = [*settings, f"train.steps={steps}", f"train.evaluate_every={steps}", f"run.folder={folder / name}"]
    pw.train(load_config(data, chosen), report=lambda event: None)
    return folder / name


def exported(run: Path, folder: Path, images: int, ways: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Export a run in some ways; return what each file is, or why it is not."""
    found: dict[str, dict[str, Any]] = {}
    for way in ways:
        name, precision = FILES[way]
        more = {"calibration_images": images} if precision == "int8" else {}
        spent, begun = Counter[str](), time.perf_counter()
        try:
            with ExitStack() as stack:
                for owner, function, part in STAGES:
                    stack.enter_context(clocked(owner, function, part, spent))
                made = pw.export(run, folder / name, precision=precision, allow=True, **more)
        except pw.PixelwiseError as error:
            found[way] = {"refused": str(error)}
            continue
        spent["all"] = time.perf_counter() - begun
        proof = made.certificate
        # OpenVINO's weights lie beside its graph.
        files = [made.path, *([made.path.with_suffix(".bin")] if made.path.suffix == ".xml" else [])]
        found[way] = {
            "file": str(made.path),
            "mb": round(sum(path.stat().st_size for path in files) / 1e6, 2),
            "miou_torch": proof.miou_torch,
            "miou": proof.miou_export,
            "equal_labels": proof.equal_labels,
            "kept_float": [] if proof.lowered is None else list(proof.lowered.kept_float),
            "images": proof.images,
            "seconds": {part: round(seconds, 1) for part, seconds in spent.items()},
        }
    return found


def timed(ways: dict[str, Way], rounds: int, tiles: dict[str, int], clock: str) -> dict[str, dict[str, float]]:
    """Return milliseconds for an image, MiB, and the ratio to the first way."""
    turns = take_turns(ways, rounds, clock=clock)
    return {
        name: {
            "ms": round(1000 * turns.seconds[name] / tiles.get(name, 1), 1),
            "mib": turns.peak_mib[name],
            "ratio": round(turns.ratios[name] / tiles.get(name, 1), 3),
        }
        for name in ways
    }


def neighbour_ways(run: Path, files: dict[str, dict[str, Any]], size: int, cores: int) -> dict[str, Way]:
    """Return ways to share the cores."""
    model = str(run)
    ways = {f"fused, {cores} threads": Way(one, (model, size, cores))}
    ways["fused, passive"] = Way(one, (model, size, cores), PASSIVE)
    ways |= {f"fused, {spins} spins": Way(one, (model, size, cores), (("GOMP_SPINCOUNT", spins),)) for spins in SPINS}
    ways["fused, 1 thread"] = Way(one, (model, size, 1))
    ways["fused, a tile a core"] = Way(together, (model, size, cores))
    for name in SHARING:
        if "file" in files.get(name, {}):
            ways[f"{name}, {cores} threads"] = Way(one, (files[name]["file"], size, cores))
    return ways


def measured(name: str, run: Path, options: argparse.Namespace, folder: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Measure one network, and its files for some ways."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores, clock = options.threads or here, "process_time" if options.processor_time else "perf_counter"
    files = exported(run, folder, options.images, SHARING if options.only == "neighbour" else chosen)
    found: dict[str, Any] = {"network": name, "files": files}
    if options.only in ("", "speed"):
        ways = {"fused float32": Way(one, (str(run), options.size, cores))}
        there = {way: told["file"] for way, told in files.items() if "file" in told}
        ways |= {way: Way(one, (file, options.size, cores)) for way, file in there.items()}
        found["speed"] = timed(ways, options.rounds, {}, clock)
    if options.only in ("", "neighbour"):
        ways, tiles = neighbour_ways(run, files, options.size, cores), {"fused, a tile a core": cores}
        found["quiet"] = timed(ways, options.rounds, tiles, clock)
        with neighbour():
            found["beside a neighbour"] = timed(ways, options.rounds, tiles, clock)
    for told in files.values():
        told.pop("file", None)
    return found


def show(found: dict[str, Any]) -> None:
    """Print what was measured, as tables of Markdown."""
    print(
        f"\n## {found['network']}\n\n| way | ms | MiB | ratio | MB | mIoU | mIoU of torch | in float32 |\n|"
        + "---|" * 8
    )
    for name, figures in found.get("speed", {}).items():
        told = found["files"].get(name, {})
        score = [f"{told[key]:.4f}" if told.get(key) is not None else "" for key in ("miou", "miou_torch")]
        kept = ", ".join(told.get("kept_float", []))
        print(
            f"| {name} | {figures['ms']} | {figures['mib']} | {figures['ratio']} | {told.get('mb', '')} | "
            f"{' | '.join(score)} | {kept} |"
        )
    print("\n| way | seconds of its export | reading crops | calibrating | certificate |\n|---|---|---|---|---|")
    for name, told in found["files"].items():
        if "seconds" in told:
            parts = (told["seconds"].get(part, "") for part in ("all", "reading crops", "calibrating", "certificate"))
            print(f"| {name} | {' | '.join(map(str, parts))} |")
    if "quiet" in found:
        print("\n| way | ms, quiet | ms, a core is busy |\n|---|---|---|")
        for name, figures in found["quiet"].items():
            print(f"| {name} | {figures['ms']} | {found['beside a neighbour'][name]['ms']} |")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "examples" / "fields.toml", help="a configuration")
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN", help="a trained network; repeatable")
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=512, help="side of the image")
    parser.add_argument("--images", type=int, default=64, help="crops for calibration")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this one; repeatable")
    parser.add_argument("--threads", type=int, help="of a network  [default: one for each core]")
    parser.add_argument("--processor-time", action="store_true", help="for a machine that others work on too")
    parser.add_argument("--only", choices=["speed", "neighbour"], default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--toy", action="store_true", help="as little as possible")
    options = parser.parse_args()
    files = TOY_FILES if options.toy else tuple(FILES)
    settings = NETWORKS if options.network is None else {name: NETWORKS[name] for name in options.network}
    if options.toy:
        options.steps, options.rounds, options.size, options.images = 2, 1, 64, 1
        settings = {name: TOYS[name] for name in options.network or ["unet"]}
    result: dict[str, Any] = {"machine": {**machine(), "instructions": instructions()}, "networks": []}
    print(json.dumps(result["machine"]))
    with tempfile.TemporaryDirectory() as folder:
        given = {name: Path(run) for name, _, run in (each.partition("=") for each in options.run)}
        for name in given or settings:
            place = Path(folder) / f"files-{name}"
            place.mkdir()
            run = given.get(name) or trained(name, settings[name], options.data, options.steps, Path(folder))
            result["networks"].append(measured(name, run, options, place, files))
            show(result["networks"][-1])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
