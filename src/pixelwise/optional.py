"""Imports of what comes with an extra."""

import importlib
from types import ModuleType

from pixelwise.errors import MissingExtraError

EXTRAS = {
    "pyarrow": ("GeoParquet", "parquet"),
    "jinja2": ("The report", "report"),
    "ray": ("Clusters", "ray"),
    "onnx": ("Writing ONNX", "onnx"),
    "onnxruntime": ("ONNX files", "onnx"),
    "openvino": ("OpenVINO", "openvino"),
    "transformers": ("A folder for transformers", "transformers"),
}
"""Package -> what needs it, and the extra that installs it. All others draw polygons and are in ``geo``."""


def optional_module(name: str) -> ModuleType:
    """Import a module of an extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.split(".")[0]
        what, extra = EXTRAS.get(package, ("Polygons", "geo"))
        verb = "need" if what.endswith("s") else "needs"
        raise MissingExtraError(f"{what} {verb} {package}. Install it with: pip install 'pixelwise[{extra}]'") from None
