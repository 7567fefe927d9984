"""Trainings that are killed at random moments: are the weights those of the undisturbed run, and what is lost per kill?

Each run is ended by SIGKILL several times, half of the times while a state is written, and goes on with 0, 1 or 3
workers. Then runs are stopped by SIGTERM and Ctrl-C, and moved to other numbers of threads; and of a run with two saved
states, the newest, the one before, or both are cut short, get a flipped bit, or are deleted.

    python benchmarks/kills_of_training.py --kills 30 --runs 10 --json results.json

It needs `os.fork`, so Linux or macOS.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import interrupted_jobs
import torch

import pixelwise as pw
from pixelwise.config import Config
from pixelwise.runs.run_folder import Run
from pixelwise.runs.saved_state import EARLIER_STATE, STATE, read_state
from pixelwise.training.train import Progress

STEPS, EVALUATE_EVERY, SAVE_SECONDS = 30, 10, 0.3
WORKERS = (0, 1, 3)
STOPPED, REFUSED = 3, 4
"""Exit status of a process that a signal stopped after a step, and of one that refused to go on, in a sentence."""
WAYS = ("cut", "flipped", "deleted")


def configuration(folder: Path, out: Path, workers: int) -> Config:
    data = {"images": folder / "images", "labels": folder / "masks", "classes": ["dark", "bright"], "validation": 0.25}
    train = {"steps": STEPS, "batch_size": 2, "crop_size": 32, "evaluate_every": EVALUATE_EVERY, "workers": workers}
    return Config.model_validate(
        {
            "data": data,
            "model": {"name": "unet", "options": {"filters": [16, 32, 64]}},
            "train": {**train, "device": "cpu", "save_every_minutes": SAVE_SECONDS / 60},
            "sampling": {"hard": 0.5},
            "predict": {"tile": 64, "overlap": 0},
            "run": {"folder": out},
        }
    )


def begin(work: Callable[[], object]) -> int:
    """Do work in a fork, which costs no import; return its process."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            work()
            status = 0
        except pw.TrainingStopped:
            status = STOPPED
        except pw.ConfigError as problem:
            print(f"refused: {problem}", flush=True)
            status = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def status_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(folder: Path, out: Path, workers: int = 0, threads: int = 1) -> None:
    """Begin a run or go on with it; sentences go to a file beside it."""
    torch.set_num_threads(threads)
    with out.with_suffix(".said").open("a", buffering=1) as said:

        def report(event: Progress | str) -> None:
            said.write(f"{event}\n" if isinstance(event, str) else f"step {event.step}\n")

        pw.train(configuration(folder, out, workers), resume=out.exists(), report=report)


def result(out: Path) -> str:
    """Return a digest of all that a run has learned, and of its log."""
    state = Run(out).load_last()
    assert state is not None
    digest = hashlib.sha256((out / "model/model.safetensors").read_bytes())
    for part in ("model", "average"):
        for name, tensor in state[part].items():
            digest.update(name.encode() + tensor.numpy().tobytes())
    for number, entry in state["optimizer"]["state"].items():
        digest.update(b"".join(str(number).encode() + each.numpy().tobytes() for each in entry.values()))
    rows = [[row["step"], row["loss"], row.get("mIoU")] for row in Run(out).log]
    digest.update(json.dumps([state["best"], state["best_step"], rows]).encode())
    return digest.hexdigest()


def saved_step(out: Path) -> int:
    """Return the step of the newest state that is whole, without changing anything."""
    for name in (STATE, EARLIER_STATE):
        try:
            return read_state(out / "last" / name)["step"]
        except ValueError:
            continue
    return 0


def made_steps(out: Path) -> int:
    return max([saved_step(out), *(row["step"] for row in Run(out).log)])


def is_writing(out: Path) -> bool:
    try:
        return any(entry.name.startswith(".state.") for entry in os.scandir(out / "last"))
    except OSError:
        return False


def wait_for_moment(process: int, out: Path, steps: int, moments: random.Random, writing: bool = False) -> bool:
    """Wait for so many new steps and a moment more, or until a state is written; return False if the process ended."""
    said = out.with_suffix(".said")
    before = said.read_text().count("step ") if said.exists() else 0
    until = None
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if until is None and said.exists() and said.read_text().count("step ") >= before + steps:
            until = time.monotonic() + moments.uniform(0, 0.2)
        if until is not None and (is_writing(out) if writing else time.monotonic() >= until):
            time.sleep(moments.uniform(0, 0.01) if writing else 0)
            return True
        time.sleep(0.0003)
    return False


def damage(path: Path, way: str, moments: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if way == "cut":
        del data[moments.randrange(len(data)) :]
    elif way == "flipped":
        # Within the largest tensors, so that it is no byte that nobody reads.
        data[moments.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << moments.randrange(8)
    path.unlink()
    if way != "deleted":
        path.write_bytes(data)


def kill_runs(folder: Path, whole: str, kills: int, runs: int, moments: random.Random) -> dict:
    """Kill runs so often in all, and compare each with the undisturbed one."""
    lost, alone, told, others = [], [], Counter(), []
    apart, done, number = int(STEPS / (kills / runs + 1)), 0, 0
    while number < runs or done < kills:
        out, left = folder / f"run{number}", min(kills, -(-kills * (number + 1) // runs)) - done
        number += 1
        while True:
            workers = WORKERS[moments.randrange(len(WORKERS))]
            writing = left > 0 and moments.random() < 0.5
            process = begin(lambda out=out, workers=workers: train(folder, out, workers))
            told[f"began with {workers} workers"] += 1
            if left > 0 and wait_for_moment(process, out, moments.randint(0, apart), moments, writing):
                os.kill(process, signal.SIGKILL)
            status = status_of(process)
            if status == 0:
                break
            if status != -signal.SIGKILL:
                raise SystemExit(f"run {number} ended with {status}: {out.with_suffix('.said').read_text()}")
            done, left = done + 1, left - 1
            told["killed while a state was written"] += is_writing(out)
            made = made_steps(out)
            lost.append(made - saved_step(out))
            alone.append(made % EVALUATE_EVERY)
            print(f"kill {done}: {lost[-1]} of {made} steps lost", flush=True)
        if result(out) != whole:
            others.append(out.name)
    return {
        "kills": done,
        **told,
        "results compared": number,
        "other results": others,
        "steps lost per kill": {"mean": round(sum(lost) / max(1, done), 2), "most": max(lost, default=0)},
        "steps lost per kill with states of evaluations alone": {
            "mean": round(sum(alone) / max(1, done), 2),
            "most": max(alone, default=0),
        },
    }


def stop_runs(folder: Path, whole: str, stops: int, moments: random.Random) -> dict:
    """Stop runs by signals that can be answered; they must lose no step."""
    lost, others = [], []
    for number in range(stops):
        out = folder / f"stopped{number}"
        process = begin(lambda out=out: train(folder, out))
        if wait_for_moment(process, out, moments.randint(1, STEPS - 5), moments):
            os.kill(process, (signal.SIGTERM, signal.SIGINT)[number % 2])
        if status_of(process) == STOPPED:
            lost.append(made_steps(out) - saved_step(out))
            print(f"stop {number + 1}: {lost[-1]} steps lost", flush=True)
            process = begin(lambda out=out: train(folder, out, WORKERS[-1]))
            assert status_of(process) == 0
        others += [out.name] if result(out) != whole else []
    return {"stopped by SIGTERM and SIGINT": len(lost), "steps lost": sum(lost), "other results": others}


def damage_runs(folder: Path, whole: str, moments: random.Random) -> dict:
    """Damage the states of a stopped run in each way, alone and both, and go on."""
    stopped, others, ends = folder / "two states", [], Counter()
    process = begin(lambda: train(folder, stopped))
    # A state of an evaluation, and that of the stop.
    wait_for_moment(process, stopped, EVALUATE_EVERY + 2, moments)
    os.kill(process, signal.SIGTERM)
    assert status_of(process) == STOPPED
    cases = [(names, way) for names in ((STATE,), (EARLIER_STATE,), (STATE, EARLIER_STATE)) for way in WAYS]
    for number, (names, way) in enumerate(cases):
        out = folder / f"damaged{number}"
        shutil.copytree(stopped, out)
        for name in names:
            damage(out / "last" / name, way, moments)
        status = status_of(begin(lambda out=out: train(folder, out)))
        said = out.with_suffix(".said").read_text()
        if status == REFUSED:
            end = "refused in a sentence"
        elif status == 0 and result(out) == whole:
            end = "began again, same result" if "begins again" in said else "went on, same result"
        else:
            end = "lost"
            others.append(f"{' and '.join(names)}: {way}")
        if way != "deleted" and STATE in names and status == 0 and " is damaged (" not in said:
            others.append(f"{' and '.join(names)}: {way}, without a word")
        ends[f"{' and '.join(names)} damaged: {end}"] += 1
        print(f"{' and '.join(names)}, {way}: {end}", flush=True)
    return {"cases": len(cases), **ends, "other results": others}


def move_runs(folder: Path, whole: str, moments: random.Random) -> dict:
    """Go on where torch would take two threads, without and with the user's wish for them."""
    told = {}
    for name, wish in (("chosen by nobody", None), ("chosen by the user", "2")):
        out = folder / f"moved {name}"
        process = begin(lambda out=out: train(folder, out))
        wait_for_moment(process, out, STEPS // 2, moments)
        os.kill(process, signal.SIGTERM)
        assert status_of(process) == STOPPED

        def go_on(out: Path = out, wish: str | None = wish) -> None:
            os.environ.pop("OMP_NUM_THREADS", None)
            if wish:
                os.environ["OMP_NUM_THREADS"] = wish
            train(folder, out, threads=2)

        assert status_of(begin(go_on)) == 0
        said = out.with_suffix(".said").read_text()
        told[f"2 threads instead of 1, {name}"] = {
            "same bits": result(out) == whole,
            "said": [line for line in said.splitlines() if "hreads" in line],
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--stops", type=int, default=6, help="runs that SIGTERM or SIGINT stops")
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args()
    # Threads of a parent are lost in a fork.
    torch.set_num_threads(1)
    moments, started = random.Random(0), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        interrupted_jobs.prepare(folder)
        begun = time.monotonic()
        assert status_of(begin(lambda: train(folder, folder / "whole"))) == 0
        seconds, whole = time.monotonic() - begun, result(folder / "whole")
        found = {
            "steps": STEPS,
            "evaluated every": EVALUATE_EVERY,
            "seconds between states": SAVE_SECONDS,
            "seconds of an undisturbed run": round(seconds, 1),
            **kill_runs(folder, whole, options.kills, options.runs, moments),
            "stops": stop_runs(folder, whole, options.stops, moments),
            "damaged states": damage_runs(folder, whole, moments) if options.stops else {},
            "threads": move_runs(folder, whole, moments) if options.stops else {},
            "seconds in all": round(time.monotonic() - started),
        }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    parts = (found, found["stops"], found["damaged states"])
    if any(part.get("other results") for part in parts) or found["stops"]["steps lost"]:
        os._exit(1)


if __name__ == "__main__":
    main()
