"""Faults that a server meets: is each answered in the form that we promise, and does none harm another request?

    python benchmarks/serve_faults.py
    python benchmarks/serve_faults.py --only path
    python benchmarks/serve_faults.py --toy

All of it on the loopback, with a small network. A well-behaved client segments its own image all the while, and must
get the right answer each time. `schemathesis`, if it is installed, reads the server's OpenAPI page and sends what it
makes up of it; no answer may be a server error. At last the server is killed in the middle of a scene's job, and the
job must go on after a restart and give the bytes of an undisturbed map.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from hostile_requests import (
    OUTSIDE,
    TOKEN,
    Bench,
    FaultError,
    bomb,
    corrections,
    garbage,
    half_a_body,
    paths,
    right,
    slow,
    tensors,
    token,
    too_long,
    unknown,
)
from serving import HOST, Server, example_images, pixelwise_server, png, write_model

RESULTS = Path(__file__).parent / "results" / "serve_faults.json"


def replaced(bench: Bench) -> str:
    """Another model takes the place of the served one, while requests run."""
    seen: list[tuple[int, bytes]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answer = bench.segment(png(bench.image))
            seen.append((answer.status, answer.body))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    old = bench.segment(png(bench.image)).body
    for thread in threads:
        thread.start()
    # By itself, in a process of its own, as a training that ends beside the server.
    code = (
        "import sys, serving, pathlib; serving.write_model(pathlib.Path(sys.argv[1]), name='linknet', seed=1, tile=128)"
    )
    subprocess.run([sys.executable, "-c", code, str(bench.folder / bench.name)], check=True, cwd=Path(__file__).parent)
    began = time.monotonic()
    while time.monotonic() - began < 60 and (not seen or seen[-1][1] == old):
        time.sleep(0.05)
    taken = time.monotonic() - began
    ended.set()
    for thread in threads:
        thread.join()
    if wrong := [status for status, _ in seen if status != 200]:
        raise FaultError(f"{len(wrong)} of {len(seen)} requests failed: {sorted(set(wrong))}")
    if len({body for _, body in seen}) != 2:
        raise FaultError(f"{len({body for _, body in seen})} different answers, and there were two models")
    return f"{len(seen)} requests, none failed; the new model answered {taken:.1f} s after it was whole"


def openapi(bench: Bench) -> str:
    """What `schemathesis` makes up."""
    if importlib.util.find_spec("schemathesis") is None:
        return "left out, schemathesis is not installed"
    address, cases = f"http://{HOST}:{bench.server.port}", "3" if bench.toy else "60"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--url", address]
    command += ["--checks", "not_a_server_error", "--max-examples", cases, "--seed", "0", "--continue-on-failure"]
    command += ["--header", f"Authorization: Bearer {TOKEN}", "--no-color", "--request-timeout", "60"]
    phases = "fuzzing" if bench.toy else "examples,coverage,fuzzing"
    said = subprocess.run([*command, "--phases", phases], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line.strip() for line in said.stdout.splitlines()]
    if said.returncode:
        raise FaultError("schemathesis:\n" + "\n".join(lines[-80:]))
    return "; ".join(
        line for line in lines if re.match(r"(✅|Test cases|API Operations|\d+ generated)", line, re.IGNORECASE)
    )


def killed(bench: Bench) -> str:
    """SIGKILL in the middle of a scene's job, as often as it takes; the job goes on."""
    import pixelwise as pw

    answer = bench.server.post("/jobs", {"path": bench.scene.name, "parcels": "false", "confidence": "true"})
    if answer.status != 202:
        raise FaultError(f"the job is answered {answer.status}: {answer.body[:300]!r}")
    number, kills, progress = answer.json()["id"], 0, []
    moments = (0.1,) if bench.toy else (0.15, 0.5, 0.8)
    while True:
        shown = job_until(bench, number, moments[kills] if kills < len(moments) else 2.0)
        if shown["state"] != "running":
            break
        progress.append(shown["progress"])
        bench.server.kill()
        kills += 1
        bench.server = restarted(bench)
    if shown["state"] != "done":
        raise FaultError(f"after {kills} kills the job is {shown['state']}: {shown['error']}")
    if not kills and not bench.toy:
        raise FaultError("the job was done before it could be killed: give it a larger scene")
    made = bench.server.send("GET", shown["files"]["map"])
    pw.load(bench.folder / bench.name, device="cpu").map_scene(bench.scene, bench.folder / "whole.tif", confidence=True)
    served = bench.folder / "served.tif"
    served.write_bytes(made.body)
    with rasterio.open(served) as one, rasterio.open(bench.folder / "whole.tif") as other:
        if not np.array_equal(one.read(), other.read()):
            raise FaultError("the map is another than that of an undisturbed job")
    return f"{kills} kills at {', '.join(f'{share:.0%}' for share in progress)}; the map is that of an undisturbed job"


def job_until(bench: Bench, number: str, progress: float) -> dict[str, Any]:
    """Return a job once it is so far, or at an end."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        shown = bench.server.send("GET", f"/jobs/{number}").json()
        if shown["state"] not in ("waiting", "running") or (
            shown["state"] == "running" and shown["progress"] >= progress
        ):
            return shown
        time.sleep(0.02)
    raise FaultError(f"the job does not end: {shown}")


FAULTS: tuple[Callable[[Bench], str], ...] = (
    *(garbage, bomb, half_a_body, slow, too_long, paths, tensors, corrections, unknown),
    *(openapi, token, replaced, killed),
)
"""In this order: `token` makes the server wait for this client, and the last two change the model and the process."""
ALONE = (token, replaced, killed)
"""During which the well-behaved client rests."""


def restarted(bench: Bench | None, folder: Path | None = None) -> Server:
    """Start the server, or start it again on what it left on disk."""
    folder = folder if bench is None else bench.folder
    assert folder is not None
    arguments = [str(folder / "served"), "--jobs", str(folder / "jobs"), "--scenes", str(folder / "scenes")]
    arguments += ["--corrections", str(folder / "corrections")]
    return pixelwise_server(arguments, folder / "server.log", token=TOKEN)


def prepared(folder: Path, *, toy: bool) -> Bench:
    """Write a model, scenes, and what lies outside of their folder; start the server."""
    write_model(folder / "served", name="linknet", tile=128)
    for name in ("scenes", OUTSIDE, "corrections"):
        (folder / name).mkdir()
    height, width = (256, 900) if toy else (2048, 9000)
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
    write_scene(folder / "scenes" / "scene.tif", pixels)
    write_scene(folder / OUTSIDE / "secret.tif", pixels[:, :64, :64])
    (folder / "scenes" / "link.tif").symlink_to(folder / OUTSIDE / "secret.tif")
    (folder / "scenes" / "linked").symlink_to(folder / OUTSIDE)
    band = f'<VRTRasterBand dataType="Byte" band="{{}}"><SimpleSource><SourceFilename>{folder}/{OUTSIDE}/secret.tif'
    bands = "".join(band.format(n) + "</SourceFilename></SimpleSource></VRTRasterBand>" for n in (1, 2, 3))
    mosaic = f'<VRTDataset rasterXSize="64" rasterYSize="64">{bands}</VRTDataset>'
    (folder / "scenes" / "way out.vrt").write_text(mosaic, encoding="utf-8")
    image = example_images(1, 96)[0]
    return Bench(restarted(None, folder), folder, image, folder / "scenes" / "scene.tif", toy)


def write_scene(path: Path, values: np.ndarray) -> None:
    profile = {"driver": "GTiff", "count": 3, "height": values.shape[1], "width": values.shape[2], "dtype": "uint8"}
    with rasterio.open(path, "w", tiled=True, blockxsize=256, blockysize=256, **profile) as file:
        file.write(values)


@contextmanager
def well_behaved(bench: Bench) -> Iterator[None]:
    """Segment an image again and again meanwhile, and note each answer that is not the right one."""
    whole, ended = png(bench.image), threading.Event()
    expected = bench.segment(whole).body

    def ask() -> None:
        while not ended.wait(0.1):
            try:
                answer = bench.segment(whole)
            except OSError as problem:
                bench.undisturbed.append(f"{type(problem).__name__}: {problem}")
                continue
            bench.answered += 1
            if answer.status != 200 or answer.body != expected:
                bench.undisturbed.append(f"{answer.status}, {'equal' if answer.body == expected else 'another'} answer")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tried(bench: Bench, fault: Callable[[Bench], str]) -> dict[str, Any]:
    """Let one fault happen, and return what came of it."""
    started, row = time.monotonic(), {"fault": fault.__name__, "fine": True}
    before = len(bench.undisturbed)
    try:
        if fault in ALONE:
            row["said"] = fault(bench)
        else:
            with well_behaved(bench):
                row["said"] = fault(bench)
            right(bench)
        if bench.undisturbed[before:]:
            raise FaultError(f"others were disturbed: {sorted(set(bench.undisturbed[before:]))[:5]}")
    except (FaultError, OSError) as problem:
        row |= {"fine": False, "said": f"{type(problem).__name__}: {problem}"}
    if bench.server.process.poll() is not None:
        row |= {"fine": False, "ended": f"the server ended with {bench.server.process.returncode}"}
        bench.server = restarted(bench)
    return row | {"seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    """Let all of them happen; leave with 1 if one was not met as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those with this in their names")
    parser.add_argument("--toy", action="store_true", help="few and small, to see that it runs")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the result goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bench = prepared(Path(name), toy=options.toy)
        rows = []
        try:
            for fault in FAULTS:
                if options.only in fault.__name__:
                    rows.append(tried(bench, fault))
                    print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
        finally:
            bench.server.kill()
        if not all(row["fine"] for row in rows):
            print((Path(name) / "server.log").read_text(errors="replace")[-3000:])
    found = {"faults": rows, "good_requests_meanwhile": bench.answered}
    if not options.toy and not options.only:
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if wrong := [row["fault"] for row in rows if not row["fine"]]:
        sys.exit(f"Not met as promised: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
