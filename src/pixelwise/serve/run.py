"""A server that listens until it is told to stop."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pixelwise.errors import ConfigError
from pixelwise.serve.app import create_app
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.shelf import Shelf

GRACE = 30
"""Seconds that requests have to end when the server stops."""
HEADERS = 15.0
"""Seconds that a client has for a request's headers."""


class PatientProtocol(H11Protocol):
    """HTTP whose clients must send a request's headers within some time; the body's time is the guard's."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._awaited = self.loop.call_later(HEADERS, self._close_if_silent)

    def data_received(self, data: bytes) -> None:
        """Wait anew where a next request begins."""
        super().data_received(data)
        self._awaited.cancel()
        if self.cycle is None or self.cycle.response_complete:
            self._awaited = self.loop.call_later(HEADERS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._awaited.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def run(
    models: Sequence[str],
    options: ServeOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    say: Callable[[str], None] = print,
) -> None:
    """Serve models until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: a port that is taken, or options that do not work.
        WeightsError: a model that cannot be loaded.
    """
    listening = _listening(host, port)
    with listening:
        shelf = Shelf(models, device=options.work.device, batch=options.work.batch)
        app = create_app(shelf, options)
        config = uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=options.limits.connections,
            timeout_graceful_shutdown=GRACE,
        )
        shown = f"[{host}]" if ":" in host else host
        for model in shelf:
            say(f"{model.name}, version {model.version}: {model.card.architecture.name} on {model.runtime}.")
        if options.token is None and options.hosts is None:
            say("Note: anybody who reaches this address is answered. Give --token, or stay at 127.0.0.1.")
        say(f"Open http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it).")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before models are loaded: a port that is taken is told at once."""
    try:
        kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(kind, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(512)
    except OSError as problem:
        raise ConfigError(
            f"Listening at {host}, port {port}, failed: {problem.strerror or problem}. Choose another --port or --host."
        ) from None
    return found
