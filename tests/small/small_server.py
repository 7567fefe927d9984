"""A server of tiny models that listens on this machine while a test runs, and a client of it."""

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import urllib3
import uvicorn
from PIL import Image

import pixelwise as pw
from pixelwise.labels import make_classes
from pixelwise.runs.model_folder import ModelCard, save_model
from pixelwise.serve.app import create_app
from pixelwise.serve.options import ServeOptions
from pixelwise.serve.run import PatientProtocol
from pixelwise.serve.shelf import Shelf

CLASSES = ("background", "field", "boundary")
NETWORK = ("unet", {"filters": [4, 8], "batch_norm": False})
EXPORTED = ("segformer-b0", {"widths": [8, 16, 20, 32], "depths": [1, 1, 1, 1], "decoder_channels": 16})
"""Which is exported while shapes are checked."""


def write_model(
    folder: Path,
    *,
    seed: int = 0,
    classes: tuple[str, ...] = CLASSES,
    tile: int = 64,
    network: tuple[str, dict[str, Any]] = NETWORK,
) -> Path:
    """Write a model folder whose answers differ from image to image."""
    torch.manual_seed(seed)
    name, chosen = network
    made = pw.create(name, classes=len(classes), bands=3, **chosen)
    with torch.no_grad():
        for tensor in made.parameters():
            tensor.normal_(0, 0.5)
    card = ModelCard(
        architecture=made.architecture,
        classes=make_classes(classes),
        bands=(1, 2, 3),
        dtype="uint8",
        mean=(100.0, 100.0, 100.0),
        std=(50.0, 50.0, 50.0),
        tile=tile,
        overlap=32,
    )
    save_model(folder, made, card)
    return folder


@dataclass
class Client:
    """What a test asks a server with."""

    port: int
    app: Any
    headers: dict[str, str]

    def __post_init__(self) -> None:
        self.pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=32, block=True, retries=False)

    def ask(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        headers = {**self.headers, **more.pop("headers", {})}
        return self.pool.request(method, path, headers=headers, timeout=30, **more)

    def get(self, path: str, **more: Any) -> Any:
        answer = self.ask("GET", path, **more)
        assert answer.status == 200, answer.data
        return answer.json()

    def send(self, route: str, **fields: Any) -> urllib3.BaseHTTPResponse:
        return self.ask("POST", route, fields=fields)

    def segment(self, values: np.ndarray, **fields: Any) -> Any:
        answer = self.send("/segment", image=("a.png", png(values)), **fields)
        assert answer.status == 200, answer.data
        return answer.json()

    def connection(self, sent: bytes) -> socket.socket:
        """Return a connection on which a request, or a part of one, was sent."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        made.sendall(sent)
        return made

    def wait(self, number: str, *states: str) -> dict[str, Any]:
        """Return a job once it is in one of some states."""
        for _ in range(3000):
            job = self.get(f"/jobs/{number}")
            if job["state"] in (states or ("done", "failed", "cancelled")):
                return job
            time.sleep(0.01)
        raise AssertionError(job)


def png(values: np.ndarray) -> bytes:
    """Return an image [H,W,3] as PNG."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def photo(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def error_of(answer: urllib3.BaseHTTPResponse) -> dict[str, str]:
    return json.loads(answer.data)["error"]


@contextlib.contextmanager
def serving(
    *models: str | Path, options: ServeOptions, every: float = 2.0, headers: dict[str, str] | None = None
) -> Iterator[Client]:
    """Serve models in a thread."""
    app = create_app(Shelf([str(each) for each in models]), options, every=every)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=PatientProtocol, ws="none", lifespan="on", log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield Client(listening.getsockname()[1], app, headers or {})
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
