"""Graphs in half precision: float16 and bfloat16."""

from typing import Any

from pixelwise.exporting.layers import Layers
from pixelwise.optional import optional_module

SMALLEST = 256
"""Numbers of a constant that is stored in half precision; normalisation and biases are smaller, and stay."""


def float16_onnx(graph: Any, layers: Layers) -> Any:
    """Return an ONNX graph that computes in float16, but for what is outside of the network.

    Raises:
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx = optional_module("onnx")
    optional_module("onnxruntime")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    return convert_float_to_float16(copied, keep_io_types=True, node_block_list=list(layers.outside))


def half_openvino(graph: Any, precision: str) -> Any:
    """Return an ONNX graph as OpenVINO's, with weights in float16 or bfloat16, which it multiplies as its device can.

    Raises:
        MissingExtraError: the extra ``openvino`` is not installed.
    """
    openvino = optional_module("openvino")
    from openvino import opset13

    model = openvino.Core().read_model(graph.SerializeToString())
    stored = openvino.Type.f16 if precision == "float16" else openvino.Type.bf16
    for constant in [op for op in model.get_ops() if op.get_type_name() == "Constant"]:
        if constant.get_output_element_type(0) != openvino.Type.f32 or constant.data.size < SMALLEST:
            continue
        used = constant.output(0).get_target_inputs()
        small = opset13.constant(constant.data, dtype=stored, name=constant.get_friendly_name())
        back = opset13.convert(small, "f32").output(0)
        for each in used:
            each.replace_source_output(back)
    return model


def has_bfloat16() -> bool:
    """Return whether OpenVINO multiplies bfloat16 on this processor."""
    return "BF16" in optional_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
