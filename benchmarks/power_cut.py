"""The power goes off: what is on the disk, and does the same command make the same from it?

A job works on an ext4 disk that is a file (a loop device). At a random moment it is stopped, and the file is copied:
the copy holds what had reached the disk, and nothing of what the system still kept in memory. It is mounted elsewhere,
checked, and the job is done again there. Some cuts come right after the job has ended with 0. Half of the others come
while a file is being written.

It needs root, for mounting, and mkfs.ext4. Without them it says so, and exits with 0.

    sudo python benchmarks/power_cut.py --cuts 30
    sudo python benchmarks/power_cut.py --cuts 10 --jobs map polygonize
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interrupted_jobs import JOBS, kept_step, prepare, result, start, stop, stored_step, wait_for_moment

SIZE = 256 << 20
"""Bytes of the disk."""
AFTER_THE_END = 4
"""Every so many cuts, one comes when the job has just ended."""


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mount a file as a disk."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def new_disk(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)


def cut(job: str, work: Path, seconds: float, whole: str, moments: random.Random, *, at_the_end: bool) -> list[str]:
    """Do a job, cut the power once, and return what was lost; nothing is the right answer."""
    image, copy, said = work / "disk", work / "copy", work / "said"
    new_disk(image)
    with mounted(image, work / "live") as live:
        process = start(job, work, live, said)
        if at_the_end:
            process.wait()
        else:
            wait_for_moment(process, said, live, seconds, moments)
            process.send_signal(signal.SIGSTOP)
        # What the system holds in memory stays there: the copy is made at once, and nothing is synchronised.
        shutil.copyfile(image, copy)
        ended = process.poll() == 0
        pieces = {path.name for path in live.glob(".map.tif.parts/piece-*")}
        stop(process)
    lost = []
    with mounted(copy, work / "after") as after:
        if job == "training" and stored_step(after) < kept_step(said):
            lost.append(f"the state is of step {stored_step(after)}, but {kept_step(said)} was said to be kept")
        if job == "map" and not ended:
            # The newest piece may have its name, and be on its way to the disk still.
            gone = pieces - {path.name for path in after.glob(".map.tif.parts/piece-*")}
            lost += [f"{len(gone)} pieces are gone"] if len(gone) > 1 and not (after / "map.tif").exists() else []
        if ended and told(job, after) != whole:
            lost.append(f"the job had ended, but its result is not there: {told(job, after)}")
        again = subprocess.run(
            [sys.executable, Path(__file__).with_name("interrupted_jobs.py"), job, work, after], capture_output=True
        )
        if again.returncode != 0:
            lost.append(f"it does not go on: {again.stderr.decode()[-300:]}")
        elif told(job, after) != whole:
            lost.append("what is made in the end is another")
    return lost


def told(job: str, out: Path) -> str:
    try:
        return result(job, out)
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=30, help="in all")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the result goes")
    options = parser.parse_args()
    root = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None
    if not root or subprocess.run(["losetup", "--find"], capture_output=True).returncode != 0:
        print("Skipped: cutting the power needs root, mkfs.ext4 and a loop device, to mount a disk.")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    moments = random.Random(options.seed)
    counts = {job: {"cuts": 0, "after the end": 0, "lost": []} for job in options.jobs}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        prepare(work)
        whole, seconds = {}, {}
        for job in options.jobs:
            (work / job).mkdir()
            begun = time.monotonic()
            start(job, work, work / job, work / "said").wait()
            # Python and torch need some seconds before the work begins.
            seconds[job], whole[job] = max(1.0, time.monotonic() - begun - 3), result(job, work / job)
        for number in range(options.cuts):
            job = options.jobs[number % len(options.jobs)]
            at_the_end = number // len(options.jobs) % AFTER_THE_END == AFTER_THE_END - 1
            lost = cut(job, work, seconds[job], whole[job], moments, at_the_end=at_the_end)
            counts[job]["cuts"] += 1
            counts[job]["after the end"] += at_the_end
            counts[job]["lost"] += lost
            print(f"cut {number + 1}, {job}: {'; '.join(lost) or 'nothing lost'}", flush=True)
    print(json.dumps(counts, indent=1))
    if options.json:
        options.json.write_text(json.dumps(counts, indent=1) + "\n")
    if any(each["lost"] for each in counts.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
