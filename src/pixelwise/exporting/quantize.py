"""Graphs in eight bits: ranges of values are read from crops, and weights have a scale for each channel."""

import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.exporting.layers import Kept, Layers
from pixelwise.optional import optional_module


def folded(graph: Any) -> Any:
    """Return an ONNX graph whose constant parts are computed, so that products of weights are weights."""
    onnx, runtime = optional_module("onnx"), optional_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        options.log_severity_level = 4
        runtime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def quantized_onnx(graph: Any, layers: Layers, kept: Kept, images: Sequence[np.ndarray]) -> Any:
    """Return an ONNX graph with products in eight bits: QuantizeLinear and DequantizeLinear around them.

    Activations are unsigned and weights signed, as VNNI multiplies them.

    Args:
        kept: what stays float32, besides what is outside of the network.
        images: as the file takes them, [1,_,_,_].

    Raises:
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx = optional_module("onnx")
    optional_module("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> Any:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        # It writes into the graph that it is given, which other tries take too.
        own = onnx.ModelProto()
        own.CopyFrom(graph)
        quantize_static(
            own,
            path,
            Images(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(layers.kinds),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*layers.outside, *layers.rest, *kept.nodes],
            extra_options={
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
                # What norms and softmax are given stays as exact as it is.
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"] if layers.attention else [],
            },
        )
        return onnx.load(path)


def quantized_openvino(graph: Any, layers: Layers, kept: Kept, images: Sequence[np.ndarray]) -> Any:
    """Return an ONNX graph as OpenVINO's, with products in eight bits, by NNCF.

    Raises:
        MissingExtraError: the extra ``int8`` is not installed.
    """
    openvino = optional_module("openvino")
    nncf = _nncf()
    model = openvino.Core().read_model(graph.SerializeToString())
    floating = {*layers.outside, *layers.rest, *kept.nodes}
    # OpenVINO makes two nodes of a convolution, and names the first one NODE/WithoutBiases.
    names = [op.get_friendly_name() for op in model.get_ops()]
    ignored = [name for name in names if name.removesuffix("/WithoutBiases") in floating]
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(list(images)),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if layers.attention else None,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )


def _nncf() -> Any:
    """Import NNCF, which would tell its makers that it is used, but not where programs are built and tested."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        return optional_module("nncf")
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what quantisers say of their own steps, and their bars, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
