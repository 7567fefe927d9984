"""Exported files, opened: each runtime takes an image and gives what the file gives, as arrays by name."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Shaped

from pixelwise.errors import ConfigError, PixelwiseError, WeightsError
from pixelwise.optional import optional_module, torch_needed
from pixelwise.threads import thread_count, threads_of_process

Arrays = dict[str, np.ndarray]
SUFFIXES = (".onnx", ".xml", ".pt2")
"""Of the files that `open_runtime` opens."""

SIZES = 4
"""Of images that OpenVINO compiles a file for, each alone. One for all sizes takes the others, and is slower: for
SegFormer-B0 it took 1.7 times as long."""
KEPT = 16
"""Most that is kept compiled of a file."""
AT_ONCE = 8
"""Most images that OpenVINO computes at the same time."""
WEIGHTS = "weights_sha256"
"""In the metadata of OpenVINO's files: the SHA-256 of the weights beside."""

SETTINGS = {"CPU": {"SNIPPETS_MODE": "DISABLE", "ENABLE_CPU_PINNING": False}}
"""Of OpenVINO, by device. Its snippets keep what they chose for small images and use it on larger ones: 2026.4.1 then
gave SegFormer's logits 0.2 to 5 % off (`docs/export.md`). A thread that is pinned to a core waits there for a neighbour
(`docs/profile.md`)."""


@runtime_checkable
class Runtime(Protocol):
    """An exported file, opened."""

    metadata: Mapping[str, str]
    shape: tuple[int | None, ...]
    """Of the image that it takes; None where any size will do."""
    version: str
    """Name and version of the runtime."""

    def run(self, image: Shaped[np.ndarray, "B _ _ _"]) -> Arrays:
        """Return all outputs by name. Several threads may call it at the same time."""
        ...


def open_runtime(path: Path, device: str = "auto") -> Runtime:
    """Open a file with the runtime that its suffix names.

    Raises:
        MissingExtraError: the runtime is not installed.
        WeightsError: a damaged file, or none.
        ConfigError: a device that the runtime does not have.
    """
    if not path.is_file():
        raise WeightsError(f"There is no file {path}. Name an exported model, or the folder of a run.", code="PW509")
    kinds: dict[str, Callable[[Path, str], Runtime]] = {".onnx": OnnxFile, ".xml": OpenVinoFile, ".pt2": _torch_program}
    return kinds[path.suffix.lower()](path, device)


def _torch_program(path: Path, device: str) -> Runtime:
    with torch_needed("A .pt2 file"):
        from pixelwise.exported.torch_program import TorchProgram

    return TorchProgram(path, device)


@dataclass
class Files:
    """A file, and the one that belongs to it; as bytes once it has travelled to another machine."""

    paths: tuple[Path, ...]
    contents: tuple[bytes, ...] | None = None

    def read(self) -> tuple[bytes, ...]:
        """Return what is in them."""
        return self.contents or tuple(path.read_bytes() for path in self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "contents": self.read()}


@dataclass
class _Made:
    """What was made for a number of threads, and what else it is for, one of each; at most `KEPT`."""

    make: Callable[..., Any]
    made: dict[tuple, Any] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def get(self, *key: Any) -> Any:
        with self.lock:
            # The one that was used last stands last.
            self.made[key] = self.made.pop(key) if key in self.made else self.make(*key)
            while len(self.made) > KEPT:
                del self.made[next(iter(self.made))]
            return self.made[key]


class OnnxFile:
    """A file run by ONNX Runtime."""

    def __init__(self, path: Path, device: str = "auto", files: Files | None = None) -> None:
        self.path, self.device, self.files = path, device, files or Files((path,))
        self.runtime = optional_module("onnxruntime")
        self.version = f"onnxruntime {self.runtime.__version__}"
        self.providers = _onnx_providers(self.runtime, device)
        self.sessions = _Made(self._session)
        session = self.sessions.get(thread_count())
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        foreign, inputs = "pixelwise" not in self.metadata, session.get_inputs()
        _require_one_image(path, len(inputs), len(inputs[0].shape) if inputs else 0)
        if foreign:
            _require_floats(path, inputs[0].type.removeprefix("tensor(").removesuffix(")"), "float")
        self.shape = tuple(side if isinstance(side, int) else None for side in inputs[0].shape)
        self.input, self.names = inputs[0].name, [output.name for output in session.get_outputs()]
        self.outputs = self.names
        if foreign:
            # Of other programs' files, whose first output has any name, unless one is called so.
            self.outputs = ["logits"] if "logits" in self.names else self.names[:1]
            self.names = ["logits"]

    def _session(self, threads: int) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A thread that waits busily keeps others' cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        return self.opened(options)

    def opened(self, options: Any) -> Any:
        """Return a session of the runtime."""
        # Weights of other programs' files may lie beside them, which the runtime finds by the path.
        model = str(self.path) if self.files.contents is None else self.files.contents[0]
        with damage_named(self.path):
            return self.runtime.InferenceSession(model, options, providers=self.providers)

    def run(self, image: Shaped[np.ndarray, "B _ _ _"]) -> Arrays:
        """Return all outputs by name."""
        return dict(
            zip(self.names, self.sessions.get(thread_count()).run(self.outputs, {self.input: image}), strict=True)
        )

    def __reduce__(self) -> tuple:
        return OnnxFile, (self.path, self.device, self.files)


class OpenVinoFile:
    """A file run by OpenVINO; its weights lie beside it in NAME.bin."""

    def __init__(self, path: Path, device: str = "auto", files: Files | None = None) -> None:
        self.path, self.device, self.files = path, device, files or Files((path, path.with_suffix(".bin")))
        self.runtime = optional_module("openvino")
        self.core, self.version = self.runtime.Core(), f"openvino {self.runtime.__version__}"
        kind = "CPU" if device in ("auto", "cpu") else device.upper()
        if kind not in self.core.available_devices:
            raise ConfigError(
                f"OpenVINO has no device {device!r} here; it has {', '.join(self.core.available_devices)}.",
                code="PW314",
            )
        if files is None and not path.with_suffix(".bin").is_file():
            raise WeightsError(
                f"{path.with_suffix('.bin')} is missing. It belongs to {path}: keep both together.", code="PW501"
            )
        graph, weights = self.files.read()
        with damage_named(path):
            self.model = self.core.read_model(graph, weights)
        self.kind = kind
        self.compiled, self._sizes = _Made(self._compiled), set[tuple[int, ...]]()
        told = self.model.get_rt_info()
        with damage_named(path):
            self.metadata: Mapping[str, str] = _openvino_metadata(self.model) if "pixelwise" in told else {}
        if self.metadata.get(WEIGHTS, "") not in ("", sha256(weights).hexdigest()):
            raise WeightsError(
                f"{path.with_suffix('.bin')} is not the file that {path} was written with: one of the two was replaced "
                "or is damaged. Copy both again, or export the model again.",
                code="PW502",
            )
        inputs = self.model.inputs
        axes = inputs[0].get_partial_shape() if inputs else None
        _require_one_image(path, len(inputs), 0 if axes is None or axes.rank.is_dynamic else len(axes))
        assert axes is not None
        if not self.metadata:
            _require_floats(path, inputs[0].get_element_type().get_type_name(), "f32")
        self.shape = tuple(side.get_length() if side.is_static else None for side in axes)
        self.names = [output.get_any_name() for output in self.model.outputs] if self.metadata else ["logits"]

    def _compiled(self, threads: int, size: tuple[int, ...] | None) -> Any:
        model = self.model
        if size is not None:
            model = model.clone()
            model.reshape(size)
        with damage_named(self.path):
            return self.core.compile_model(model, self.kind, self.settings(threads))

    def fitting(self, shape: tuple[int, ...]) -> Any:
        """Return the file compiled for images of a shape, or for all."""
        threads = thread_count()
        if None in self.shape and self._alone(shape):
            # Where it takes no such image, the one for all says so.
            with suppress(RuntimeError):
                return self.compiled.get(threads, shape)
        return self.compiled.get(threads, None)

    def _alone(self, shape: tuple[int, ...]) -> bool:
        """Return whether a file of any size is compiled for this one: the first `SIZES` are."""
        # In eight bits, 2026.4.1 computes wrong logits of a U-Net that is compiled for all sizes (`docs/export.md`).
        if self.metadata.get("precision") == "int8":
            return True
        if len(self._sizes) < SIZES:
            self._sizes.add(shape)
        return shape in self._sizes

    def settings(self, threads: int) -> dict[str, Any]:
        """Return what OpenVINO is told when it compiles the file.

        Args:
            threads: of an image. The other cores are for images at the same time.
        """
        at_once = max(1, min(AT_ONCE, threads_of_process() // threads)) if self.kind == "CPU" else 1
        chosen = {"INFERENCE_PRECISION_HINT": self._arithmetic(), "INFERENCE_NUM_THREADS": at_once * threads}
        return chosen | {"NUM_STREAMS": at_once} | SETTINGS.get(self.kind, {})

    def _arithmetic(self) -> str:
        """Return what it computes in: half precision for files of that alone, where the device has it.

        Half precision, the default on some processors, would be another network than the one that was checked.
        """
        half = {"float16": ("FP16", "f16"), "bfloat16": ("BF16", "bf16")}
        wanted, name = half.get(self.metadata.get("precision", ""), ("", "f32"))
        able = self.core.get_property(self.kind, "OPTIMIZATION_CAPABILITIES")
        return name if wanted in able else "f32"

    def run(self, image: Shaped[np.ndarray, "B _ _ _"]) -> Arrays:
        """Return all outputs by name."""
        found = self.fitting(image.shape).create_infer_request().infer([image])
        # The arrays are the request's own memory.
        return {name: np.array(array) for name, array in zip(self.names, found.values(), strict=False)}

    def __reduce__(self) -> tuple:
        return OpenVinoFile, (self.path, self.device, self.files)


def _require_one_image(path: Path, inputs: int, axes: int) -> None:
    if inputs != 1 or axes != 4:
        raise WeightsError(
            f"{path} takes {inputs} inputs{f', the first with {axes} axes' if axes else ''}, but a model of images "
            "takes one, with four axes.",
            code="PW513",
        )


def _require_floats(path: Path, given: str, wanted: str) -> None:
    if given != wanted:
        raise WeightsError(
            f"{path} takes an image of {given}, and prediction gives normalised images of float32. Export it with a "
            "float32 input.",
            code="PW513",
        )


def _onnx_providers(runtime: Any, device: str) -> list[Any]:
    available, gpu = runtime.get_available_providers(), "CUDAExecutionProvider"
    kind, _, number = device.partition(":")
    known = device in ("auto", "cpu") or (kind == "cuda" and (not number or number.isdecimal()))
    if not known or (kind == "cuda" and gpu not in available):
        advice = "Install onnxruntime-gpu, or take --device cpu" if known else "Take --device cpu, cuda or cuda:1"
        raise ConfigError(f"ONNX Runtime has no device {device!r} here. {advice}.", code="PW314")
    if device == "cpu" or gpu not in available:
        return ["CPUExecutionProvider"]
    return [(gpu, {"device_id": int(number)}) if number else gpu, "CPUExecutionProvider"]


def _openvino_metadata(model: Any) -> dict[str, str]:
    told = json.loads(model.get_rt_info(["pixelwise", "metadata"]).astype(str))
    return {key: value for key, value in told.items() if isinstance(value, str)}


@contextmanager
def damage_named(path: Path, hint: str = "") -> Iterator[None]:
    """Turn a runtime's own error about a file into a sentence.

    Args:
        hint: a sentence about what may be the cause.
    """
    try:
        yield
    except (PixelwiseError, MemoryError):
        raise
    except Exception as error:  # each runtime has errors of its own
        raise WeightsError(
            f"{path} is damaged, or no model that its runtime can run ({reason_of(error)}). {hint}Export it again.",
            code="PW502",
        ) from None


def reason_of(error: Exception) -> str:
    """Return what a runtime says, in a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200].rstrip(". ")
