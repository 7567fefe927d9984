"""A graph in a lower precision, and what that costs: layers that cost too much stay float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.exported.about import About, as_given
from pixelwise.exporting.calibration import calibration_crops
from pixelwise.exporting.certificate import EQUAL_LABELS_LOWERED, LOSS, Certificate, Lowered
from pixelwise.exporting.half import float16_onnx, half_openvino, has_bfloat16
from pixelwise.exporting.layers import Kept, Layers, chosen, joined, ladder, layers_of
from pixelwise.exporting.quantize import folded, quantized_onnx, quantized_openvino
from pixelwise.machine import instructions

AIM = 0.005
"""Loss of mIoU, 0 to 1, below which no further layer is kept in float32."""
IMAGES = 64
"""Crops that int8 is calibrated on."""


@dataclass(frozen=True)
class Trial:
    """Tries a graph."""

    save: Callable[[Any], int]
    """Writes it, and returns the bytes that it takes."""
    certify: Callable[[], Certificate]
    """Runs what was written beside the network."""


@dataclass(frozen=True)
class Lowering:
    """How a lower precision is reached.

    Raises:
        ConfigError: a number of images below 1.
    """

    images: int = IMAGES
    """Crops for calibration."""
    calibration: Path | None = None
    """A folder of images to calibrate on; None: the run's training part."""
    keep_float: tuple[str, ...] = ()
    """Patterns of layers that stay float32, such as ``decoder*``; none: as few as the loss asks for."""
    allow: bool = False
    """Take any loss."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ConfigError(f"Calibration needs at least one crop, not {self.images}.", code="PW703")


def require_precision(kind: str, about: About, how: Lowering) -> None:
    """Check that a runtime has a precision, that its loss can be told, and that the options are for it.

    Raises:
        ConfigError: one of these is not so.
    """
    precision, outputs = about.options.precision, about.options.outputs
    if precision != "int8" and how != Lowering(allow=how.allow):
        raise ConfigError(
            f"Calibration and layers that stay float32 are for int8, not for {precision}. Leave them out.", code="PW700"
        )
    if precision == "float32":
        return
    if kind not in ("onnx", "openvino"):
        raise ConfigError(
            f"A file for {kind} is float32 alone. Export to onnx or openvino for {precision}.", code="PW700"
        )
    if precision == "bfloat16" and kind == "onnx":
        raise ConfigError(
            "ONNX Runtime has no bfloat16 on processors. Take float16 or int8, or export to openvino (.xml).",
            code="PW700",
        )
    if precision == "bfloat16" and not has_bfloat16():
        raise ConfigError(
            "This processor has no bfloat16 (AVX512_BF16 or AMX), so the file could not be tried here. Take float16 or "
            "int8.",
            code="PW700",
        )
    if outputs == ("confidence",):
        raise ConfigError(
            f"What {precision} costs is told by labels, and confidence alone has none. Ask for labels or logits too.",
            code="PW700",
        )


def lowered(
    kind: str, graph: Any, about: About, run: Path, how: Lowering, trial: Trial, say: Callable[[str], None]
) -> tuple[Any, Certificate]:
    """Return a graph in the precision that the options name, with its certificate.

    Layers are kept in float32 step by step (`ladder`) until the loss is below `AIM`; the best of all tries is taken.

    Args:
        graph: in float32, an ``onnx.ModelProto``.
        say: called with a sentence before each try, since they take a while.

    Raises:
        ConfigError: nothing to calibrate on, or a layer that is not there.
        PixelwiseError: a loss above `LOSS`, and it is not allowed.
    """
    precision = about.options.precision
    bytes_float32 = trial.save(graph)
    graph = folded(graph)
    layers = layers_of(graph)
    images, told = list[np.ndarray](), ""
    if precision == "int8":
        crops, told = calibration_crops(run, about.card, about.options.size, how.images, how.calibration)
        say(f"{precision} is calibrated on {told}.")
        images = [as_given(crop[None], about) for crop in crops]
    best: tuple[Any, Certificate] | None = None
    for kept in _tries(precision, layers, how.keep_float):
        if best is not None:
            say(f"{_words(best[1])}. Trying with {', '.join(kept.words)} in float32.")
        made = _made(kind, precision, graph, layers, kept, images)
        facts = Lowered(precision, told, kept.words, trial.save(made), bytes_float32, instructions(), how.allow)
        proof = replace(trial.certify(), lowered=facts)
        if best is None or _cost(proof) < _cost(best[1]):
            best = made, proof
        if _cost(proof) <= AIM:
            break
    assert best is not None
    if not best[1].sound:
        raise PixelwiseError(_refusal(best[1]), code="PW702")
    return best


def _tries(precision: str, layers: Layers, patterns: Sequence[str]) -> list[Kept]:
    if precision != "int8":
        return [Kept((), ())]
    asked = chosen(layers, patterns)
    return [joined(asked, kept) for kept in ladder(layers)]


def _made(kind: str, precision: str, graph: Any, layers: Layers, kept: Kept, images: Sequence[np.ndarray]) -> Any:
    if precision == "int8":
        quantized = quantized_onnx if kind == "onnx" else quantized_openvino
        return quantized(graph, layers, kept, images)
    return float16_onnx(graph, layers) if kind == "onnx" else half_openvino(graph, precision)


def _words(proof: Certificate) -> str:
    if proof.loss is None:
        return f"{proof.equal_labels:.2%} of all labels are equal so far"
    return f"mIoU is {proof.miou_export:.4f} so far, and {proof.miou_torch:.4f} in float32"


def _cost(proof: Certificate) -> float:
    """Return the loss of mIoU; where nothing is labelled, half of the labels that changed stand for it."""
    if not all(case.whole for case in proof.cases):
        return float("inf")
    return (1 - proof.equal_labels) / 2 if proof.loss is None else proof.loss


def _refusal(proof: Certificate) -> str:
    assert proof.lowered is not None
    name, worst = proof.lowered.precision, proof.worst()
    kept = f", even with {' and '.join(proof.lowered.kept_float)} in float32" if proof.lowered.kept_float else ""
    if not worst.whole:
        why = worst.error or "its answers have another shape, or are no numbers"
        return (
            f"The file is not written: in {name} it fails on {worst.batch} image(s) of {worst.height} x {worst.width} "
            f"pixels ({why}). Export in float32."
        )
    if proof.loss is None:
        return (
            "The file is not written: no labelled image of the run's validation part is at hand, so it is unknown what "
            f"{name} costs in mIoU. {proof.equal_labels:.2%} of all labels are equal on {proof.images} (without labels "
            f"allowed: at least {EQUAL_LABELS_LOWERED:.0%}){kept}. Export the run where its data are, or take it as it "
            "is: --allow."
        )
    return (
        f"The file is not written: {name} costs {100 * proof.loss:.1f} points of mIoU on {proof.images} "
        f"({proof.miou_torch:.4f} in float32, {proof.miou_export:.4f} in {name}; allowed: {100 * LOSS:.0f}){kept}. "
        "Keep layers in float32 (--keep-float), calibrate on more images, or take the loss: --allow."
    )
