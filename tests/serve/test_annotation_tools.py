"""The two files of examples/serve, beside what the tools' own code reads."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_server import CLASSES, photo, png, serving, write_model

import pixelwise as pw
from pixelwise.data.annotations import label_studio
from pixelwise.data.annotations.shapes import paint
from pixelwise.geo.raster import Window
from pixelwise.serve.options import Folders, ServeOptions, Work

EXAMPLES = Path(__file__).parents[2] / "examples" / "serve"
PHOTO = photo(3)
TOKEN = "a token"


def example(name, **changes):
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for key, value in changes.items():
        setattr(module, key, value)
    return module


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server, and the right classes of the photo."""
    base = tmp_path_factory.mktemp("tools")
    model = write_model(base / "fields")
    options = ServeOptions(token=TOKEN, folders=Folders(base / "jobs"), work=Work(device="cpu", workers=1))
    with serving(model, options=options) as client:
        yield f"http://127.0.0.1:{client.port}", pw.load(model, device="cpu").segment(PHOTO).labels


@pytest.fixture
def studio():
    """An address where Label Studio would be, with one image for those who have its key."""

    class Images(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == "Token key" and self.path == "/data/upload/1/0a1b2c3d-photo.png"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(png(PHOTO) if known else b"")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Images) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def backend(served, studio):
    return example(
        "label_studio_backend",
        SERVER=served[0],
        STUDIO=studio,
        TO_SERVER={"Authorization": f"Bearer {TOKEN}"},
        TO_STUDIO={"Authorization": "Token key"},
    )


def test_label_studio_gets_regions_that_are_the_servers_classes(backend, served, tmp_path):
    task = {"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-photo.png"}}
    (answer,) = backend.predict({"tasks": [task]})["results"]
    # What Label Studio would keep and export again, read as its export.
    export = [{**task, "annotations": [{"id": 1, "result": answer["result"]}]}]
    (tmp_path / "export.json").write_text(json.dumps(export), encoding="utf-8")
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    (image,) = label_studio.read(tmp_path / "export.json", [tmp_path], None).images
    drawn = [(region.shape, CLASSES.index(region.name)) for region in image.regions]
    height, width = PHOTO.shape[:2]
    np.testing.assert_array_equal(paint(drawn, Window(0, 0, height, width), 0), served[1])
    assert answer["model_version"] == backend.setup()["model_version"]


def test_label_studios_health_is_up(backend):
    assert backend.health()["status"] == "UP"


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/a.png", "//example.org/a.png", "file:///etc/passwd"])
def test_images_of_tasks_come_from_label_studio_alone(backend, address):
    with pytest.raises(Exception, match="The image is not at"):
        backend.fetched(address)


def test_cvat_gets_masks_that_are_the_servers_classes(served):
    masks = pytest.importorskip("cvat_sdk.masks")
    function = example("cvat_function").create(served[0], TOKEN)
    shapes = function.detect(SimpleNamespace(conv_mask_to_poly=False), Image.fromarray(PHOTO))
    height, width = PHOTO.shape[:2]
    found = np.zeros((height, width), np.uint8)
    for shape in shapes:
        found[masks.decode_mask(shape.points, image_width=width, image_height=height)] = shape.label_id
    np.testing.assert_array_equal(found, served[1])
    assert {label.name for label in function.spec.labels} == {"field", "boundary"}


def test_cvat_gets_polygons_where_it_asks_for_them(served):
    pytest.importorskip("cvat_sdk.masks")
    function = example("cvat_function").create(served[0], TOKEN)
    shapes = function.detect(SimpleNamespace(conv_mask_to_poly=True), Image.fromarray(PHOTO))
    assert {shape.type.value for shape in shapes} == {"polygon"}
    assert {shape.label_id for shape in shapes} == set(np.unique(served[1]).tolist()) - {0}
    assert all(len(shape.points) >= 8 and len(shape.points) % 2 == 0 for shape in shapes)
