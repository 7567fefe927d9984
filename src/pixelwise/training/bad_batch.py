"""When the loss is no number any more: keep the batch, and find out where it broke."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelwise.data.sampler import Batch
from pixelwise.data.scenes import Scene
from pixelwise.errors import out_of_memory
from pixelwise.files import replacing
from pixelwise.loss_config import LOSSES
from pixelwise.processes import is_first
from pixelwise.training.crops import batch_of
from pixelwise.training.state import Training

BAD_BATCH = "bad_batch.npz"
"""In a run's folder: the batch that made the loss infinite or no number."""


def not_finite(training: Training, row: dict) -> str:
    """Keep the batch of a step whose loss or gradient is no finite number, and say what is known and what to try.

    The batch is drawn again: a draw is a function of the step. Only with ``[sampling].hard`` and numbers that are read
    late, errors that were found since may lead to other places. The file has ``image`` and ``mask`` as the network gets
    them, ``names`` of the sources, ``windows`` (top, left, height, width in them), ``step`` as the log
    counts it, ``loss``, and ``loss/NAME`` for each part of the loss; with images without labels also
    ``unlabelled/image``, ``unlabelled/names`` and ``unlabelled/windows``.

    Args:
        row: of that step, for the log.
    """
    step, loss, settings = row["step"], row["loss"], training.config.train
    batch, unlabelled = batch_of(training, step - 1)
    try:
        parts, module = _parts_of_loss(training, batch, step - 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        # The step went through the network in parts, or in several processes.
        parts, module = {}, None
    path = training.run.folder / BAD_BATCH
    if is_first():
        _save(path, training, (batch, unlabelled), {"step": step, "loss": loss}, parts)
    first = f"The loss is {loss} at step {step}." if not math.isfinite(loss) else ""
    first = first or f"The loss is {loss:.4g} at step {step}, but its gradient is not a finite number."
    broken = [name for name, value in parts.items() if not math.isfinite(value)]
    where = f" Not finite: {', '.join(broken)}." if broken else ""
    where += f" The first output of the network that is not finite is that of {module}." if module else ""
    images = [place for place, image in zip(_places(training, batch), batch.images, strict=True) if _broken(image)]
    if images:
        fix = f"{'; '.join(images[:3])}: the image holds values that are no numbers. Correct it, or set [data].nodata."
    else:
        fix = f"Lower [train].learning_rate (it is {training.rate:g})"
        fix += f" or [train].grad_clip (it is {settings.grad_clip:g})."
        if training.scaler.is_enabled():
            fix += " float16 ends at 65,504; precision = 'bf16' does not."
    last = training.run.folder / "last"
    held = f" {last} holds the last saved state." if last.exists() else ""
    return f"{first}{where} {fix} The batch is in {path}.{held}"


def _save(
    path: Path,
    training: Training,
    batches: tuple[Batch, Batch | None],
    numbers: dict[str, float],
    parts: dict[str, float],
) -> None:
    batch, unlabelled = batches
    arrays = {name: np.array(value) for name, value in numbers.items()}
    arrays |= {f"loss/{name}": np.array(value) for name, value in parts.items()}
    arrays |= {"mask": batch.masks.cpu().numpy(), **_arrays(batch, training.data.training)}
    if unlabelled is not None:
        arrays |= {f"unlabelled/{key}": array for key, array in _arrays(unlabelled, training.unlabelled).items()}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def _arrays(batch: Batch, scenes: list[Scene]) -> dict[str, np.ndarray]:
    windows = [(place.window.top, place.window.left, place.window.height, place.window.width) for place in batch.places]
    names = [scenes[place.scene].name for place in batch.places]
    return {"image": batch.images.cpu().numpy(), "names": np.array(names), "windows": np.array(windows)}


def _places(training: Training, batch: Batch) -> list[str]:
    return [
        f"{training.data.training[place.scene].info.path}, row {place.window.top}, column {place.window.left}"
        for place in batch.places
    ]


def _broken(values: Tensor) -> bool:
    return not bool(torch.isfinite(values).all())


def _parts_of_loss(training: Training, batch: Batch, step: int) -> tuple[dict[str, float], str | None]:
    """Return each part of the loss by itself, and the name of the first module whose output is not finite."""
    image, mask = batch.images.to(training.device), batch.masks.to(training.device)
    found: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: _note_broken(found, name, output))
        for name, module in training.model.named_modules()
        if name and not any(True for _ in module.children())
    ]
    losses = training.config.train.losses
    weights = {name: getattr(losses, name) for name in LOSSES if getattr(losses, name)}
    parts = {}
    try:
        for name, weight in weights.items():
            # Dropout draws what it drew in the step.
            torch.manual_seed(training.config.train.seed * 1_000_003 + step)
            with torch.no_grad():
                alone = replace(losses, **{each: weight * (each == name) for each in LOSSES})
                parts[name] = training.loss_with(image, mask, alone)
    finally:
        for hook in hooks:
            hook.remove()
    return parts, found[0] if found else None


def _note_broken(found: list[str], name: str, output: object) -> None:
    tensors = output if isinstance(output, list | tuple) else [output]
    if not found and any(isinstance(each, Tensor) and each.is_floating_point() and _broken(each) for each in tensors):
        found.append(name)
