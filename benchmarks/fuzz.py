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
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import rasterio
import torch
from fuzz_cases import OURS, Case, make_case, prepare, run

# Before the forks, so that a case costs no import.
import pixelwise.cli
import pixelwise.evaluation.evaluate
import pixelwise.parcels.polygonize
import pixelwise.parcels.scores
import pixelwise.predictor
import pixelwise.report
import pixelwise.training.train  # noqa: F401  only to be in memory

PROCESSOR_SECONDS, SECONDS = 60, 300
MEMORY = 8 << 30
"""Bytes that a case may map; more is refused by the system, as on a small machine."""


@dataclass(frozen=True)
class Result:
    case: Case
    status: int
    fault: str
    """Empty where all is well."""
    said: str


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
