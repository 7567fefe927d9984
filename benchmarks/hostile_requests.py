"""Requests that a server must refuse, and clients that go away or are slow: one function for each kind.

`benchmarks/serve_faults.py` lets them happen. Each returns what was answered, or raises `FaultError`.
"""

import json
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from serving import HOST, Answer, Server, form, png

TOKEN = "a token for the faults"
OUTSIDE = "outside"
"""Name of a folder, and of the files in it, that no client may reach."""


class FaultError(Exception):
    """The server did not do what it promises."""


@dataclass
class Bench:
    """What the faults share."""

    server: Server
    folder: Path
    image: np.ndarray
    scene: Path
    toy: bool
    name: str = "served"
    undisturbed: list[str] = field(default_factory=list)
    """What went wrong for the well-behaved client."""
    answered: int = 0

    def refused(self, answer: Answer, *statuses: int) -> str:
        """Check that an answer refuses in the promised form, and tells no path of this machine.

        Raises:
            FaultError: it does not.
        """
        text = answer.body.decode("utf-8", "replace")
        if answer.status not in statuses:
            raise FaultError(f"answered {answer.status} and not {' or '.join(map(str, statuses))}: {text[:300]}")
        if str(self.folder) in text or "Traceback" in text or 'File "' in text:
            raise FaultError(f"tells a path of the server: {text[:300]}")
        try:
            error = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            raise FaultError(f"{answer.status} without an error in the promised form: {text[:300]}") from None
        if isinstance(error, dict) and not all(error.get(key) for key in ("code", "message", "fix")):
            raise FaultError(f"the error lacks code, message or fix: {text[:300]}")
        return str(answer.status)

    def segment(self, data: bytes, name: str = "image.png", **options: Any) -> Answer:
        """Send bytes as an image."""
        return self.server.post("/segment", {"image": (name, data), "output": "labels"}, **options)


def declared_png(width: int, height: int, rows: int = 1) -> bytes:
    """Return a PNG that says how large it is, with some rows of zeros in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeezer, packed = zlib.compressobj(9), b""
    for _ in range(rows):
        packed += squeezer.compress(bytes(1 + width * 3))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed + squeezer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def garbage(bench: Bench) -> str:
    noise = np.random.default_rng(0).bytes(50_000)
    whole = png(bench.image)
    said = [bench.refused(bench.segment(data), 400, 415, 422) for data in (noise, b"", b"%PDF-1.7\n", b"<svg/>")]
    said.append(bench.refused(bench.segment(whole[: len(whole) // 2]), 400, 422))
    said.append(
        bench.refused(bench.server.send("POST", "/segment", b"{", {"Content-Type": "application/json"}), 400, 415, 422)
    )
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    said.append(bench.refused(bench.server.send("POST", "/segment", b"--y\r\nnot a form", broken), 400, 422))
    said.append(bench.refused(bench.server.post("/segment", {"output": "labels"}), 400, 422))
    whole_form = {"image": ("a.png", whole)}
    said.append(bench.refused(bench.server.post("/segment", whole_form | {"output": "a cake"}), 400, 422))
    said.append(bench.refused(bench.server.post("/segment", whole_form | {"model": "no such model"}), 404, 422))
    return f"noise, nothing, PDF, SVG, half a PNG, no form, another form, no image, wrong values: {', '.join(said)}"


def bomb(bench: Bench) -> str:
    before, said = bench.server.memory_mib(), []
    rows = 300 if bench.toy else 12_000
    for data, what in (
        (declared_png(1_000_000, 1_000_000), "says a million by a million"),
        (declared_png(2**31 - 1, 2**31 - 1), "says 2^31 by 2^31"),
        (declared_png(12_000, 12_000, rows), f"is 12,000 by 12,000 with {rows:,} rows of zeros"),
    ):
        answer = bench.segment(data)
        said.append(f"{what} ({len(data):,} bytes): {bench.refused(answer, 413, 422)} in {answer.seconds:.1f} s")
    grown = bench.server.memory_mib() - before
    if grown > 500:
        raise FaultError(f"{'; '.join(said)}; but memory grew by {grown:.0f} MiB")
    return f"{'; '.join(said)}; memory grew by {grown:.0f} MiB"


@contextmanager
def opened(bench: Bench, start: bytes) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, bench.server.port), timeout=30) as connection:
        connection.sendall(start)
        yield connection


def beginning(bench: Bench, length: int | str, kind: str, path: str = "/segment") -> bytes:
    size = "Transfer-Encoding: chunked" if length == "chunked" else f"Content-Length: {length}"
    return (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}:{bench.server.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: {kind}\r\n{size}\r\n\r\n"
    ).encode()


def half_a_body(bench: Bench) -> str:
    body, kind = form({"image": ("a.png", png(bench.image)), "output": "labels"})
    for share in (0.0, 0.5, 0.99):
        with opened(bench, beginning(bench, len(body), kind)) as connection:
            connection.sendall(body[: int(len(body) * share)])
    with opened(bench, beginning(bench, len(body), kind)) as connection:
        connection.sendall(body)  # and gone before the answer
    many = 20 if bench.toy else 200
    left = [socket.create_connection((HOST, bench.server.port), timeout=30) for _ in range(many)]
    for index, connection in enumerate(left):
        connection.sendall(beginning(bench, len(body), kind)[: 10 + index])
    right(bench)
    for connection in left:
        connection.close()
    return f"left after none, half and 99 % of it, and before the answer; {many} with half a header at once"


def slow(bench: Bench) -> str:
    """A byte each tenth of a second, while others are answered."""
    body, kind = form({"image": ("a.png", png(bench.image)), "output": "labels"})
    with opened(bench, beginning(bench, len(body), kind)) as connection:
        for index in range(10 if bench.toy else 50):
            connection.sendall(body[index : index + 1])
            time.sleep(0.1)
        right(bench)
        connection.sendall(body[10 if bench.toy else 50 :])
        status = connection.recv(64).split(b"\r\n")[0].decode()
    if " 200 " not in status:
        raise FaultError(f"a slow client that sends all is answered {status!r}")
    if bench.toy:
        return "a slow client that sends all of it gets its answer"
    with opened(bench, beginning(bench, len(body), kind)) as connection:
        connection.settimeout(150)
        started = time.monotonic()
        connection.sendall(body[:100])
        try:
            status = connection.recv(64).split(b"\r\n")[0].decode() or "the end of the connection"
        except TimeoutError:
            raise FaultError("a client that stops in the middle holds its place for over 150 s") from None
    passed = time.monotonic() - started
    return f"a slow client gets its answer; one that stops in the middle gets {status} after {passed:.0f} s"


def too_long(bench: Bench) -> str:
    kind = "multipart/form-data; boundary=x"
    said = []
    with opened(bench, beginning(bench, 10**13, kind)) as connection:
        said.append(f"says 10 TB: {connection.recv(64).split(chr(13).encode())[0].decode()}")
    if " 413 " not in said[0]:
        raise FaultError(said[0])
    with opened(bench, beginning(bench, "chunked", kind)) as connection:
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        connection.sendall(b"%x\r\n%s\r\n" % (len(head), head))
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        sent = 0
        connection.settimeout(20)
        try:
            while sent < (80 if bench.toy else 400):
                connection.sendall(piece)
                sent += 1
        except OSError:
            said.append(f"a body without an end was cut after {sent} MB")
        else:
            said.append(f"a body of {sent} MB: {connection.recv(64).split(chr(13).encode())[0].decode()}")
            if " 413 " not in said[1]:
                raise FaultError(said[1])
    for length in ("-1", "abc", "1e9"):
        with opened(bench, beginning(bench, length, kind)) as connection:
            status = connection.recv(64).split(b"\r\n")[0]
            if b" 4" not in status:
                raise FaultError(f"Content-Length {length} is answered {status!r}")
    return "; ".join(said) + "; lengths that are no numbers: 400"


def token(bench: Bench) -> str:
    body, kind = form({"image": ("a.png", png(bench.image))})
    said = []
    for method, path in (
        ("POST", "/segment"),
        ("GET", "/models"),
        ("GET", "/jobs"),
        ("GET", "/corrections"),
        ("GET", "/metrics"),
    ):
        for wrong in (None, "wrong", TOKEN + "x", TOKEN[:-1], ""):
            answer = bench.server.send(
                method, path, body if method == "POST" else None, {"Content-Type": kind}, token=wrong
            )
            said.append(bench.refused(answer, 401, 403, 429))
            if "429" in said:
                break
    return f"none, wrong, longer, shorter, empty, on five addresses: {', '.join(sorted(set(said)))}"


def paths(bench: Bench) -> str:
    """Ways out of the folder of scenes, and of the page's."""
    outside = bench.folder / OUTSIDE
    allowed = bench.folder / "scenes"
    names = [
        *("../outside/secret.tif", "/etc/passwd", str(outside / "secret.tif"), "x/../../outside/secret.tif", ".."),
        *("link.tif", "linked/secret.tif", "way out.vrt", "a\0b.tif", "~/secret.tif", "no such.tif", "", "."),
        *("/vsicurl/http://127.0.0.1:1/a.tif", "vsizip/a.zip", "file:///etc/passwd", "..\\outside\\secret.tif"),
        *("%2e%2e/outside/secret.tif", "x" * 5000, "http://127.0.0.1:1/a.tif", "GTIFF_DIR:1:../outside/secret.tif"),
    ]
    said = set()
    for name in names:
        answer = bench.server.post("/jobs", {"path": name})
        said.add(f"job {bench.refused(answer, 400, 403, 404, 422)}")
    for path in (
        *("/static/../../../etc/passwd", "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/static//etc/passwd"),
        *("/static/..%2f..%2fapp.py", "/static/..%5c..%5capp.py", "/jobs/..%2f..%2fetc", "/jobs/../../etc/passwd"),
        *("/jobs/1/files/..%2fjob.json", "/jobs/%00", "/v2/models/..%2f..%2fetc", "/jobs/1/tiles/scene/0/0/0.png"),
    ):
        answer = bench.server.send("GET", path)
        if answer.status not in (400, 401, 403, 404, 405, 409, 422) or b"root:" in answer.body:
            raise FaultError(f"GET {path} is answered {answer.status}: {answer.body[:200]!r}")
        said.add(f"GET {answer.status}")
    before = files_below(bench.folder)
    for name in (
        "../../evil.png",
        "/tmp/evil.png",
        "..\\evil.png",
        "a\0.png",
        "x" * 5000 + ".png",
        "",
        ".png",
        "a/b.png",
    ):
        answer = bench.segment(png(bench.image), name.replace("\0", "%00"))
        if answer.status >= 500:
            raise FaultError(f"an image that is named {name[:40]!r} is answered {answer.status}: {answer.body[:200]!r}")
    new = {path for path in files_below(bench.folder) - before if "evil" in path}
    if new or Path("/tmp/evil.png").exists() or list(allowed.parent.glob("evil*")):
        raise FaultError(f"a file was written where its name says: {sorted(new)}")
    return f"{len(names)} names of scenes, 11 addresses, 8 names of images: {', '.join(sorted(said))}"


def files_below(folder: Path) -> set[str]:
    return {str(Path(place) / name) for place, _, names in os.walk(folder) for name in names}


def tensors(bench: Bench) -> str:
    """Wrong requests of the Open Inference Protocol."""
    path, said = f"/v2/models/{bench.name}/infer", []
    meant = {"name": "image", "datatype": "UINT8", "shape": [1, 3, 32, 32], "data": [0] * 3072}
    for change in (
        *({"shape": [1, 3, 10**6, 10**6]}, {"shape": [1, -32, 32, 3]}, {"shape": []}, {"shape": [2**62, 2**62]}),
        *({"data": [1]}, {"data": "text"}, {"data": [[["a"]]]}, {"datatype": "BYTES"}, {"datatype": "CAKE"}),
        *({"name": "another"}, {"parameters": {"binary_data_size": 10**12}}),
    ):
        body = json.dumps({"inputs": [{**meant, **change}]}).encode()
        said.append(
            bench.refused(bench.server.send("POST", path, body, {"Content-Type": "application/json"}), 400, 413, 422)
        )
    for body in (b"", b"[]", b"{", b'{"inputs": 1}', b'{"inputs": []}', b"[" * 100_000, b"\xff\xfe", b"null"):
        said.append(
            bench.refused(bench.server.send("POST", path, body, {"Content-Type": "application/json"}), 400, 413, 422)
        )
    for length in ("10", "-1", "abc", str(10**12)):
        headers = {"Inference-Header-Content-Length": length, "Content-Type": "application/octet-stream"}
        said.append(bench.refused(bench.server.send("POST", path, b"{}", headers), 400, 413, 422))
    return f"{len(said)} wrong requests: {', '.join(sorted(set(said)))}"


def corrections(bench: Bench) -> str:
    """Masks that do not fit."""
    image, said = png(bench.image), []
    height, width = bench.image.shape[:2]
    good = png(np.zeros((height, width), np.uint8))
    for change in (
        *({"mask": ("m.png", png(np.zeros((3, 5), np.uint8)))}, {"mask": ("m.png", b"garbage")}),
        *({"mask": ("m.png", png(np.full((height, width), 200, np.uint8)))}, {"image": ("a.png", b"garbage")}),
        *({"mask": ("m.png", declared_png(10**6, 10**6))}, {"model": "no such model"}),
        {"job": "../../etc", "x": "0", "y": "0", "width": "10", "height": "10"},
    ):
        parts = {"image": ("a.png", image), "mask": ("m.png", good), "model": bench.name} | change
        if "job" in change:
            del parts["image"]
        said.append(bench.refused(bench.server.post("/corrections", parts), 400, 403, 404, 413, 422))
    before = files_below(bench.folder / "corrections")
    parts = {"image": ("../../evil.png", image), "mask": ("/tmp/evil.png", good), "model": bench.name}
    answer = bench.server.post("/corrections", parts)
    if answer.status >= 300:
        raise FaultError(f"a good correction is answered {answer.status}: {answer.body[:200]!r}")
    if not files_below(bench.folder / "corrections") - before or Path("/tmp/evil.png").exists():
        raise FaultError("a good correction is not in the folder of corrections")
    return f"{len(said)} that do not fit: {', '.join(sorted(set(said)))}; a good one is kept"


def unknown(bench: Bench) -> str:
    said = []
    for method, path in (("GET", "/nothing"), ("DELETE", "/segment"), ("GET", "/jobs/no"), ("DELETE", "/jobs/no")):
        said.append(bench.refused(bench.server.send(method, path), 404, 405, 422))
    for start in (b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET /" + b"x" * 200_000):
        with opened(bench, b"") as connection:
            try:
                connection.sendall(start)
                connection.settimeout(2)
                connection.recv(64)
            except OSError:
                continue
    return f"unknown addresses and methods: {', '.join(sorted(set(said)))}; four beginnings that are not HTTP"


def right(bench: Bench) -> None:
    """Check that the server answers as it did at first."""
    answer = bench.segment(png(bench.image))
    if answer.status != 200:
        raise FaultError(f"afterwards a good request is answered {answer.status}: {answer.body[:200]!r}")
