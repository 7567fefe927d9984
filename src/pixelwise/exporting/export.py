"""From a run or a model folder to a file of another runtime, with its certificate."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelwise import __version__
from pixelwise.errors import ConfigError, PixelwiseError, out_of_memory
from pixelwise.exported.about import KEY, About, as_given, metadata_of
from pixelwise.exported.options import RUNTIMES, ExportOptions
from pixelwise.exported.runtimes import Arrays, open_runtime
from pixelwise.exporting.calibration import judged_samples
from pixelwise.exporting.certificate import DIFFERENCE, EQUAL_LABELS, Certificate, certify
from pixelwise.exporting.lowered import IMAGES, Lowering, Trial, lowered, require_precision
from pixelwise.exporting.network import ExportedNetwork, Stages
from pixelwise.exporting.onnx import onnx_graph, save_onnx
from pixelwise.exporting.openvino import save_openvino
from pixelwise.exporting.outputs import require_own, write_certificate
from pixelwise.exporting.samples import Sample, Samples, find_samples
from pixelwise.exporting.torch_program import machine_code, save_torch_program, torch_program
from pixelwise.exporting.transformers import export_transformers
from pixelwise.files import file_digest, replacing
from pixelwise.hub.licences import Origin
from pixelwise.inference.augmented import output_stride
from pixelwise.models import Segmenter
from pixelwise.optional import optional_module
from pixelwise.runs.model_folder import ModelCard, load_model

EXAMPLE = (127, 129)
"""Height and width of the image that is traced: odd at each halving, whichever way sizes are rounded, so that no
network takes a shortcut for it."""
ONE_SIZE = {
    "hmsa": "it looks at the image in several sizes, and a recorded graph keeps those of the image it was recorded with"
}
"""Networks that take no images of other sizes once they are recorded, and why."""
UNCHECKED = {KEY: "{}"}
"""Metadata of a file that is not checked yet: its outputs have the names that they were given."""
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""What runs a file that is not torch's own."""


@dataclass(frozen=True)
class Exported:
    """A file, and the proof that it answers as the network does."""

    path: Path
    certificate: Certificate
    origins: tuple[Origin, ...] = ()
    """Weights of others that the model descends from, whose licences bind the file too."""


def export(
    run: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    outputs: Sequence[str] = ("logits",),
    dtype: str = "float32",
    layout: str = "nchw",
    size: tuple[int, int] | None = None,
    purpose: str | None = None,
    resolution: float | None = None,
    options: Mapping[str, object] | None = None,
    precision: str = "float32",
    calibration: str | Path | None = None,
    calibration_images: int = IMAGES,
    keep_float: Sequence[str] = (),
    allow: bool = False,
    compile: bool = False,
    report: Callable[[str], None] | None = None,
) -> Exported:
    """Write a run's best model for another runtime, and prove that it answers alike.

    The file takes raw units; normalisation and padding are inside. It is run before it gets its name, and left out if
    it differs. The certificate is in its metadata too, and in ``certificate.json`` beside it.

    Args:
        run: a run or a model folder.
        out: a file that ends in .onnx, .xml (OpenVINO) or .pt2 (torch); for transformers a folder.
        to: 'onnx', 'openvino', 'torch' or 'transformers'; None: by the name of ``out``.
        outputs, dtype, layout, size, resolution: as in `ExportOptions`.
        purpose: 'deepness', for QGIS's plugin of that name; ONNX alone.
        options: the paper's options for inference, such as ``{"output_stride": 8}``.
        precision: one of `PRECISIONS`; but for float32, the certificate says what it costs.
        calibration, calibration_images, keep_float, allow: as in `Lowering`.
        compile: for torch, machine code for this processor, which takes minutes to make.
        report: called with a sentence about each try of a lower precision.

    Raises:
        ConfigError: an option that does not work, or an output that cannot be written.
        WeightsError: no model there, or options that the weights do not fit.
        MissingExtraError: the runtime is not installed.
        PixelwiseError: the file answers otherwise than the network; or a lower precision costs more than a point of
            mIoU.
    """
    out, run = Path(out), Path(run)
    kind = _kind(out, to)
    if purpose not in (None, "deepness"):
        raise ConfigError(f"No file is made for {purpose!r}. The only purpose with a form of its own is 'deepness'.")
    if compile and kind != "torch":
        raise ConfigError(f"Only programs of torch (.pt2) are compiled, and this is an export to {kind}.")
    asked = ExportOptions(tuple(outputs), dtype, layout, size, purpose == "deepness", resolution, precision, compile)
    how = Lowering(calibration_images, None if calibration is None else Path(calibration), tuple(keep_float), allow)
    say = report or (lambda sentence: None)
    return _written(kind, run, out, asked, how, options, say)


def _written(
    kind: str,
    run: Path,
    out: Path,
    asked: ExportOptions,
    how: Lowering,
    options: Mapping[str, object] | None,
    say: Callable[[str], None],
) -> Exported:
    """Write the file and its certificate."""
    model, card, model_hash = load_model(run, options=options)
    origins = card.origins or ()
    if kind == "transformers":
        samples = find_samples(run, card, None)
        return Exported(out, export_transformers(model, card, out, asked, samples, model_hash), origins)
    require_own(out, out.with_suffix(".bin") if kind == "openvino" else None)
    asked = _fitting(kind, asked, model, card)
    samples = (find_samples if asked.precision == "float32" else judged_samples)(run, card, asked.size)
    if asked.resolution is None:
        learned = None if card.contract is None else card.contract.pixel
        asked = replace(asked, resolution=samples.resolution or learned)
    about = About(card, model_hash, asked, output_stride(model), model.multiple, model.align_corners)
    require_precision(kind, about, how)
    network = ExportedNetwork(model, about).eval()
    recorded = _recorded(kind, network, about, asked.outputs)
    with _replaced(kind, out) as temporary:
        trial = _trial(kind, temporary, model, about, samples)
        if asked.precision == "float32":
            trial.save(recorded)
            certificate = trial.certify()
        else:
            recorded, certificate = lowered(kind, recorded, about, run, how, trial, say)
        if not certificate.sound:
            begins = _beginning(kind, network, about, samples.images, certificate)
            raise PixelwiseError(_refusal(out, certificate, about, begins), code="PW701")
        about = replace(about, smallest_side=certificate.smallest_side)
        _save(kind, recorded, temporary, metadata_of(about, certificate.to_dict()), about)
    told = {**certificate.to_dict(), "sha256": file_digest(out), "model_sha256": model_hash}
    write_certificate(out, told)
    return Exported(out, certificate, origins)


def _trial(kind: str, path: Path, model: Segmenter, about: About, samples: Samples) -> Trial:
    """Return what writes graphs to a file that has no name yet, and compares it with the network."""
    known = dict[int, Arrays]()

    def save(graph: Any) -> int:
        _save(kind, graph, path, {**UNCHECKED, "precision": about.options.precision}, about)
        return sum(each.stat().st_size for each in (path, path.with_suffix(".bin")) if each.exists())

    def certified() -> Certificate:
        opened, made_by = open_runtime(path, "cpu"), f"pixelwise {__version__}"
        return certify(
            opened.run,
            model,
            about,
            samples,
            runtime=_versions(kind, about.options.compiled),
            made_by=made_by,
            known=known,
        )

    return Trial(save, certified)


def _kind(out: Path, to: str | None) -> str:
    """Return what to export to, and check that the output's name fits it."""
    by_name = {suffix: kind for kind, suffix in RUNTIMES.items() if suffix}
    kind = by_name.get(out.suffix.lower()) if to is None else to
    if kind is None:
        raise ConfigError(
            f"{out} does not tell what to export to. Give --to {', '.join(RUNTIMES)}, or a name that ends in "
            f"{', '.join(by_name)}.",
            code="PW804",
        )
    if kind not in RUNTIMES:
        raise ConfigError(f"There is no export to {kind!r}. There are {', '.join(RUNTIMES)}.", code="PW700")
    if RUNTIMES[kind] and out.suffix.lower() != RUNTIMES[kind]:
        raise ConfigError(f"{out}: an export to {kind} is a file that ends in {RUNTIMES[kind]}.", code="PW804")
    if kind != "transformers" and out.is_dir():
        raise ConfigError(
            f"{out} is a folder. Give the name of a file, such as {out / 'model'}{RUNTIMES[kind]}.", code="PW804"
        )
    return kind


def _fitting(kind: str, asked: ExportOptions, model: Segmenter, card: ModelCard) -> ExportOptions:
    """Return the options, with the tile as the size for Deepness; and check that the network can be exported so.

    Raises:
        ConfigError: it cannot.
    """
    holds = {"float32": True, "uint8": card.dtype == "uint8", "uint16": card.dtype in ("uint8", "uint16")}
    if not holds[asked.dtype]:
        raise ConfigError(
            f"The model was trained on {card.dtype} values, which {asked.dtype} does not hold. Take float32.",
            code="PW700",
        )
    if asked.deepness:
        if kind != "onnx" or card.dtype != "uint8":
            raise ConfigError(
                "Deepness runs ONNX files on 8-bit images alone: it divides them by 255. "
                f"This is an export to {kind} of a model of {card.dtype} values.",
                code="PW700",
            )
        side = card.tile if asked.size is None else asked.size[0]
        if asked.size is not None and asked.size != (side, side):
            raise ConfigError(f"Deepness gives square tiles, not {asked.size[0]} x {asked.size[1]}.")
        return replace(asked, size=(side, side))
    name = model.architecture.name
    if asked.size is None and name in ONE_SIZE:
        raise ConfigError(
            f"{name} cannot be exported for images of all sizes: {ONE_SIZE[name]}. Give the size that all images will "
            f"have, such as --size {card.tile} {card.tile}.",
            code="PW700",
        )
    return asked


def _recorded(kind: str, network: torch.nn.Module, about: About, names: Sequence[str]) -> Any:
    """Record a network for a runtime."""
    options, bands = about.options, len(about.card.bands)
    height, width = options.size or EXAMPLE
    shape = (bands, height, width) if options.layout == "nchw" else (height, width, bands)
    # torch.export takes a batch of one for one that is always one.
    batch = 2 if kind == "torch" else 1
    # The older exporter does not know 16-bit integers without a sign; it is told of them in the graph.
    dtype = torch.int32 if kind != "torch" and options.dtype == "uint16" else getattr(torch, options.dtype)
    example = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (batch, *shape))).to(dtype)
    try:
        if kind != "torch":
            return onnx_graph(network, example, names, options)
        program = torch_program(network, example, options)
    except PixelwiseError:
        raise
    except Exception as error:  # of torch's exporters, which have many
        if out_of_memory(error):
            raise
        raise PixelwiseError(_unrecorded(kind, about, error), code="PW701") from None
    return machine_code(program) if options.compiled else program


def _unrecorded(kind: str, about: About, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    size, tile = about.options.size, about.card.tile
    given = "images of any size" if size is None else f"images of {size[0]} x {size[1]} pixels"
    advice = (
        f"Give the size that all will have, such as --size {tile} {tile}" if size is None else "Give a larger --size"
    )
    others = ".onnx or .xml" if kind == "torch" else ".pt2"
    return (
        f"{about.card.architecture.name} cannot be exported to {kind} for {given}: torch's exporter fails ({reason}). "
        f"{advice}, or export to {others}."
    )


def _save(kind: str, recorded: Any, path: Path, metadata: Mapping[str, str], about: About) -> None:
    options = about.options
    if kind == "torch":
        bands, (height, width) = len(about.card.bands), options.size or (None, None)
        shape = (None, bands, height, width) if options.layout == "nchw" else (None, height, width, bands)
        save_torch_program(recorded, path, metadata, names=options.outputs, shape=shape)
    elif kind == "openvino":
        save_openvino(recorded, path, metadata)
    else:
        save_onnx(recorded, path, metadata)


@contextmanager
def _replaced(kind: str, out: Path) -> Iterator[Path]:
    """Give a temporary file, which gets its name when the block succeeds; OpenVINO's weights get theirs after it.

    Between the two, the graph tells that the weights are not its own.
    """
    if kind != "openvino":
        with replacing(out) as temporary:
            yield temporary
        return
    with replacing(out.with_suffix(".bin")) as weights, replacing(out) as graph:
        beside = graph.with_suffix(".bin")
        try:
            yield graph
            os.replace(beside, weights)
        finally:
            beside.unlink(missing_ok=True)


def _versions(kind: str, compiled: bool) -> str:
    if kind == "torch":
        return f"torch {torch.__version__}{', compiled by AOTInductor' if compiled else ''}"
    return f"{PACKAGES[kind]} {optional_module(PACKAGES[kind]).__version__}"


@torch.no_grad()
def _beginning(
    kind: str, network: ExportedNetwork, about: About, images: Sequence[Sample], certificate: Certificate
) -> str:
    """Return a sentence that says where a file begins to differ from the network."""
    worst = certificate.worst()
    if worst.error:
        return f"The runtime fails: {worst.error}."
    image = images[0].values[:, : worst.height, : worst.width]
    given = as_given(np.stack([image] * worst.batch), about)
    wanted = network.stages(torch.from_numpy(given.astype(np.float32)))
    names = [f"stage {i}" for i in range(len(wanted))]
    steps = replace(about, options=replace(about.options, outputs=("logits",), compiled=False))
    try:
        recorded = _recorded(kind, Stages(network).eval(), steps, names)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"stages{RUNTIMES[kind]}"
            if kind == "torch":
                save_torch_program(recorded, path, UNCHECKED, names=names, shape=(None,) * 4)
            else:
                _save(kind, recorded, path, UNCHECKED, steps)
            found = open_runtime(path, "cpu").run(given)
    except Exception as error:  # of the exporter or the runtime; the file is refused anyway
        return f"Where it begins could not be found ({str(error)[:100]})."
    for name, (stage, tensor) in zip(names, wanted.items(), strict=True):
        right = tensor.numpy()
        if found[name].shape != right.shape:
            return f"It begins at {stage}, of the shape {list(found[name].shape)} instead of {list(right.shape)}."
        apart = float(np.abs(found[name] - right).max())
        if not apart <= DIFFERENCE * float(np.abs(right).max()):
            return f"It begins at {stage}, which differs by {apart:.3g} of at most {float(np.abs(right).max()):.3g}."
    return (
        "All stages up to the logits agree when each is asked for. So the runtime goes wrong where it merges "
        "operations, or in what follows the logits."
    )


def _refusal(out: Path, certificate: Certificate, about: About, begins: str) -> str:
    worst, name = certificate.worst(), about.card.architecture.name
    advice = (
        f" Give the size that all images will have, such as --size {about.card.tile} {about.card.tile}."
        if about.options.size is None
        else " Export to another runtime, and report this."
    )
    return (
        f"{out} is not written: it would answer otherwise than {name} does. On {worst.batch} image(s) of {worst.height}"
        f" x {worst.width} pixels the largest difference is {worst.difference:.3g} of {worst.largest:.3g} (allowed: "
        f"{DIFFERENCE:g} of it), and {certificate.equal_labels:.4%} of all labels are equal (allowed: at least "
        f"{EQUAL_LABELS:.2%}). {begins}{advice}"
    )
