"""`pixelwise serve` under load: how many images a second, how long one waits, and is each answer the right one?

    python benchmarks/serve_load.py                       # 8, 32 and 128 clients, a minute each; 8 minutes in all
    python benchmarks/serve_load.py --model runs/fields   # a model of yours
    python benchmarks/serve_load.py --toy

A client sends its own image again and again on the loopback, waits for each answer, and compares it with what
`Predictor.segment` says of that image. So an answer that was lost, or was another client's, is seen. Beside it: the
bare `Predictor.segment` in a process of its own, and a plain FastAPI handler around transformers' SegFormer with the
same weights (`serve_plain.py`). Clients and servers share the cores.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from serving import HOST, Answer, Server, example_images, form, pixelwise_server, png, start, write_model
from turns import Way, machine, take_turns

SAME = 0.999
"""Share of equal pixels from which on an answer is that of an image. A batch may round otherwise than one image."""
RESULTS = Path(__file__).parent / "results" / "serve_load.json"


@dataclass
class Tally:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    """From the first try to the answer."""
    agreements: list[float] = field(default_factory=list)
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    mixed_up: int = 0
    wrong: int = 0


class Expected:
    """The answers that are right, by client."""

    def __init__(self, labels: list[np.ndarray]) -> None:
        self.labels = labels
        self.known: dict[tuple[int, bytes], float] = {}

    def agreement(self, client: int, answer: Answer) -> float:
        """Return the share of pixels that are right. An answer with bytes that are known is not read again."""
        key = client, answer.body
        if key not in self.known:
            self.known[key] = float((answer.labels() == self.labels[client]).mean())
        return self.known[key]

    def owner(self, answer: Answer) -> int:
        """Return the client whose answer this is most likely."""
        found = answer.labels()
        return int(np.argmax([(found == labels).mean() for labels in self.labels]))


def bare(model: Path, images: list[np.ndarray]) -> Callable[[], Any]:
    """Prepare what the server is compared with: a call of `Predictor.segment`."""
    import pixelwise as pw

    predictor = pw.load(model)
    turn = iter(range(sys.maxsize))
    return lambda: predictor.segment(images[next(turn) % len(images)]).labels.shape


def bare_rate(model: Path, images: list[np.ndarray], seconds: float) -> float:
    """Return images a second."""
    taken = take_turns({"bare": Way(bare, (model, images[:4]))}, 1, seconds=seconds)
    return 1 / taken.seconds["bare"]


def load(server: Server, path: str, parts: list[bytes], expected: Expected, clients: int, seconds: float) -> dict:
    """Let clients work at once, and return what they saw."""
    tally, memory, ended = Tally(), [server.memory_mib()], threading.Event()

    def watch() -> None:
        while not ended.wait(max(0.1, seconds / 60)):
            memory.append(server.memory_mib())

    started = time.monotonic()
    watcher = threading.Thread(target=watch)
    threads = [
        threading.Thread(target=work, args=(server.port, path, index, parts[index], expected, started + seconds, tally))
        for index in range(clients)
    ]
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.monotonic() - started
    ended.set()
    watcher.join()
    third = max(1, len(memory) // 3)
    return {
        "clients": clients,
        "seconds": round(elapsed, 1),
        "answers": len(tally.seconds),
        "per_second": round(len(tally.seconds) / elapsed, 2),
        "median_s": round(statistics.median(tally.seconds), 3) if tally.seconds else None,
        "p99_s": round(float(np.quantile(tally.seconds, 0.99)), 3) if tally.seconds else None,
        "refused": tally.refused,
        "lost": len(tally.lost),
        "lost_for": sorted(set(tally.lost))[:5],
        "mixed_up": tally.mixed_up,
        "wrong": tally.wrong,
        "smallest_agreement": min(tally.agreements, default=None),
        "memory_mib": {
            "at_first": round(memory[0]),
            "second_third": round(statistics.median(memory[third : 2 * third] or memory)),
            "last_third": round(statistics.median(memory[-third:])),
            "peak": round(max(memory)),
        },
    }


def work(port: int, path: str, index: int, body: bytes, expected: Expected, until: float, tally: Tally) -> None:
    """Be a client: send an image until the time is over, and look at each answer."""
    body, kind = form({"image": (f"{index}.png", body), "output": "labels"})
    connection = http.client.HTTPConnection(HOST, port, timeout=300)
    begun = time.monotonic()
    while begun < until:
        try:
            connection.request("POST", path, body, {"Content-Type": kind})
            received = connection.getresponse()
            answer = Answer(received.status, received.headers, received.read())
        except (OSError, http.client.HTTPException) as problem:
            tally.lost.append(f"{type(problem).__name__}: {problem}")
            connection.close()
            begun = time.monotonic()
            continue
        if answer.status in (429, 503):
            tally.refused += 1
            time.sleep(min(1.0, float(answer.headers.get("Retry-After") or 0.1)))
            if time.monotonic() >= until:
                break
            continue
        if answer.status != 200:
            tally.lost.append(f"{answer.status}: {answer.body[:200]!r}")
        else:
            tally.seconds.append(time.monotonic() - begun)
            agreement = expected.agreement(index, answer)
            tally.agreements.append(agreement)
            if agreement < SAME:
                if expected.owner(answer) == index:
                    tally.wrong += 1
                else:
                    tally.mixed_up += 1
        begun = time.monotonic()
    connection.close()


def right_answers(model: Path, images: list[np.ndarray]) -> Expected:
    """Segment all images here, one by one.

    Raises:
        SystemExit: two answers are so alike that a mix-up would not be seen.
    """
    import pixelwise as pw

    predictor = pw.load(model)
    labels = [predictor.segment(image).labels for image in images]
    small = np.stack([each[::4, ::4] for each in labels])
    for index, each in enumerate(small):
        alike = (small[index + 1 :] == each).mean(axis=(1, 2))
        if (alike >= SAME).any():
            raise SystemExit(f"Image {index} has the same classes as another. Choose a model that tells them apart.")
    return Expected(labels)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a run, a model folder or an exported file; default: random weights")
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--seconds", type=float, default=60, help="of each number of clients")
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--without-plain", action="store_true", help="leave transformers out")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="last: more arguments for the server")
    parser.add_argument("--toy", action="store_true", help="a few small images, to see that it runs")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the result goes")
    options = parser.parse_args()
    if options.toy:
        options.clients, options.seconds, options.size = [2, 4], 1.0, 64
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or folder / "segformer"
        if options.model is None:
            write_model(model)
        result = measure(options, model, folder)
    print(json.dumps(result, indent=1))
    if not options.toy:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    rows = result["pixelwise"]
    if any(row["lost"] or row["mixed_up"] or row["wrong"] for row in rows):
        sys.exit("Answers were lost, wrong or mixed up.")


def measure(options: argparse.Namespace, model: Path, folder: Path) -> dict[str, Any]:
    """Return the tables."""
    images = example_images(max(options.clients), options.size)
    bodies, expected = [png(image) for image in images], right_answers(model, images)
    before = bare_rate(model, images, options.seconds / 4)
    server = pixelwise_server([str(model), *options.serve], folder / "server.log")
    try:
        ours = [load(server, "/segment", bodies, expected, count, options.seconds) for count in options.clients]
    finally:
        server.stop()
    rate = statistics.mean((before, bare_rate(model, images, options.seconds / 4)))
    for row in ours:
        row["of_bare"] = round(row["per_second"] / rate, 3)
    result = {"machine": machine(), "model": model.name, "size": options.size}
    result |= {"bare_per_second": round(rate, 2), "pixelwise": ours}
    if not options.without_plain:
        plain = measure_plain(options, model, folder, bodies, expected)
        result["plain_transformers"] = plain
        result["pixelwise_over_plain"] = [
            round(mine["per_second"] / theirs["per_second"], 2) for mine, theirs in zip(ours, plain, strict=True)
        ]
    return result


def measure_plain(
    options: argparse.Namespace, model: Path, folder: Path, bodies: list[bytes], expected: Expected
) -> list[dict]:
    """Return the table of the plain handler."""
    import pixelwise as pw

    exported = folder / "transformers"
    pw.export(model, exported, to="transformers")
    server = start(
        [sys.executable, str(Path(__file__).with_name("serve_plain.py")), str(exported)], folder / "plain.log"
    )
    try:
        server.wait("/models")
        return [load(server, "/segment", bodies, expected, count, options.seconds) for count in options.clients]
    finally:
        server.stop()


if __name__ == "__main__":
    main()
