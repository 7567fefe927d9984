"""OpenVINO's own form, made from the ONNX graph: NAME.xml, and NAME.bin with the weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelwise.errors import ConfigError
from pixelwise.exported.runtimes import WEIGHTS, reason_of
from pixelwise.files import file_digest
from pixelwise.optional import optional_module

UNKNOWN = "0" * 64
"""In the place of the digest of weights that are not written yet."""


def save_openvino(graph: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ONNX graph, or one of OpenVINO's own, with its metadata.

    Raises:
        MissingExtraError: the extra ``openvino`` is not installed.
        ConfigError: it cannot be written.
    """
    openvino = optional_module("openvino")
    # Read by the core: the package's own converter would tell its makers that it was used.
    model = graph if isinstance(graph, openvino.Model) else openvino.Core().read_model(graph.SerializeToString())
    # One text: OpenVINO would take keys apart at dots.
    model.set_rt_info(json.dumps({**metadata, WEIGHTS: UNKNOWN}), ["pixelwise", "metadata"])
    # Weights in half precision would be another network; those of one are so already.
    try:
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise ConfigError(
            f"OpenVINO failed to write {path} ({reason_of(error)}). Free space on that disk, and give the same command "
            "again.",
            code="PW803",
        ) from None
    graph = path.read_text(encoding="utf-8")
    path.write_text(graph.replace(UNKNOWN, file_digest(path.with_suffix(".bin"))), encoding="utf-8")
