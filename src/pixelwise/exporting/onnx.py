"""ONNX: a network traced once, for images of any size, checked as a graph, with metadata."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from pixelwise.errors import PixelwiseError
from pixelwise.exported.options import ExportOptions
from pixelwise.optional import optional_module

OPSET = 17
"""The first with layer norms in one piece. ONNX Runtime 1.12 of 2022 and all later ones run it."""

AXES = {
    "logits": {0: "batch", 2: "rows", 3: "columns"},
    "labels": {0: "batch", 1: "height", 2: "width"},
    "confidence": {0: "batch", 1: "height", 2: "width"},
    "probabilities": {0: "batch", 2: "height", 3: "width"},
}
"""Of each output: the axes that an image's size changes."""


def onnx_graph(
    network: nn.Module, example: Shaped[Tensor, "B _ _ _"], names: Sequence[str], options: ExportOptions
) -> Any:
    """Return the graph of a network as an ``onnx.ModelProto``.

    torch's older exporter traces: it is exact and quick for every family, since `pixelwise.upsampling.has_size` keeps
    it off shortcuts for the example's own size. The newer one took 27 to 159 s.

    Args:
        example: an image with sides that are no power of 2, or of the options' size.
        names: of the network's outputs.

    Raises:
        PixelwiseError: the graph is not valid.
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    onnx = optional_module("onnx")
    rows, columns = (2, 3) if options.layout == "nchw" else (1, 2)
    axes: dict[str, dict[int, str]] = {"image": {0: "batch", rows: "height", columns: "width"}}
    axes |= {name: AXES.get(name, {0: "batch", 2: f"rows {i}", 3: f"columns {i}"}) for i, name in enumerate(names)}
    if options.size is not None:
        axes = {} if options.deepness else {name: {0: "batch"} for name in axes}
    file = io.BytesIO()
    with warnings.catch_warnings(), _no_dump(), torch.no_grad():
        # It warns that it is the older one, and of each size that becomes a constant; the certificate checks that.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            file,  # pyright: ignore[reportArgumentType]  the older exporter takes a buffer too
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(names),
            dynamic_axes=axes,
        )
    graph = onnx.load_from_string(file.getvalue())
    _set_types(onnx, graph, options)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PixelwiseError(
            f"The exported graph is not valid ONNX: {str(error).strip()[:300]}", code="PW701"
        ) from None
    return graph


@contextmanager
def _no_dump() -> Iterator[None]:
    """Keep torch from printing the whole graph, thousands of lines, before it raises an error."""
    inner: Any = torch._C
    print_graph = getattr(inner, "_jit_onnx_log", None)
    inner._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        inner._jit_onnx_log = print_graph


def save_onnx(graph: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph with its metadata."""
    onnx = optional_module("onnx")
    onnx.helper.set_model_props(graph, dict(metadata))
    graph.producer_name = "pixelwise"
    path.write_bytes(graph.SerializeToString())


def _set_types(onnx: Any, graph: Any, options: ExportOptions) -> None:
    """Give image and labels the 16-bit types that the exporter does not know."""
    wide = onnx.TensorProto.UINT16
    if options.dtype == "uint16":
        graph.graph.input[0].type.tensor_type.elem_type = wide
    for output in graph.graph.output:
        if output.name == "labels" and output.type.tensor_type.elem_type != onnx.TensorProto.UINT8:
            cast = next(node for node in graph.graph.node if "labels" in node.output)
            assert cast.op_type == "Cast"
            cast.attribute[0].i = wide
            output.type.tensor_type.elem_type = wide
