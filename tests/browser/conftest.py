"""A server with a network of known answers, and a real browser that opens its page."""

import os
import shutil
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from on_page import BRIGHT, COLOURS, DARK, FIELD
from PIL import Image

from pixelwise.labels import Classes
from pixelwise.models import create
from pixelwise.runs.model_folder import ModelCard, save_model

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def bright_or_dark():
    """Return a U-Net whose weights say: bright where the mean of the bands, (v - 128) / 64, is above 0."""
    network = create("unet", classes=3, bands=3, filters=[4, 8], batch_norm=False)
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        first, last = network.encoder.stages[0], network.decoder.stages[-1]
        first.first.convolution.weight[0, :, 1, 1] = 1 / 3
        first.first.convolution.bias[0] = 3  # so that no value is cut off by a ReLU
        first.second.convolution.weight[0, 0, 1, 1] = 1
        last.first.convolution.weight[0, :, 1, 1] = 1
        last.second.convolution.weight[0, 0, 1, 1] = 1
        network.decoder.classifier.weight[:2, 0, 0, 0] = torch.tensor([-2.0, 2.0])
        network.decoder.classifier.bias[:] = torch.tensor([6.0, -6.0, -100.0])
    return network


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    network, folder = bright_or_dark(), tmp_path_factory.mktemp("models") / "light"
    classes = Classes(tuple(COLOURS), tuple(COLOURS.values()))
    card = ModelCard(
        network.architecture, classes, (1, 2, 3), "uint8", mean=(128.0,) * 3, std=(64.0,) * 3, tile=256, overlap=32
    )
    save_model(folder, network, card)
    return folder


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """96 x 64 pixels, dark on the left, bright on the right."""
    path = tmp_path_factory.mktemp("photos") / "half.png"
    values = np.full((64, 96, 3), DARK, np.uint8)
    values[:, 48:] = BRIGHT
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """700 x 520 pixels of a metre, dark but for one bright field."""
    path = tmp_path_factory.mktemp("scenes") / "valley.tif"
    values = np.full((3, 520, 700), DARK, np.uint8)
    left, top, right, bottom = FIELD
    values[:, top:bottom, left:right] = BRIGHT
    shape = {"count": 3, "height": 520, "width": 700, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", driver="GTiff", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000), **shape) as out:
        out.write(values)
    return path


@dataclass(frozen=True)
class Served:
    url: str
    corrections: Path


def serve(model, folder, scenes, token=None):
    """Serve a model in a thread; yields where, then stops."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs pixelwise[serve]")
    from pixelwise.serve.app import create_app
    from pixelwise.serve.options import Folders, ServeOptions
    from pixelwise.serve.shelf import Shelf

    folders = Folders(folder / "jobs", (scenes,), folder / "corrections")
    app = create_app(Shelf([str(model)], device="cpu"), ServeOptions(token=token, folders=folders))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}/", folder / "corrections")
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def served(model, scene, tmp_path_factory):
    yield from serve(model, tmp_path_factory.mktemp("served"), scene.parent)


@pytest.fixture(scope="session")
def guarded(model, scene, tmp_path_factory):
    """A server that asks for a token."""
    yield from serve(model, tmp_path_factory.mktemp("guarded"), scene.parent, token="sesame")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install pixelwise[test]")
    found = os.environ.get("PIXELWISE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(
            "No Chromium was found. Install one (Debian and Ubuntu: apt install chromium), or name its program in "
            "PIXELWISE_BROWSER."
        )
    with playwright.sync_playwright() as started:
        # A sandbox needs rights that a container does not have; the page is our own.
        yield started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture
def new_page(browser):
    """Open pages that must not fail in silence, and must ask no other server."""
    contexts, problems = [], []

    def open_page(url, *, width=900, height=600, allowed=(), **options):
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(error.message))
        page.on(
            "console",
            lambda said: (
                problems.append(said.text)
                if said.type == "error" and not any(each in said.text for each in allowed)
                else None
            ),
        )
        page.on(
            "request",
            lambda asked: problems.append(asked.url) if not asked.url.startswith((url, "blob:", "data:")) else None,
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(new_page, served):
    return new_page(served.url)
