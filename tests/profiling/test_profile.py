"""Profiles of a tiny network: by stage, by layer, and as the command writes them."""

import json

import jaxtyping
import numpy as np
import onnx
import pytest
import rasterio
import torch
from click.testing import CliRunner
from rasterio.windows import Window as Cutout
from small_network import NORTH_UP
from torch import nn

import pixelwise as pw
from pixelwise.cli import commands
from pixelwise.inference.options import TileOptions
from pixelwise.profiling.counters import onnx_events
from pixelwise.profiling.layers import watch
from pixelwise.profiling.stages import timed_map
from pixelwise.profiling.words import in_words


def write_scene(path, height, width, *, blocks=64):
    values = np.random.default_rng(3).integers(0, 256, (3, height, width), np.uint8)
    shape = {"driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8", "transform": NORTH_UP}
    tiles = {"tiled": True, "blockxsize": blocks, "blockysize": blocks, "compress": "deflate", "crs": "EPSG:32632"}
    with rasterio.open(path, "w", **shape, **tiles) as target:
        target.write(values)
    return path


@pytest.mark.parametrize(("height", "width"), [(150, 130), (50, 40)])
def test_the_profiled_path_makes_the_map_that_predict_makes(model, tmp_path, height, width):
    scene, predictor = write_scene(tmp_path / "scene.tif", height, width), pw.load(model)
    predictor.map_scene(scene, tmp_path / "map.tif")
    network, card, digest = predictor.model, predictor.card, predictor.model_hash
    timeline, tiling, made = timed_map(network, card, scene, tmp_path / "timed.tif", TileOptions(), model_hash=digest)
    with rasterio.open(tmp_path / "map.tif") as wanted, rasterio.open(made.path) as found:
        np.testing.assert_array_equal(found.read(), wanted.read())
    stages = [span.stage for span in timeline.spans]
    tiles = sum(map(len, tiling.plan.rows))
    assert stages.count("network") == stages.count("read") == stages.count("decode") == tiles
    assert (stages[0], stages[-1]) == ("open", "write")
    assert ("blend" in stages) == (tiles > 1)


def test_of_a_large_scene_the_middle_is_mapped(model, tmp_path):
    scene, predictor = write_scene(tmp_path / "scene.tif", 300, 64), pw.load(model)
    network, card, digest = predictor.model, predictor.card, predictor.model_hash
    _, _, made = timed_map(network, card, scene, tmp_path / "part.tif", TileOptions(64, 32), model_hash=digest)
    # Four tiles of 64 that share 32: 160 pixels, from row 70 on.
    with rasterio.open(scene) as source, rasterio.open(made.path) as found:
        assert found.shape == (160, 64)
        assert found.transform == source.window_transform(Cutout(0, 70, 64, 160))


def test_layers_have_the_networks_names_and_no_hook_stays(model):
    predictor = pw.load(model)
    network = predictor.model
    image = torch.zeros(1, 3, 64, 64)
    found = watch(network, lambda: network.decode(image), 2)
    names = {name for name, _ in network.named_modules()}
    assert {layer.name for layer in found.layers} <= names
    convolutions = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions <= {layer.name for layer in found.layers}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    slowest_first = [layer.seconds for layer in found.layers]
    assert slowest_first == sorted(slowest_first, reverse=True)
    # A layer has the time of those inside it, and its own.
    whole = {call.name: call for call in found.calls}
    for name, call in whole.items():
        inside = [each for each in found.calls if each.name.startswith(f"{name}.")]
        assert call.own <= call.seconds + 1e-9
        assert all(call.start <= each.start and each.seconds <= call.seconds for each in inside)
    first = next(layer for layer in found.layers if layer.output_bytes == 4 * 4 * 64 * 64)
    assert first.calls == 1


def test_a_profile_of_onnx_runtime_is_read_from_its_last_run():
    def node(name, kind, start, **more):
        told = {"op_name": kind, **more}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": 40, "args": told}

    events = [
        {"cat": "Session", "name": "model_run", "ts": 100, "dur": 90},
        node("/encoder/stem/Conv", "FusedConv", 110),
        {"cat": "Session", "name": "model_run", "ts": 1000, "dur": 100},
        node("/encoder/stem/Conv", "FusedConv", 1010, output_size="4096", parameter_size="256"),
        node("", "Softmax", 1050),
        {"cat": "Node", "name": "/encoder/stem/Conv_fence_before", "ts": 1005, "dur": 1, "args": {}},
    ]
    stem, softmax = onnx_events(events)
    assert (stem.name, stem.kind, stem.output_bytes, stem.weight_bytes) == (
        "encoder.stem",
        "convolution and activation in one",
        4096,
        256,
    )
    assert (stem.start, stem.seconds) == (pytest.approx(10e-6), pytest.approx(40e-6))
    assert (softmax.name, softmax.kind) == ("the graph", "softmax")


@pytest.mark.parametrize(
    ("suffix", "runtime"), [(".onnx", "ONNX Runtime"), (".xml", "OpenVINO"), (".pt2", "torch.export")]
)
def test_exported_files_have_layers_too(model, tmp_path, suffix, runtime, monkeypatch):
    monkeypatch.setattr("pixelwise.exporting.samples.COUNT", 1)
    monkeypatch.setattr("pixelwise.exporting.samples.SIDE", 64)
    # Sizes are tensors while torch traces.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        file = pw.export(model, tmp_path / f"model{suffix}", size=(64, 64)).path
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    network = pw.load(file).model
    found = watch(network, lambda: network.logits(np.zeros((1, 3, 64, 64), np.float32)), 1)
    assert found.runtime.startswith(f"{runtime} ")
    assert any("encoder" in layer.name and "convolution" in layer.kind for layer in found.layers)
    assert all(layer.seconds >= 0 for layer in found.layers)


def test_the_command_prints_stages_and_layers_and_writes_json_and_a_trace(model, tmp_path):
    figures, trace = tmp_path / "profile.json", tmp_path / "trace.json"
    arguments = ["profile", str(model), "--layers", "2", "--repeats", "1"]
    arguments += ["--json", str(figures), "--trace", str(trace)]
    done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    for word in ("decode", "network", "decide", "rest", "others", "convolution"):
        assert word in done.output
    told = json.loads(figures.read_text())
    assert (told["height"], told["width"], told["tiles"]) == (96, 96, 4)
    assert sum(stage["seconds"] for stage in told["stages"]) + told["rest_seconds"] == pytest.approx(
        told["wall_seconds"]
    )
    assert abs(told["rest_seconds"]) <= 1e-6
    assert {stage["name"]: stage["calls"] for stage in told["stages"]}["network"] == told["tiles"]
    assert len(told["layers"]) > 2
    assert any(event["ph"] == "X" for event in json.loads(trace.read_text())["traceEvents"])
    # What pixelwise wrote is written again, and nothing else.
    assert CliRunner().invoke(commands, arguments).exit_code == 0
    figures.write_text('{"mine": 1}')
    refused = CliRunner().invoke(commands, arguments)
    assert isinstance(refused.exception, pw.ConfigError)
    assert "decode" not in refused.output, "it is refused before the work"
    assert json.loads(figures.read_text()) == {"mine": 1}
    same = CliRunner().invoke(commands, ["profile", str(model), "--json", str(trace), "--trace", str(trace)])
    assert (same.exit_code, "name the same file" in same.output) == (2, True)


def test_names_of_classes_and_kernels_become_words():
    assert in_words("FusedConvolution") == "convolution, norm and activation in one"
    assert in_words("MyOwnBlock") == "my own block"
    assert in_words("") == "an operation"
    assert onnx.defs.has("FusedConv") is False
