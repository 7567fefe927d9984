"""The counters of runtimes that are not torch's own: ONNX Runtime's profiler and OpenVINO's."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.exported.runtimes import OnnxFile, OpenVinoFile
from pixelwise.exporting.layers import module_of
from pixelwise.profiling.timeline import Call
from pixelwise.profiling.words import in_words
from pixelwise.threads import thread_count

Counted = Callable[[], list[Call]]
"""Runs a file once, and returns what its parts took."""


def onnx_calls(file: OnnxFile, image: np.ndarray) -> Counted:
    """Return a function that runs a file with ONNX Runtime's profiler."""

    def run() -> list[Call]:
        runtime = file.runtime
        with tempfile.TemporaryDirectory() as folder:
            options = runtime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = thread_count(), 1
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 4
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
            session = file.opened(options)
            for _ in range(2):
                session.run(file.outputs, {file.input: image})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return onnx_events(events)

    return run


def onnx_events(events: list[dict[str, Any]]) -> list[Call]:
    """Return the calls of the last run in a profile of ONNX Runtime, whose times are microseconds."""
    began = max(event["ts"] for event in events if event.get("name") == "model_run")
    calls = list[Call]()
    for event in events:
        if event.get("cat") != "Node" or event["ts"] < began or not event["name"].endswith("_kernel_time"):
            continue
        told, node = event.get("args", {}), event["name"].removesuffix("_kernel_time")
        seconds = event["dur"] / 1e6
        calls.append(
            Call(
                module_of(node) or "the graph",
                in_words(told.get("op_name", "")),
                (event["ts"] - began) / 1e6,
                seconds,
                seconds,
                _number(told.get("output_size")),
                _number(told.get("parameter_size")),
            )
        )
    return calls


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, int | str) and str(text).isdigit() else None


def openvino_calls(file: OpenVinoFile, image: np.ndarray) -> Counted:
    """Return a function that runs a file with OpenVINO's counters, which say how long and not when."""
    settings = {**file.settings(thread_count()), "PERF_COUNT": True}
    model = file.model.clone()
    model.reshape(image.shape)
    compiled = file.core.compile_model(model, file.kind, settings)
    request = compiled.create_infer_request()
    request.infer([image])

    def run() -> list[Call]:
        request.infer([image])
        calls, start = list[Call](), 0.0
        for each in request.get_profiling_info():
            seconds = each.real_time.total_seconds()
            if seconds > 0:
                kind = f"{in_words(each.node_type)} ({each.exec_type})" if each.exec_type else in_words(each.node_type)
                name = module_of(each.node_name.removesuffix("/WithoutBiases")) or "the graph"
                calls.append(Call(name, kind, start, seconds, seconds))
                start += seconds
        return calls

    return run
