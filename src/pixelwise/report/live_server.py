"""The server of the page that follows a run: for this machine alone, from the standard library."""

import os
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.report.live_page import live_body, title_of
from pixelwise.report.live_run import LiveRun, open_live
from pixelwise.report.template import page_from

HOST = "127.0.0.1"
PORT, PORTS = 6010, 20
"""The first port that is tried without a wish, and how many."""


class LiveServer(ThreadingHTTPServer):
    """Serves one run to any number of browsers; the run is read, and the page drawn, once for all of them."""

    daemon_threads = True
    # On Windows the option would let two programs have the same port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, run: LiveRun, port: int) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._drawn: tuple[str, str] = ("", "")
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def body(self) -> tuple[str, str]:
        """Return the newest version of the page's body, and its name.

        Raises:
            PixelwiseError: the run is gone.
        """
        with self._lock:
            self.run.refresh()
            name = f"{self.run.version}-{self.run.state}"
            if self._drawn[0] != name:
                self._drawn = name, live_body(self.run)
            return self._drawn


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        # A page of another site that has this machine's name in its own must not read the run.
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (HOST, "localhost"):
            self._answer(403, "text/plain", f"Open {self.server.address}", {})
            return
        asked = urlsplit(self.path)
        try:
            version, body = self.server.body()
        except (PixelwiseError, OSError) as problem:
            self._answer(503, "text/plain", str(problem), {})
            return
        if asked.path == "/body":
            if parse_qs(asked.query).get("version") == [version]:
                self._answer(304, "", "", {})
            else:
                self._answer(200, "text/html", body, {"X-Version": version})
        elif asked.path == "/":
            nonce = secrets.token_urlsafe(16)
            safe = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; connect-src 'self'; "
            page = whole_page(self.server.run.folder, body, nonce)
            self._answer(200, "text/html", page, {"Content-Security-Policy": f"{safe}script-src 'nonce-{nonce}'"})
        else:
            self._answer(404, "text/plain", f"There is no such page. Open {self.server.address}", {})

    def _answer(self, status: int, kind: str, text: str, headers: dict[str, str]) -> None:
        content = text.encode()
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
        for name, value in {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for people."""


def whole_page(folder: Path, body: str, nonce: str) -> str:
    """Return the page around a body, which asks for newer bodies.

    Args:
        nonce: by which the browser knows that the script is ours.
    """
    own = files("pixelwise.report")
    style, script = (own.joinpath(f"live.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    values = {"title": title_of(folder), "body": body, "nonce": nonce, "live_style": style, "script": script}
    return page_from("live.html.j2", values)


def live_server(folder: str | Path, port: int | None = None) -> LiveServer:
    """Return a server of a run's page, which listens but does not answer yet; `serve_forever` does.

    Args:
        port: None: the first free one from `PORT` on; 0: any free one.

    Raises:
        ConfigError: no run there, or the port is taken.
        MissingExtraError: the extra ``report`` is not installed.
    """
    run = open_live(Path(folder))
    live_body(run)
    reason = ""
    for each in [port] if port is not None else range(PORT, PORT + PORTS):
        try:
            return LiveServer(run, each)
        except OSError as problem:
            reason = problem.strerror or str(problem)
    which = f"Port {port}" if port is not None else f"None of the ports {PORT} to {PORT + PORTS - 1}"
    which += " can be used" if port is not None else " is free"
    raise ConfigError(f"{which} ({reason}). Choose another one with --port, or leave --port out.", code="PW805")
