"""A server in a process of its own on the loopback, and requests to it, for the benchmarks of `pixelwise serve`."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

HOST = "127.0.0.1"
EXAMPLES = Path(__file__).parents[1] / "examples" / "fields"
Part = str | bytes | tuple[str, bytes]
"""A field's text, or a file: its name and its bytes."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    def json(self) -> Any:
        return json.loads(self.body)

    def labels(self) -> np.ndarray:
        """Return the class of each pixel of a palette PNG, [H,W]."""
        return np.asarray(Image.open(io.BytesIO(self.body)))


@dataclass
class Server:
    """A process that listens on a port of this machine."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    token: str | None = None

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = "the server's",
        timeout: float = 60,
    ) -> Answer:
        """Send a request on a connection of its own; ``path`` goes out as it is written."""
        token = self.token if token == "the server's" else token
        sent = dict(headers or {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        started = time.monotonic()
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            read = answer.read()
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, read, _since(started))
        finally:
            connection.close()

    def post(self, path: str, parts: Mapping[str, Part], **options: Any) -> Answer:
        """Send a form."""
        body, kind = form(parts)
        return self.send("POST", path, body, {"Content-Type": kind}, **options)

    def wait(self, path: str, seconds: float = 120) -> None:
        """Wait until a path is answered.

        Raises:
            SystemExit: the process ended, or does not answer.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                if self.send("GET", path, timeout=5).status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        raise SystemExit(f"The server does not answer {path}:\n{self.log.read_text(errors='replace')[-2000:]}")

    def memory_mib(self) -> float:
        """Return the resident memory of the process and of those that it started."""
        return sum(map(_resident_mib, _family(self.process.pid)))

    def kill(self) -> None:
        """End the process, and those that it started, as a power cut would."""
        for pid in reversed(_family(self.process.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def stop(self) -> int:
        """Ask the process to end, and return its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode


def start(command: Sequence[str], log: Path, *, token: str | None = None, port: int | None = None) -> Server:
    """Start a command with ``--port`` and a free port."""
    port = free_port() if port is None else port
    with log.open("ab") as file:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=file, stderr=subprocess.STDOUT)
    return Server(process, port, log, token)


def pixelwise_server(arguments: Sequence[str], log: Path, *, token: str | None = None) -> Server:
    """Start `pixelwise serve`, and wait until it lists a model that is ready."""
    said = [] if token is None else ["--token", token]
    server = start([sys.executable, "-m", "pixelwise", "serve", *arguments, *said], log, token=token)
    server.wait("/models")
    until = time.monotonic() + 120
    while not all(model["ready"] for model in server.send("GET", "/models").json()) and time.monotonic() < until:
        time.sleep(0.05)
    return server


def form(parts: Mapping[str, Part]) -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    edge = uuid.uuid4().hex
    body = b""
    for name, part in parts.items():
        file, value = part if isinstance(part, tuple) else (None, part)
        told = f'form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')
        value = value.encode() if isinstance(value, str) else value
        body += f"--{edge}\r\nContent-Disposition: {told}\r\n\r\n".encode() + value + b"\r\n"
    return body + f"--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def example_images(count: int, size: int) -> list[np.ndarray]:
    """Return images [size,size,3] uint8 that differ from each other: windows of the example scenes, turned."""
    generator = np.random.default_rng(0)
    scenes = sorted(EXAMPLES.glob("t*/*.tif"))
    found = []
    for index in range(count):
        with rasterio.open(scenes[index % len(scenes)]) as scene:
            side = min(size, scene.height, scene.width)
            row, column = (int(generator.integers(0, rest + 1)) for rest in (scene.height - side, scene.width - side))
            values = scene.read((1, 2, 3), window=((row, row + side), (column, column + side)))
        turned = np.rot90(values.transpose(1, 2, 0), index // len(scenes))
        picture = Image.fromarray(np.ascontiguousarray(turned[:, :: 1 if index // len(scenes) < 4 else -1]))
        found.append(np.asarray(picture.resize((size, size))))
    return found


def write_model(folder: Path, *, name: str = "segformer-b0", seed: int = 0, tile: int = 512) -> None:
    """Write a model folder with random weights and three classes, which takes 8-bit images of three bands."""
    import torch

    import pixelwise as pw
    from pixelwise.labels import make_classes
    from pixelwise.runs.model_folder import ModelCard, save_model

    torch.manual_seed(seed)
    model = pw.create(name, classes=3, bands=3)
    classes = make_classes(["background", "field", "boundary"])
    mean, deviation = (107.0, 122.0, 91.0), (37.0, 30.0, 26.0)
    card = ModelCard(model.architecture, classes, (1, 2, 3), "uint8", mean, deviation, tile=tile, overlap=tile // 4)
    save_model(folder, model, card)


def png(values: np.ndarray) -> bytes:
    """Return an image as PNG."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "png", compress_level=1)
    return file.getvalue()


def _since(moment: float) -> float:
    return round(time.monotonic() - moment, 3)


def _family(pid: int) -> list[int]:
    """Return a process and all that it started, itself first."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(each for child in children for each in _family(int(child)))]


def _resident_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0
