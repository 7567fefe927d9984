"""Training: one loop, readable from top to bottom."""

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise import __version__
from pixelwise.config import LOSS_SETTINGS, LOSSES, Config, as_places, load_config
from pixelwise.data.footprints import resolution_note
from pixelwise.data.sampler import Sampler, batches
from pixelwise.data.split import open_split, write_split
from pixelwise.errors import ConfigError, PixelwiseError, WeightsError, enough_memory, out_of_memory
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.fast.allocator import keep_freed_memory
from pixelwise.geo.colours import ColourReader
from pixelwise.labels import IGNORE
from pixelwise.losses import segmentation_loss, total_loss
from pixelwise.mapping.capacity import free_memory
from pixelwise.models import Architecture, Decoded, Segmenter, create
from pixelwise.runs.model_folder import ModelCard, load_model, save_model
from pixelwise.runs.run_folder import Run, events_writer, locked_run, open_run
from pixelwise.training.boundary_losses import with_boundary_losses
from pixelwise.training.checkpointing import recompute_blocks, smaller_step
from pixelwise.training.data_wait import Waiting
from pixelwise.training.optimizer import MovingAverage, parameter_groups, rate_factor
from pixelwise.training.training_data import TrainingData, as_begun, class_weights, read_training_data
from pixelwise.weights import load_weights

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Where networks are trained."""
FRESH_SHARE = 0.1
"""Of an encoder's numbers, at most this may be missing from the weights that it starts from."""
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


Say = Callable[[Progress | str], None]


def train(config: Config | str | Path, *, resume: bool = False, report: Say | None = None) -> Run:
    """Train a network on a configuration's data, and keep the best one.

    Order of the first weights: a resumed run's, else ``[model].weights``, else fresh ones. The same configuration
    gives the same weights on the same machine, however often it was killed and resumed. The process keeps freed memory
    from then on (`keep_freed_memory`).

    Args:
        config: a configuration, or the path of one.
        resume: go on with the run that is in the folder.
        report: called with a `Progress` after each step, and with sentences about what is being done.

    Returns:
        the run; its folder has the model, the log and the scores.

    Raises:
        ConfigError, DataError, WeightsError: a user's mistake, found before the first step; or a full disk.
        NotEnoughMemoryError: the batch or the crop is too large for the machine.
        PixelwiseError: the loss is no longer a number.
    """
    config = load_config(config) if not isinstance(config, Config) else config
    say = report or (lambda _: None)
    config = with_boundary_losses(config, say)
    device = _device(config.train.device)
    if config.train.compile:
        _require_compiler(device)
    kept = open_run(config, resume=resume).folder / "split" if resume else None
    classes, split = open_split(config, kept=kept)
    if (note := resolution_note([scene.info for scene in [*split.training, *split.validation]])) is not None:
        say(note)
    with locked_run(config, resume=resume) as run:
        data = read_training_data(classes, split.training, split.validation, say)
        state = _kept_state(run, config, say) if resume else None
        if state is not None and "data" in state:
            data = as_begun(data, state["data"], say)
        keep_freed_memory()
        room = free_memory(device)
        training = Training(config, data, device, state, say)
        batch = 4 * len(data.training[0].reader.bands) * config.train.batch_size * config.train.crop_size**2
        with enough_memory(lambda: smaller_step(training.model, config.train.batch_size, config.train.crop_size, room)):
            # Crops are read one after the other: the system would end this process before the batch is whole.
            if room is not None and batch > room:
                raise MemoryError(f"the images of a batch alone take {batch / 1e9:,.1f} GB")
        run.begin(config)
        write_split(run.folder / "split", config.data, split)
        with enough_memory(lambda: smaller_step(training.model, config.train.batch_size, config.train.crop_size, room)):
            training.prepare(state, run)
            if state is not None:
                _require_kept_model(training, run, say)
            _learn(training, run, say)
    return run


class Training:
    """A network on its way: its weights, their moving average, the optimiser, and how far they are."""

    def __init__(self, config: Config, data: TrainingData, device: torch.device, state: dict | None, say: Say) -> None:
        """Build the network, with its first weights.

        Args:
            state: of the run that goes on, which knows its network; None: begin.
        """
        torch.manual_seed(config.train.seed)
        self.config, self.data, self.device = config, data, device
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self.score: float | None = None
        self.model = _network(config, data, state, say)
        self.model.encoder.requires_grad_(not config.train.freeze_encoder)
        self.card = _card(config, data, self.model)
        self.class_weights = class_weights(config, data, device)
        if config.train.activation_checkpointing and not recompute_blocks(self.model.encoder):
            say(
                f"The encoder of {config.model.name} is no row of blocks, so [train].activation_checkpointing changes "
                "nothing."
            )

    def prepare(self, state: dict | None, run: Run) -> None:
        """Make what moves the weights, and take over a state.

        Raises:
            ConfigError: the state is of another network.
        """
        settings, self.run = self.config.train, run
        self.model.to(self.device)
        self.decode = torch.compile(self.model.decode) if settings.compile else self.model.decode
        self.average = MovingAverage(self.model, copy.deepcopy(self.model), settings.ema_decay)
        self.rate, decoder_lr_mult = _rates(self.config)
        groups = parameter_groups(
            self.model,
            rate=self.rate,
            decoder_lr_mult=decoder_lr_mult,
            weight_decay=settings.weight_decay,
            first_layer_lr_mult=settings.first_layer_lr_mult,
        )
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.mixed_precision == "fp16")
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
            self.average.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state.get("scaler", {}))
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"{run.folder / 'last'} holds the state of another network than {self.config.model.name} "
                f"({' '.join(str(error).split())[:200]}). Restore it from a copy, or choose another folder (--run)."
            ) from None
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.score = self.best if self.best >= 0 else None

    def state(self, row: dict) -> dict:
        """Return everything that is needed to go on after a step.

        Args:
            row: of the log, which may be lost in a kill that comes after the state is kept.
        """
        return {
            "model": self.model.state_dict(),
            "average": self.average.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "seconds": row["seconds"],
            "row": row,
            "data": self.data.record,
            "config": self.config.model_dump(mode="json", exclude_none=True),
            "architecture": asdict(self.model.architecture),
        }

    @property
    def judged(self) -> Segmenter:
        """The network that is evaluated and kept, in evaluation mode."""
        return self.average.average if self.config.train.ema_decay > 0 else self.model.eval()

    def learn(self, image: Tensor, mask: Tensor) -> tuple[float, float]:
        """Make one step; return its loss and the encoder's learning rate.

        Raises:
            PixelwiseError: the loss, or the gradient, is no number.
        """
        settings = self.config.train
        self.model.train()
        self.model.encoder.train(not settings.freeze_encoder)
        # Dropout and drop-path are a function of the step, so a resumed run draws what an undisturbed one does.
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        warmup = settings.warmup if settings.warmup is not None else min(1500, settings.steps // 10)
        factor = rate_factor(self.step, steps=settings.steps, warmup=warmup, power=settings.poly_power)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * factor
        image, mask = image.to(self.device), mask.to(self.device)
        loss = _loss(self.model, self.decode, image, mask, self.config, self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        value = loss.item()
        # In float16 the gradient overflows now and then: the step is left out, and the loss scaled less from then on.
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not math.isfinite(value) or not (torch.isfinite(norm) or overflow):
            raise PixelwiseError(self._no_number(value))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.step)
        self.step += 1
        return value, self.rate * factor

    def _no_number(self, loss: float) -> str:
        kept = self.run.folder / "last"
        held = f" {kept} holds the state of the last evaluation." if kept.exists() else ""
        half = " float16 ends at 65,504; mixed_precision = 'bf16' does not." if self.scaler.is_enabled() else ""
        return f"The loss is {loss} at step {self.step}. Lower [train].learning_rate (it is {self.rate:g}).{half}{held}"

    def evaluate(self) -> dict[str, float | None]:
        """Score the judged network on the validation part, and keep it if it is the best; return the scores."""
        found = {}
        if self.data.validation:
            scores = evaluate_scenes(self.judged, self.data.validation, self.card, self.config.predict).scores
            self.score = scores.miou if scores.miou is not None else 0.0
            found = {"mIoU": self.score, "pixel_accuracy": scores.pixel_accuracy}
        if self.score is None or self.score > self.best:
            self.best = self.best if self.score is None else self.score
            save_model(self.run.folder / "model", self.judged, self.card)
        return found


def _learn(training: Training, run: Run, say: Say) -> None:
    """Make the steps that are left; evaluate and keep the state now and then, and after the last."""
    settings, data = training.config.train, training.data
    card, started = training.card, time.monotonic() - training.seconds
    evaluate_every = settings.evaluate_every or max(1, settings.steps // 10)
    workers = settings.workers if settings.workers is not None else max(1, (os.cpu_count() or 2) // 2)
    sampler = Sampler(
        data.training,
        training.config.augment,
        crop=settings.crop_size,
        seed=settings.seed,
        mean=card.mean,
        std=card.std,
    )
    write_events = events_writer(run.folder)
    waiting, told = Waiting(WAITING_STEPS), False
    crops = batches(sampler, batch=settings.batch_size, first=training.step, last=settings.steps, workers=workers)
    with run.open_log() as log:
        for image, mask in waiting.over(crops):
            loss, rate = training.learn(image, mask)
            row = {"step": training.step, "loss": loss, "learning_rate": rate}
            row |= {"seconds": time.monotonic() - started, "waited": waiting.seconds}
            if not told and waiting.share is not None and waiting.share >= WAITING_SHARE:
                told = True
                say(_waiting_hint(waiting.share, workers))
            if settings.keep_every and training.step % settings.keep_every == 0:
                save_model(run.checkpoint(training.step), training.judged, card)
            if training.step % evaluate_every == 0 or training.step == settings.steps:
                row |= training.evaluate()
                row["seconds"] = time.monotonic() - started
                run.save_last(training.state(row))
            log(row)
            write_events(row)
            say(Progress(training.step, settings.steps, loss, training.score))


def _kept_state(run: Run, config: Config, say: Say) -> dict | None:
    """Return the state that a run goes on from, and rewind its log to there.

    Raises:
        ConfigError: the run has made more steps than are asked for; or as `Run.load_last` says.
    """
    state = run.load_last(say)
    if state is None:
        say("Nothing was kept of this run yet, so it begins anew.")
        run.rewind_log(0)
        return None
    step, steps = state["step"], config.train.steps
    if step > steps:
        raise ConfigError(
            f"The run in {run.folder} has made {step} steps, and [train].steps is {steps}. Give {step} or more."
        )
    before = state.get("config", {}).get("train", {}).get("steps", steps)
    longer = f" (before: {before}); the learning rate follows the new length from here on" if before != steps else ""
    say(f"Going on from step {step} of {steps}{longer}.")
    missing = run.rewind_log(step, state.get("row"))
    if missing:
        say(f"{missing} of the {step} rows of {run.folder / 'log.jsonl'} are lost, so that curves have gaps.")
    return state


def _require_kept_model(training: Training, run: Run, say: Say) -> None:
    """See that the best model of a resumed run can be read; else the newest takes its place."""
    try:
        load_model(run.folder / "model")
    except WeightsError as problem:
        say(f"{problem} The model of step {training.step} takes its place.")
        training.best = -1.0
        training.evaluate()


def _network(config: Config, data: TrainingData, state: dict | None, say: Say) -> Segmenter:
    """Build the network with its first weights; those of a resumed run are filled in later."""
    classes, bands = len(data.classes), len(data.training[0].reader.bands)
    if state is not None and "architecture" in state:
        kept = state["architecture"]
        model = create(kept["name"], classes=classes, bands=bands, **kept["options"])
        model.architecture = Architecture(**kept)
        return model
    model = create(config.model.name, classes=classes, bands=bands, **config.model.options)
    if config.model.weights is not None:
        loaded = load_weights(model, config.model.weights, partial=True)
        require_encoder(model, config, loaded.missing)
        say(f"Weights: {loaded.layout}, {len(loaded.matched)} tensors; {len(loaded.missing)} start fresh.")
        for note in loaded.notes:
            say(note)
        if loaded.widened:
            say(
                f"{loaded.widened} is fitted to {bands} bands: of more bands in the weights the first {bands} are kept "
                "and the others dropped; bands that the weights lack start at 0."
            )
    return model


def require_encoder(model: Segmenter, config: Config, missing: Sequence[str]) -> None:
    """See that weights fill the encoder, since what is fine-tuned must have been trained.

    Other classes and other bands leave single tensors fresh; weights of another network fit by chance alone.

    Raises:
        WeightsError: more than `FRESH_SHARE` of the encoder's numbers start fresh.
    """
    state = {name: tensor.numel() for name, tensor in model.encoder.state_dict().items()}
    fresh = [name for name in state if f"encoder.{name}" in set(missing)]
    share = sum(state[name] for name in fresh) / sum(state.values())
    if share > FRESH_SHARE:
        raise WeightsError(
            f"[model].weights = {config.model.weights} fill {len(state) - len(fresh)} of the {len(state)} tensors of "
            f"{config.model.name}'s encoder, so they are of another network ({share:.0%} of its numbers would start "
            "fresh, at a rate that is meant for trained ones). Name the network that they are of, or leave weights out."
        )


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
    half = settings.mixed_precision in ("bf16", "fp16")
    half |= settings.mixed_precision == "auto" and image.device.type == "cuda"
    dtype = torch.float16 if settings.mixed_precision == "fp16" else torch.bfloat16
    with torch.autocast(image.device.type, dtype=dtype, enabled=half):
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


def _card(config: Config, data: TrainingData, model: Segmenter) -> ModelCard:
    scene = data.training[0]
    return ModelCard(
        architecture=model.architecture,
        classes=data.classes,
        bands=scene.reader.bands,
        dtype=scene.info.dtype,
        mean=data.mean,
        std=data.std,
        nodata=config.data.nodata,
        file_bands=len(scene.info.data_bands(scene.reader.bands)),
        grey_too=any(isinstance(each.reader, ColourReader) and each.reader.grey for each in data.training),
        tile=config.predict.tile,
        overlap=config.predict.overlap,
        provenance={
            "pixelwise": __version__,
            "images": ", ".join(place.name for place in as_places(config.data.images)),
            "labels": ", ".join(place.name for place in as_places(config.data.labels)),
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
