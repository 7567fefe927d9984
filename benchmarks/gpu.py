"""What a GPU computes, and how fast: one script for a fresh machine, done in eight minutes.

    python benchmarks/gpu.py [--device cuda] [--minutes 8] [--only steps] [--out benchmarks/results/gpu.jsonl]
    python benchmarks/gpu.py --show

Each part is a process of its own with a share of the time. A row is written as soon as it is measured, so a script that
is killed leaves what it had, and a part that crashes costs no other one. `--show` prints the rows as tables. Others
(transformers, segmentation_models_pytorch, torchvision) are compared with where they are installed.

    part      what it says
    machine   the device, the speed of a large matrix product in each precision, and of a large copy
    kernels   whether each kernel is used, its time beside that of torch's own functions, and how far it is from them
    exact     every network: logits and class map beside those of the CPU, in float32, without TF32
    steps     every network: training steps in float32, bf16 and fp16, their losses, time and memory
    questions a training step under torch's alarm for synchronisation
    maps      one image to its class map: ours and others', eager and compiled, with the roofline's bound
    training  one step of training: the same
    scene     a whole scene to its map, on one device and on all
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from gpu_bench import Bench
from gpu_parts import PARTS

RESULTS = Path(__file__).parent / "results" / "gpu.jsonl"
SHARES = {
    "machine": 0.05,
    "kernels": 0.1,
    "exact": 0.2,
    "steps": 0.25,
    "questions": 0.05,
    "maps": 0.13,
    "training": 0.14,
    "scene": 0.08,
}
"""Of the time, for each part."""


def run_part(name: str, bench: Bench, out: Path, seconds: float) -> None:
    """Write the rows of a part until it is done or its time is over."""
    ends = time.monotonic() + seconds
    rows: Iterator[dict] = PARTS[name](bench)
    with out.open("a", encoding="utf-8") as file:
        try:
            for row in rows:
                file.write(json.dumps({"part": name, **row}) + "\n")
                file.flush()
                print({"part": name, **row}, flush=True)
                if time.monotonic() > ends:
                    file.write(json.dumps({"part": name, "stopped": f"after {seconds:.0f} s"}) + "\n")
                    break
        except Exception as error:
            # Another part may still work.
            said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            file.write(json.dumps({"part": name, "failed": said}) + "\n")
            print(f"{name} FAILED: {said}", flush=True)
            if bench.tiny:
                raise


def run_all(given: argparse.Namespace, names: list[str]) -> None:
    """Run each part in a process of its own."""
    whole = sum(SHARES[name] for name in names)
    for name in names:
        seconds = 60 * given.minutes * SHARES[name] / whole
        command = [sys.executable, __file__, "--part", name, "--device", given.device, "--out", str(given.out)]
        try:
            done = subprocess.run([*command, "--seconds", f"{seconds:.0f}"], timeout=seconds + 20, check=False)
            ended = None if done.returncode == 0 else f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"killed after {seconds + 20:.0f} s"
        if ended is not None:
            with given.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"part": name, "failed": ended}) + "\n")


def show(out: Path, say: Callable[[str], None] = print) -> None:
    """Print the rows of a file as a table for each part."""
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for name in PARTS:
        own = [{k: v for k, v in row.items() if k != "part"} for row in rows if row["part"] == name]
        columns = list(dict.fromkeys(key for row in own for key in row))
        if own:
            say(f"\n{name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for row in own:
            say(f"| {' | '.join(_shown(row.get(key, '')) for key in columns)} |")


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="small sizes and few networks, in this process")
    parser.add_argument("--show", action="store_true", help="print what was measured")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.show:
        show(given.out)
        return
    bench = Bench(torch.device(given.device), given.tiny)
    if given.part is not None:
        run_part(given.part, bench, given.out, given.seconds)
        return
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("", encoding="utf-8")
    if given.tiny:
        for name in given.only:
            run_part(name, bench, given.out, given.seconds)
    else:
        run_all(given, given.only)
    show(given.out)


if __name__ == "__main__":
    main()
