"""The script of the page, run as its reader runs it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from small_network import noise, write_photo
from test_export import SEGFORMER, saved

import pixelwise as pw

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_script_of_the_page_gives_our_class_map_without_torch_and_pixelwise(tmp_path):
    saved(tmp_path / "model", *SEGFORMER, tile=128)
    pw.export(tmp_path / "model", tmp_path / "fields.onnx", outputs=["labels"], dtype="uint8", layout="nhwc")
    photo = write_photo(tmp_path / "photo.png", noise(3, 45, 52))
    script = re.search(r"```python\n(# python classes.py.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    hidden = "import sys; sys.modules['torch'] = sys.modules['pixelwise'] = None\n"
    (tmp_path / "classes.py").write_text(hidden + script[1])
    arguments = [tmp_path / "classes.py", tmp_path / "fields.onnx", photo, tmp_path / "labels.npy"]
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    labels = np.load(tmp_path / "labels.npy")
    np.testing.assert_array_equal(labels, pw.load(tmp_path / "model").segment(photo).labels)
