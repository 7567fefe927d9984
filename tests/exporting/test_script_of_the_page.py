"""The scripts of the page, run as their readers run them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_network import noise, write_photo
from test_export import SEGFORMER, saved

import pixelwise as pw

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "export.md"
PACKAGE = "onnxruntime-web"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file that gives classes, a photo, and the classes that pixelwise finds in it."""
    folder = tmp_path_factory.mktemp("page")
    saved(folder / "model", *SEGFORMER, tile=128)
    pw.export(folder / "model", folder / "fields.onnx", outputs=["labels"], dtype="uint8", layout="nhwc")
    values = noise(3, 45, 52)
    write_photo(folder / "photo.png", values)
    (folder / "photo.rgb").write_bytes(np.ascontiguousarray(np.moveaxis(values, 0, -1)).tobytes())
    np.save(folder / "wanted.npy", pw.load(folder / "model").segment(folder / "photo.png").labels)
    return folder


def script(language, name):
    found = re.search(rf"```{language}\n((?:#|//) [^\n]*{re.escape(name)}.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_script_of_the_page_gives_our_class_map_without_torch_and_pixelwise(folder):
    hidden = "import sys; sys.modules['torch'] = sys.modules['pixelwise'] = None\n"
    (folder / "classes.py").write_text(hidden + script("python", "classes.py"))
    arguments = [folder / "classes.py", folder / "fields.onnx", folder / "photo.png", folder / "labels.npy"]
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(folder / "labels.npy"), np.load(folder / "wanted.npy"))


def node_modules():
    """Return where the package is: in the repository (`npm install onnxruntime-web`), or where NODE_PATH says."""
    places = [ROOT / "node_modules", *map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))]
    return next((place for place in places if (place / PACKAGE).is_dir()), None)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
@pytest.mark.skipif(node_modules() is None, reason=f"npm install {PACKAGE} was not given here")
def test_the_script_in_javascript_gives_our_class_map(folder):
    text = script("javascript", "classes.mjs")
    assert len(text.splitlines()) <= 20
    (folder / "classes.mjs").write_text(text)
    (folder / "node_modules").symlink_to(node_modules().resolve())
    subprocess.run(
        ["node", "classes.mjs", "fields.onnx", "photo.rgb", "52", "45", "labels.raw"], check=True, cwd=folder
    )
    labels = np.fromfile(folder / "labels.raw", np.uint8).reshape(45, 52)
    np.testing.assert_array_equal(labels, np.load(folder / "wanted.npy"))
