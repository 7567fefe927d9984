"""A job that is killed again and again: is its result that of the undisturbed one, and was anything finished lost?

A process maps a scene with SegFormer-B0 (random weights) and is killed by SIGKILL at random moments, again and again,
each time with the same command. The test in `tests/mapping/test_resuming.py` does the same with a few kills.
Trainings and the drawing of parcels are killed in the same way, half of the time while they write a file
(`interrupted_jobs.py`).

    python benchmarks/kills.py --kills 50
    python benchmarks/kills.py --kills 0 --training 40 --polygonize 20
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import interrupted_jobs
import numpy as np
import rasterio

PRODUCTS = ("map.tif", "map.confidence.tif", "map.probabilities.tif", "map.qml")


def prepare(folder: Path, height: int, width: int) -> None:
    """Write a model folder and a scene."""
    import torch

    import pixelwise as pw
    from pixelwise.labels import make_classes
    from pixelwise.runs.model_folder import ModelCard, save_model

    torch.manual_seed(0)
    model = pw.create("segformer-b0", classes=5, bands=3)
    classes = make_classes([f"class {i}" for i in range(5)])
    card = ModelCard(model.architecture, classes, (1, 2, 3), "uint8", (128.0,) * 3, (70.0,) * 3, tile=128, overlap=32)
    save_model(folder / "model", model, card)
    values = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", tiled=True
    ) as file:
        file.write(values)


def map_here(folder: Path, out: str) -> None:
    """Make the map, and log each sum of tiles."""
    import pixelwise as pw
    from pixelwise.inference.tiling import Tiling

    summed = Tiling.sum_of

    def logged(self: Tiling, row: int, column: int, *rest: object) -> object:
        made = summed(self, row, column, *rest)
        with (folder / f"{out}.log").open("a") as file:
            file.write(f"{row}-{column}\n")
        return made

    Tiling.sum_of = logged
    pw.load(folder / "model", device="cpu").map_scene(
        folder / "scene.tif", folder / out / "map.tif", confidence=True, probabilities=True
    )


def finished(folder: Path) -> set[str]:
    return {path.name for path in (folder / "killed/.map.tif.parts").glob("piece-*")}


def kill_job(job: str, kills: int, moments: random.Random) -> dict[str, object]:
    """Kill a job as often as asked for, over as many undisturbed results as that takes."""
    with tempfile.TemporaryDirectory() as name:
        folder, said = Path(name), Path(name) / "said"
        interrupted_jobs.prepare(folder)
        begun = time.monotonic()
        interrupted_jobs.start(job, folder, folder / "whole", said).wait()
        seconds = max(1.0, time.monotonic() - begun - 3)
        whole = interrupted_jobs.result(job, folder / "whole")
        done, results, lost = 0, 0, []
        while done < kills or results == 0:
            out = folder / f"killed{results}"
            while True:
                process = interrupted_jobs.start(job, folder, out, said)
                if done < kills:
                    interrupted_jobs.wait_for_moment(process, said, out, seconds, moments)
                    interrupted_jobs.stop(process)
                if process.wait() == 0:
                    break
                if process.returncode != -signal.SIGKILL:
                    raise SystemExit(f"{job} ended with {process.returncode}")
                done += 1
                if job == "training" and interrupted_jobs.stored_step(out) < interrupted_jobs.kept_step(said):
                    lost.append(f"kill {done}: a state that was kept is gone")
                print(f"{job}, kill {done}", flush=True)
            results += 1
            if interrupted_jobs.result(job, out) != whole:
                lost.append(f"result {results} is another")
            left = [str(path.relative_to(out)) for path in out.rglob("*.pixelwise*")]
            lost += [f"left behind: {', '.join(left)}"] if left else []
        return {"kills": done, "results compared": results, "lost": lost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of the map")
    parser.add_argument("--training", type=int, default=0, help="kills of a training")
    parser.add_argument("--polygonize", type=int, default=0, help="kills of the drawing of parcels")
    parser.add_argument("--height", type=int, default=1024, help="of the scene, in pixels")
    parser.add_argument("--width", type=int, default=9000, help="pieces are 4,096 pixels wide")
    parser.add_argument("--json", type=Path, help="where the result goes")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        map_here(options.folder, options.out)
        return
    for job, kills in (("training", options.training), ("polygonize", options.polygonize)):
        if kills:
            found = kill_job(job, kills, random.Random(0))
            print(json.dumps({job: found}, indent=1))
            if found["lost"]:
                os._exit(1)
    if not options.kills:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.height, options.width)
        command = [sys.executable, __file__, "--folder", str(folder), "--out"]
        started = time.monotonic()
        subprocess.run([*command, "whole"], check=True)
        undisturbed = time.monotonic() - started
        moments, kills, begun, lost = random.Random(0), 0, 0, 0
        while True:
            before, log = finished(folder), folder / "killed.log"
            process = subprocess.Popen([*command, "killed"])
            begun += 1
            if kills < options.kills:
                # Half of them come shortly after tiles were summed, while a piece is made; the others whenever.
                size = log.stat().st_size if log.exists() else 0
                after_a_sum = moments.random() < 0.5
                until = time.monotonic() + moments.uniform(1, 4)
                while process.poll() is None and (after_a_sum or time.monotonic() < until):
                    if after_a_sum and log.exists() and log.stat().st_size > size:
                        break
                    time.sleep(0.01)
                time.sleep(moments.uniform(0, 0.2) * after_a_sum)
                process.send_signal(signal.SIGKILL)
            if process.wait() == 0:
                break
            kills += 1
            after = finished(folder)
            lost += len(before - after)
            print(f"kill {kills}: {len(after)} pieces are finished", flush=True)
        sums = (folder / "killed.log").read_text().split()
        same = all(
            (folder / "whole" / each).read_bytes() == (folder / "killed" / each).read_bytes() for each in PRODUCTS
        )
        pieces = len(set(sums))
        result = {
            "kills": kills,
            "pieces": pieces,
            "same bytes": same,
            "finished pieces lost": lost,
            "sums made again, since a kill came before their pieces were finished": len(sums) - pieces,
            "undisturbed seconds": round(undisturbed, 1),
        }
        print(json.dumps(result, indent=1))
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
        if not same or lost:
            os._exit(1)


if __name__ == "__main__":
    main()
