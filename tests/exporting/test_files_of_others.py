"""Files that other programs made, as they come: bands last, several outputs, weights beside, sides of a multiple."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_network import noise

import pixelwise as pw
from pixelwise.exported.runtimes import _onnx_providers

SAID = {"classes": ["a", "b"], "mean": [100.0, 110.0, 120.0], "std": [50.0, 51.0, 52.0], "tile": 64, "overlap": 0}
WEIGHTS = np.random.default_rng(0).standard_normal((2, 3, 1, 1)).astype(np.float32)
IMAGE = np.moveaxis(noise(3, 90, 130), 0, -1)


def written(path, *, shape=("b", 3, "h", "w"), kind=TensorProto.FLOAT, before=(), after=(), outputs=("out",), **how):
    """Write a graph of one 1x1 convolution, with nodes before and after it."""
    nodes = [*before, helper.make_node("Conv", ["image" if not before else "given", "weights"], ["out"]), *after]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs]
    taken = [helper.make_tensor_value_info("image", kind, shape)]
    graph = helper.make_graph(nodes, "theirs", taken, results, [numpy_helper.from_array(WEIGHTS, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, **how)
    return path


def wanted():
    normalised = (IMAGE - np.array(SAID["mean"])) / np.array(SAID["std"])
    return (normalised @ WEIGHTS[:, :, 0, 0].T).argmax(axis=-1)


def found(path, **more):
    return pw.load(path, options={**SAID, **more}).segment(IMAGE).labels


def test_weights_that_lie_beside_the_graph_are_found(tmp_path):
    # As torch's newer exporter writes them.
    beside = {"save_as_external_data": True, "location": "theirs.onnx.data", "size_threshold": 0}
    path = written(tmp_path / "theirs.onnx", **beside)
    assert (tmp_path / "theirs.onnx.data").stat().st_size == WEIGHTS.nbytes
    np.testing.assert_array_equal(found(path), wanted())


@pytest.mark.parametrize("outputs", [("out", "aux"), ("aux", "logits")])
def test_of_several_outputs_the_first_is_taken_or_the_one_called_logits(tmp_path, outputs):
    after = [helper.make_node("Neg", ["out"], ["aux"]), helper.make_node("Identity", ["out"], ["logits"])]
    path = written(tmp_path / "theirs.onnx", after=after, outputs=outputs)
    np.testing.assert_array_equal(found(path), wanted())


def test_sides_that_the_network_does_not_take_are_named_and_can_be_said(tmp_path):
    halves = helper.make_node("MaxPool", ["out"], ["half"], kernel_shape=[32, 32], strides=[32, 32])
    scales = helper.make_node("Constant", [], ["scales"], value_floats=[1.0, 1.0, 32.0, 32.0])
    whole = helper.make_node("Resize", ["half", "", "scales"], ["whole"], mode="nearest")
    zero = helper.make_node("Sub", ["whole", "whole"], ["zero"])
    after = [halves, scales, whole, zero, helper.make_node("Add", ["out", "zero"], ["sum"])]
    path = written(tmp_path / "theirs.onnx", after=after, outputs=("sum",))
    with pytest.raises(pw.DataError, match=r"1 x 3 x \d+ x \d+ with theirs.onnx .*--option multiple=32"):
        pw.load(path, options={**SAID, "tile": 256}).segment(IMAGE)
    np.testing.assert_array_equal(found(path, tile=256, multiple=32), wanted())
    # Tiles, too, that are no multiple of it.
    np.testing.assert_array_equal(found(path, tile=64, multiple=96), wanted())


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        ({"shape": ("b", 512, 512, 3)}, {}, r"bands last, \[any, 512, 512, 3\].*bands\s+first"),
        ({"shape": ("b", "h", "w", 3)}, SAID, "bands last"),
        ({"shape": ("b", "c", "h", "w")}, SAID, "does not say how many bands"),
        ({"shape": (4, 3, 64, 64)}, SAID, "takes 4 images at once"),
        ({"shape": (1, 3, 48, 48)}, SAID, "needs tiles of 64 x 64 or more"),
        ({"kind": TensorProto.UINT8}, SAID, "takes an image of uint8, .*Export it with a float32 input"),
        ({}, {**SAID, "multiple": 0}, "multiple is a number of pixels from 1 up, not 0"),
        ({}, {**SAID, "std": [float("nan")] * 3}, "mean and std must be finite"),
        ({}, {**SAID, "dtype": "complex"}, "whole or real numbers, not complex"),
        ({}, {**SAID, "bands": [0, 1, 2]}, "bands"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(tmp_path, more, options, said):
    if more.get("kind") is not None:
        more = {**more, "before": [helper.make_node("Cast", ["image"], ["given"], to=TensorProto.FLOAT)]}
    if more.get("shape", ())[3:] == (3,):
        more = {**more, "before": [helper.make_node("Transpose", ["image"], ["given"], perm=[0, 3, 1, 2])]}
    path = written(tmp_path / "theirs.onnx", **more)
    with pytest.raises((pw.ConfigError, pw.WeightsError), match=said):
        pw.load(path, options=options)


def test_a_program_of_torch_that_others_made_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "theirs.pt2")
    with pytest.raises(pw.WeightsError, match=r"no program that pixelwise exported.*as \.onnx"):
        pw.load(tmp_path / "theirs.pt2", options=SAID)


def test_devices_that_are_none_are_refused_and_a_gpu_keeps_its_number():
    gpu = "CUDAExecutionProvider"
    plain, fast = (SimpleNamespace(get_available_providers=lambda found=found: found) for found in ([], [gpu]))
    for name in ("banana", "cudax", "cuda:x", "mps"):
        with pytest.raises(pw.ConfigError, match=f"no device '{name}'.*--device cpu"):
            _onnx_providers(fast, name)
    assert _onnx_providers(plain, "auto") == _onnx_providers(fast, "cpu") == ["CPUExecutionProvider"]
    assert _onnx_providers(fast, "cuda:1")[0] == (gpu, {"device_id": 1})
    assert _onnx_providers(fast, "auto")[0] == gpu
