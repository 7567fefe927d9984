"""A server on loopback that serves small files as the hub does, and as a plain server does, with faults to order."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class SmallHub:
    """What it has, what it does wrong, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> contents. Paths with ``/resolve/`` are served as the hub serves large files."""
    faults: dict[str, list] = field(default_factory=dict)
    """Path -> what goes wrong, one a request: a status, ``("break", bytes)``, an Event to wait for, or headers."""
    tags: dict[str, str] = field(default_factory=dict)
    """Path -> an ETag other than the SHA-256; empty: none."""
    ranges: bool = True
    commits: bool = True
    """Name the commit of a file, which a plain folder of files does not."""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path and headers of every request."""
    address: str = ""

    def put(self, repository: str, file: str, contents: bytes, revision: str = "main") -> None:
        self.files[f"/{repository}/resolve/{revision}/{file}"] = contents

    def gets(self, ending: str) -> list[dict[str, str]]:
        """Return the headers of the requests for the contents of a path."""
        return [headers for method, path, headers in self.asked if method == "GET" and path.endswith(ending)]


@contextmanager
def serving() -> Iterator[SmallHub]:
    hub = SmallHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.serve(body=False)

        def do_GET(self) -> None:
            self.serve(body=True)

        def serve(self, *, body: bool) -> None:
            hub.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            fault = hub.faults[self.path].pop(0) if hub.faults.get(self.path) else None
            if isinstance(fault, threading.Event):
                fault.wait(30)
            extra = fault if isinstance(fault, dict) else {}
            status = fault if isinstance(fault, int) else extra.pop("status", None)
            if status or self.path.removeprefix("/cdn") not in hub.files:
                self.answer(status or 404, extra)
                return
            contents = hub.files[self.path.removeprefix("/cdn")]
            digest = hashlib.sha256(contents).hexdigest()
            if hub.commits and "/resolve/" in self.path and not self.path.startswith("/cdn"):
                linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(contents))}
                # The contents of large files are at another host.
                elsewhere = hub.address.replace("127.0.0.1", "localhost")
                revision = self.path.partition("/resolve/")[2].partition("/")[0]
                named = revision if len(revision) == 40 else "0" * 40
                place = {"X-Repo-Commit": named, "Location": f"{elsewhere}/cdn{self.path}"}
                commit = {**place, **linked, **extra}
                self.answer(302, commit)
                return
            self.contents(contents, digest, extra, body=body, cut=fault[1] if isinstance(fault, tuple) else None)

        def contents(self, contents: bytes, digest: str, extra: dict, *, body: bool, cut: int | None) -> None:
            tag = hub.tags.get(self.path, f'"{digest}"')
            headers, status = {"Content-Length": str(len(contents)), **({"ETag": tag} if tag else {}), **extra}, 200
            wanted = self.headers.get("Range", "")
            if hub.ranges and wanted and self.headers.get("If-Range", tag) == tag:
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
                if start >= len(contents):
                    self.answer(416, {"Content-Range": f"bytes */{len(contents)}"})
                    return
                headers["Content-Range"] = f"bytes {start}-{len(contents) - 1}/{len(contents)}"
                contents, status = contents[start:], 206
                headers["Content-Length"] = str(len(contents))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(contents[:cut])
            if cut is not None:
                self.close_connection = True

        def answer(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
