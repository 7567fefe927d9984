"""Training: one loop, readable from top to bottom."""

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise import __version__
from pixelwise.allocator import keep_freed_memory
from pixelwise.config import LOSS_SETTINGS, LOSSES, Config, load_config
from pixelwise.data.check import Survey, require_usable, survey
from pixelwise.data.sampler import Sampler, batches
from pixelwise.data.scenes import Scene, open_scenes, require_same_kind
from pixelwise.data.split import split_scenes
from pixelwise.data.stats import balanced_weights
from pixelwise.data.waiting import Waiting
from pixelwise.errors import ConfigError, PixelwiseError
from pixelwise.jobs.evaluate import evaluate_scenes
from pixelwise.jobs.memory import recompute_blocks
from pixelwise.jobs.model_folder import ModelCard, save_model
from pixelwise.jobs.optimizer import MovingAverage, parameter_groups, rate_factor
from pixelwise.jobs.run_folder import Run, events_writer, open_run
from pixelwise.labels import IGNORE, Classes
from pixelwise.losses import segmentation_loss, total_loss
from pixelwise.models import Decoded, Segmenter, create
from pixelwise.weights import load_weights

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Where networks are trained."""
WAITING_STEPS = 50
"""Over so many steps the share of the time in which the network waited for crops is measured."""
WAITING_SHARE = 0.25
"""From this share on the user is told."""


@dataclass(frozen=True)
class Progress:
    """Where a run is; handed to the caller after every step."""

    step: int
    steps: int
    loss: float
    score: float | None
    """mIoU of the newest evaluation, 0 to 1."""


def train(
    config: Config | str | Path, *, resume: bool = False, report: Callable[[Progress | str], None] | None = None
) -> Run:
    """Train a network on a configuration's data, and keep the best one.

    Order of the first weights: a resumed run's, else ``[model].weights``, else fresh ones. The same configuration
    gives the same weights on the same machine, however often it was killed and resumed.

    Args:
        config: a configuration, or the path of one.
        resume: go on with the run that is in the folder, if there is one.
        report: called with a `Progress` after each step, and with sentences about what is being done.

    Returns:
        the run; its folder has the model, the log and the scores.

    Raises:
        ConfigError, DataError, WeightsError: a user's mistake, found before the first step.
        PixelwiseError: the loss is no longer a number.
    """
    config = load_config(config) if not isinstance(config, Config) else config
    settings = config.train
    say = report or (lambda _: None)

    device = _device(settings.device)
    if settings.compile:
        _require_compiler(device)
    classes, training, validation = open_parts(config)
    run = open_run(config, resume=resume)
    say(f"Reading {len(training)} training and {len(validation)} validation scenes.")
    found = survey(training, classes)
    require_usable(found, classes, "training")
    if validation:
        require_usable(survey(validation, classes), classes, "validation")

    keep_freed_memory()
    torch.manual_seed(settings.seed)
    bands = training[0].reader.bands
    model = create(config.model.name, classes=len(classes), bands=len(bands), **config.model.options)
    if config.model.weights is not None:
        loaded = load_weights(model, config.model.weights, partial=True)
        say(f"Weights: {loaded.layout}, {len(loaded.matched)} tensors; {len(loaded.missing)} start fresh.")
        if loaded.widened:
            say(f"{loaded.widened} is widened to {len(bands)} bands; those of the weights come first.")
    model.encoder.requires_grad_(not settings.freeze_encoder)
    card = _card(config, classes, training[0], found, model)
    class_weights = _class_weights(config, classes, found, device)
    run.begin(config)
    decode = torch.compile(model.decode) if settings.compile else model.decode
    model.to(device)
    average = MovingAverage(model, copy.deepcopy(model), settings.ema_decay)
    if settings.activation_checkpointing and not recompute_blocks(model.encoder):
        say(f"{config.model.name}'s encoder is no row of blocks: [train].activation_checkpointing changes nothing.")
    rate, decoder_lr_mult = _rates(config)
    groups = parameter_groups(
        model,
        rate=rate,
        decoder_lr_mult=decoder_lr_mult,
        weight_decay=settings.weight_decay,
        first_layer_lr_mult=settings.first_layer_lr_mult,
    )
    optimizer = torch.optim.AdamW(groups, fused=True)
    warmup = settings.warmup if settings.warmup is not None else min(1500, settings.steps // 10)
    evaluate_every = settings.evaluate_every or max(1, settings.steps // 10)
    sampler = Sampler(
        training, config.augment, crop=settings.crop_size, seed=settings.seed, mean=card.mean, std=card.std
    )

    first, best, spent = 0, -1.0, 0.0
    state = run.load_last() if resume else None
    if state is not None:
        model.load_state_dict(state["model"])
        average.average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, best, spent = state["step"], state["best"], state["seconds"]
        say(f"Going on from step {first} of {settings.steps}.")
    run.rewind_log(first)

    score, started = (best if best >= 0 else None), time.monotonic() - spent
    workers = settings.workers if settings.workers is not None else max(1, (os.cpu_count() or 2) // 2)
    write_events = events_writer(run.folder)
    waiting, told = Waiting(WAITING_STEPS), False
    with open(run.folder / "log.jsonl", "a", encoding="utf-8", buffering=1) as log:
        crops = batches(sampler, batch=settings.batch_size, first=first, last=settings.steps, workers=workers)
        for step, (image, mask) in enumerate(waiting.over(crops), start=first):
            model.train()
            model.encoder.train(not settings.freeze_encoder)
            # Dropout and drop-path are a function of the step, so a resumed run draws what an undisturbed one does.
            torch.manual_seed(settings.seed * 1_000_003 + step)
            factor = rate_factor(step, steps=settings.steps, warmup=warmup, power=settings.poly_power)
            for group in optimizer.param_groups:
                group["lr"] = group["base_rate"] * factor
            loss = _loss(model, decode, image.to(device), mask.to(device), config, class_weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            value = loss.item()
            if not math.isfinite(value) or not torch.isfinite(norm):
                kept = run.folder / "last"
                held = f" {kept} holds the state of the last evaluation." if kept.exists() else ""
                raise PixelwiseError(
                    f"The loss is {value} at step {step}. Lower [train].learning_rate (it is {rate:g}).{held}"
                )
            optimizer.step()
            average.update(step)

            row = {
                "step": step + 1,
                "loss": value,
                "learning_rate": rate * factor,
                "seconds": time.monotonic() - started,
                "waited": waiting.seconds,
            }
            if not told and waiting.share is not None and waiting.share >= WAITING_SHARE:
                told = True
                say(_waiting_hint(waiting.share, workers))
            if (step + 1) % evaluate_every == 0 or step + 1 == settings.steps:
                judged = average.average if settings.ema_decay > 0 else model.eval()
                if validation:
                    scores = evaluate_scenes(judged, validation, card, config.predict).scores
                    score = scores.miou if scores.miou is not None else 0.0
                    row |= {"mIoU": score, "pixel_accuracy": scores.pixel_accuracy}
                if not validation or (score is not None and score > best):
                    best = score if score is not None else best
                    save_model(run.folder / "model", judged, card)
                row["seconds"] = time.monotonic() - started
                run.save_last(
                    {
                        "model": model.state_dict(),
                        "average": average.average.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "step": step + 1,
                        "best": best,
                        "seconds": row["seconds"],
                    }
                )
            log.write(json.dumps(row) + "\n")
            write_events(row)
            say(Progress(step + 1, settings.steps, value, score))
    return run


def open_parts(config: Config) -> tuple[Classes, list[Scene], list[Scene]]:
    """Open the scenes of a configuration and divide them into training and validation.

    Raises:
        ConfigError, DataError: as `open_scenes` and `split_scenes` say.
    """
    data = config.data
    classes, scenes = open_scenes(data)
    if data.validation_images is not None:
        _, validation = open_scenes(data, data.validation_images, data.validation_labels)
        require_same_kind([scenes[0], *validation])
        return classes, scenes, validation
    split = split_scenes(scenes, data, seed=config.train.seed)
    return classes, split.training, split.validation


def _require_compiler(device: torch.device) -> None:
    from torch._dynamo.exc import TorchDynamoException

    try:
        # A trifle: a machine that cannot compile says so before any data is read.
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except (TorchDynamoException, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            "[train].compile = true needs a compiler that works here (g++ or clang++; triton on a GPU), but: "
            f"{reason.rstrip('.')}. Install one, or set compile = false."
        ) from None


def _waiting_hint(share: float, workers: int) -> str:
    cores = os.cpu_count() or 1
    mend = (
        f"Raise [train].workers (it is {workers}, and there are {cores} cores)"
        if workers < cores
        else "Keep the images on a faster disk, or as uncompressed or tiled GeoTIFF"
    )
    return f"{share:.0%} of the last {WAITING_STEPS} steps' time was spent waiting for crops. {mend}."


def _loss(
    model: Segmenter,
    decode: Callable[[Tensor], Decoded],
    image: Tensor,
    mask: Tensor,
    config: Config,
    class_weights: Tensor | None,
) -> Tensor:
    settings = config.train
    half = settings.mixed_precision == "auto" and image.device.type == "cuda"
    with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=half):
        decoded = decode(image)
    loss = partial(
        segmentation_loss, class_weights=class_weights, **settings.model_dump(include={*LOSSES, *LOSS_SETTINGS})
    )
    aux_loss = loss
    if settings.aux_loss != "same":
        aux_loss = partial(loss, **{name: float(name == settings.aux_loss) for name in LOSSES})
    # Logits stand for the image as the network pads it.
    (height, width), (rows, columns) = mask.shape[-2:], model.padded_size(mask.shape[-2:])
    padded = F.pad(mask, (0, columns - width, 0, rows - height), value=IGNORE)
    return total_loss(
        decoded,
        padded,
        aux_weights=model.aux_weights,
        align_corners=model.align_corners,
        loss=loss,
        aux_loss=aux_loss,
    )


def _card(config: Config, classes: Classes, scene: Scene, found: Survey, model: Segmenter) -> ModelCard:
    return ModelCard(
        architecture=model.architecture,
        classes=classes,
        bands=scene.reader.bands,
        dtype=scene.info.dtype,
        mean=tuple(float(m) for m in found.statistics.mean),
        std=tuple(float(s) for s in found.statistics.std),
        nodata=config.data.nodata,
        file_bands=len(scene.info.colour_bands),
        tile=config.predict.tile,
        overlap=config.predict.overlap,
        provenance={
            "pixelwise": __version__,
            "images": str(config.data.images),
            "labels": str(config.data.labels),
            "date": date.today().isoformat(),
        },
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in DEVICES:
        raise ConfigError(f"[train].device is {name!r}, but must be 'auto' or one of {', '.join(DEVICES)}.")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"[train].device = {name!r} cannot be used: {reason}. Use 'auto' or 'cpu'.") from None
    return device


def _rates(config: Config) -> tuple[float, float]:
    given = config.model.weights is not None
    rate = config.train.learning_rate or (6e-5 if given else 1e-3)
    return rate, config.train.decoder_lr_mult or (10.0 if given else 1.0)


def _class_weights(config: Config, classes: Classes, found: Survey, device: torch.device) -> Tensor | None:
    wanted = config.train.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        return torch.tensor(balanced_weights(found.class_pixels), dtype=torch.float32, device=device)
    if len(wanted) != len(classes):
        raise ConfigError(
            f"[train].class_weights has {len(wanted)} numbers for {len(classes)} classes. Give one per class."
        )
    return torch.tensor(wanted, dtype=torch.float32, device=device)
