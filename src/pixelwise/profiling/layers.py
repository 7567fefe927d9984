"""What each layer of a network takes: by hooks in torch, and by the runtimes' own counters in exported files."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pixelwise.exported.network_file import NetworkFile
from pixelwise.exported.runtimes import OnnxFile, OpenVinoFile
from pixelwise.inference.networks import Network, arithmetic_of
from pixelwise.profiling.counters import Counted, onnx_calls, openvino_calls
from pixelwise.profiling.timeline import Call

Run = Callable[[], object]


@dataclass(frozen=True)
class LayerTime:
    """A layer, the mean of several runs."""

    name: str
    kind: str
    seconds: float
    """Of its own, without the layers inside it."""
    calls: int
    """In a run."""
    output_bytes: int | None
    """Memory of its answer; None where the runtime does not say."""
    weight_bytes: int | None


@dataclass(frozen=True)
class Watched:
    """A network, run several times on a tile."""

    runtime: str
    seconds: float
    """Of a run that nobody watched: the median."""
    watched_seconds: float
    """Of a run with the clocks of all layers: the median."""
    layers: tuple[LayerTime, ...]
    """The slowest first."""
    calls: tuple[Call, ...]
    """Of the last run, in order."""


def watch(model: Network, run: Run, repeats: int) -> Watched:
    """Run a network alone and watched, in turns.

    Args:
        run: runs the network on a tile.
        repeats: runs of each kind, after one to get warm.
    """
    name, counted = _way(model, run)
    alone, watched, found = list[float](), list[float](), list[list[Call]]()
    run()
    counted()
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        alone.append(time.perf_counter() - start)
        found.append(counted())
        watched.append(max((call.start + call.seconds for call in found[-1]), default=0.0))
    middle = statistics.median
    return Watched(name, middle(alone), middle(watched), _layers(found), tuple(found[-1]))


def _layers(runs: Sequence[Sequence[Call]]) -> tuple[LayerTime, ...]:
    by_name: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for calls in runs:
        for call in calls:
            by_name[call.name, call.kind].append(call)
    found = [
        LayerTime(
            name,
            kind,
            sum(call.own for call in calls) / len(runs),
            max(1, round(len(calls) / len(runs))),
            max((call.output_bytes for call in calls if call.output_bytes is not None), default=None),
            max((call.weight_bytes for call in calls if call.weight_bytes is not None), default=None),
        )
        for (name, kind), calls in by_name.items()
    ]
    return tuple(sorted(found, key=lambda layer: -layer.seconds))


def _way(model: Network, run: Run) -> tuple[str, Counted]:
    """Return the runtime's name, and what runs the network once and counts."""
    if not isinstance(model, NetworkFile):
        from pixelwise.models import Segmenter
        from pixelwise.profiling.torch_clocks import module_calls

        assert isinstance(model, Segmenter)
        return f"torch {arithmetic_of(model).version_of(model)['torch']}", module_calls(model, run)
    runtime = model.runtime
    image = _given_to(model, run)
    if isinstance(runtime, OnnxFile):
        return f"ONNX Runtime {runtime.runtime.__version__}", onnx_calls(runtime, image)
    if isinstance(runtime, OpenVinoFile):
        return f"OpenVINO {runtime.runtime.__version__.split('-')[0]}", openvino_calls(runtime, image)
    from pixelwise.exported.torch_program import TorchProgram
    from pixelwise.profiling.torch_clocks import program_calls

    assert isinstance(runtime, TorchProgram)
    return runtime.version.replace("torch", "torch.export"), program_calls(runtime, image)


def _given_to(model: NetworkFile, run: Run) -> np.ndarray:
    """Return the array that a file's runtime gets in a run."""
    seen, own = list[np.ndarray](), model.runtime

    class Listening:
        metadata, shape, version = own.metadata, own.shape, own.version

        def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
            seen.append(image)
            return own.run(image)

    model.runtime = Listening()
    try:
        run()
    finally:
        model.runtime = own
    return seen[0]
