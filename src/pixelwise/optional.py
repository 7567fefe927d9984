"""Imports of what comes with an extra."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from pixelwise.errors import MissingExtraError

EXTRAS = {
    "pyarrow": ("Parquet", "parquet"),
    "jinja2": ("The report", "report"),
    "ray": ("Clusters", "ray"),
    "pycocotools": ("COCO's run lengths", "annotations"),
    "defusedxml": ("CVAT's XML", "annotations"),
    "yaml": ("YOLO's data.yaml", "annotations"),
    "imagehash": ("Near-duplicates", "check"),
    "timm": ("Encoders of timm", "timm"),
    "transformers": ("Encoders of transformers", "transformers"),
    "huggingface_hub": ("Names on the hub", "transformers"),
    "onnx": ("Writing ONNX", "onnx"),
    "onnxruntime": ("ONNX files", "onnx"),
    "openvino": ("OpenVINO", "openvino"),
    "nncf": ("int8 for OpenVINO", "int8"),
    "mlflow": ("[run].track", "mlflow"),
    "wandb": ("[run].track", "wandb"),
    "optuna": ("A search", "tune"),
    "fastapi": ("The server", "serve"),
    "uvicorn": ("The server", "serve"),
    "prometheus_client": ("The server", "serve"),
    "python_multipart": ("The server", "serve"),
}
"""Package -> what needs it, and the extra that installs it. All others draw polygons and are in ``geo``."""


def optional_module(name: str, *, what: str = "", extra: str = "") -> ModuleType:
    """Import a module of an extra.

    Args:
        what, extra: what needs it, and the extra that brings it; default: as `EXTRAS` says.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.split(".")[0]
        if not what:
            what, extra = EXTRAS.get(package, ("Polygons", "geo"))
        verb = "need" if what.endswith("s") else "needs"
        raise MissingExtraError(f"{what} {verb} {package}. Install it with: pip install 'pixelwise[{extra}]'") from None


def torch_missing(error: ModuleNotFoundError, what: str) -> MissingExtraError | None:
    """Return what to say of an import that failed, if it was torch's.

    Args:
        what: needs torch, such as 'Training'.
    """
    if (error.name or "").split(".")[0] != "torch":
        return None
    return MissingExtraError(
        f"{what} needs torch. Install it with: pip install 'pixelwise[train]'. Without torch you predict with exported "
        "files, .onnx and .xml, and score them.",
        code="PW902",
    )


@contextmanager
def torch_needed(what: str) -> Iterator[None]:
    """Say in a sentence that torch is missing, where it is imported.

    Args:
        what: needs torch, such as 'Training'.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (said := torch_missing(error, what)) is not None:
            raise said from None
        raise
