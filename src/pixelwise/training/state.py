"""What a run holds while it trains: build it, restore it, make a step, evaluate, and give its state."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise import __version__
from pixelwise.config import Config, as_places
from pixelwise.data.contract import contract_of
from pixelwise.data.sampler import Batch
from pixelwise.data.scenes import Scene
from pixelwise.data.targets import Targets
from pixelwise.errors import ConfigError, PixelwiseError, out_of_memory
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.geo.colours import ColourReader
from pixelwise.hub.licences import Origin, merged_origins, origins_from, records
from pixelwise.labels import IGNORE
from pixelwise.loss_config import LOSSES, LossConfig
from pixelwise.losses import total_loss
from pixelwise.models import Decoded, Segmenter
from pixelwise.runs.model_folder import ModelCard, save_model
from pixelwise.runs.run_folder import Run
from pixelwise.training.checkpointing import recompute_blocks
from pixelwise.training.exactness import made_with
from pixelwise.training.first_weights import FirstWeights, library_origins, teacher_origins
from pixelwise.training.lion import Lion
from pixelwise.training.network import first_network
from pixelwise.training.optimizer import MovingAverage, parameter_groups, rate_factor
from pixelwise.training.teaching import (
    Teacher,
    disturbed,
    pseudo_labels,
    require_teacher,
    unlabelled_weight,
    wrong_shares,
)
from pixelwise.training.training_data import TrainingData, class_weights

DISTURBED = 0x0D15
"""Parts the draws that disturb images without labels from others."""


class Training:
    """The network of a run, the moving average of its weights, its optimiser, and how many steps it has made."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        device: torch.device,
        run: Run,
        start: FirstWeights | None,
        state: dict | None,
        say: Callable[[str], None],
        unlabelled: Sequence[Scene] = (),
    ) -> None:
        """Build the network with its first weights.

        Args:
            start: the weights that the configuration names.
            state: of the run that goes on, which knows its network; None: a new run.
            say: called with sentences about the network.
            unlabelled: scenes without labels to learn from too.

        Raises:
            ConfigError: images without labels and no teacher for them; or as `Teacher` says.
        """
        require_teacher(config)
        torch.manual_seed(config.train.seed)
        self.config, self.data, self.device, self.run = config, data, device, run
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self.score: float | None = None
        self.best_step = 0
        """The step of the best model; 0: there is none yet. A state of an early version does not say: -1."""
        self.evaluated = 0
        """The last step that was evaluated."""
        self.row: dict[str, float | None] = {}
        """Of the log, of the newest step."""
        self.model = first_network(config, data, start, state, say)
        self.model.encoder.requires_grad_(not config.train.freeze_encoder)
        origins = _origins(start, state, run)
        if state is None:
            accepted = config.model.accept_licence
            origins = merged_origins(
                origins or (), library_origins(self.model, accepted), teacher_origins(config.train.teacher, accepted)
            )
        self.card = _card(config, data, self.model, origins)
        self.class_weights = class_weights(config, data, device)
        self.unlabelled = list(unlabelled)
        self.teacher = Teacher(config, self.card, self.model, device) if config.train.teacher is not None else None
        aimed = config.sampling.balanced or config.sampling.hard
        self.targets = Targets(data.training, len(data.classes), config.sampling) if aimed else None
        if config.train.activation_checkpointing and not recompute_blocks(self.model.encoder):
            say(
                f"The encoder of {config.model.name} has no row of blocks, so [train].activation_checkpointing changes "
                "nothing."
            )

    def prepare(self) -> None:
        """Move the network to its device, and make what changes its weights."""
        settings = self.config.train
        self.model.to(self.device)
        self.decode = torch.compile(self.model.decode) if settings.compile else self.model.decode
        tail = settings.steps - round(settings.tail_average * settings.steps) if settings.tail_average else None
        self.average = MovingAverage(self.model, copy.deepcopy(self.model), settings.ema_decay, tail)
        self.rate, decoder_lr_mult = _rates(self.config)
        groups = parameter_groups(
            self.model,
            rate=self.rate,
            decoder_lr_mult=decoder_lr_mult,
            weight_decay=settings.weight_decay,
            first_layer_lr_mult=settings.first_layer_lr_mult,
        )
        self.optimizer = Lion(groups) if settings.optimizer == "lion" else torch.optim.AdamW(groups, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.mixed_precision == "fp16")

    def restore(self, state: dict) -> None:
        """Go back to a state of the run.

        Raises:
            ConfigError: the state is of another network.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.average.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state.get("scaler", {}))
            if self.targets is not None and "targets" in state:
                self.targets.restore(state["targets"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"{self.run.folder / 'last'} holds the state of another network than {self.config.model.name} "
                f"({' '.join(str(error).split())[:200]}). Restore it from a copy, or choose another folder (--run)."
            ) from None
        if self.teacher is not None:
            self.teacher.require_same(state)
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        # Early versions saved nothing but what was evaluated.
        self.best_step, self.evaluated = state.get("best_step", -1), state.get("evaluated", self.step)
        self.row = {"step": self.step, **state.get("row", {})}
        self.score = self.best if self.best >= 0 else None

    def state(self) -> dict:
        """Return everything that the run needs to go on after a step.

        The row of the log is in it, since a kill after the state is saved may lose it there.
        """
        return {
            "model": self.model.state_dict(),
            "average": self.average.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "evaluated": self.evaluated,
            "seconds": self.row["seconds"],
            "row": self.row,
            "made_with": made_with(self.device),
            "data": self.data.record,
            "config": self.config.model_dump(mode="json", exclude_none=True),
            "architecture": asdict(self.model.architecture),
            **({} if self.card.origins is None else {"origins": records(self.card.origins)}),
            **({"targets": self.targets.state()} if self.targets is not None else {}),
            **({"teacher": self.teacher.digest} if self.teacher is not None else {}),
        }

    @property
    def judged(self) -> Segmenter:
        """The network that is evaluated and kept, in evaluation mode."""
        return self.average.average if self.config.train.ema_decay > 0 else self.model.eval()

    def learn(self, batch: Batch, unlabelled: Batch | None = None) -> tuple[float, float]:
        """Make one step; return its loss on labelled crops and the encoder's learning rate.

        Args:
            unlabelled: crops without labels, whose pseudo labels count too.

        Raises:
            PixelwiseError: the loss or the gradient is not a finite number.
        """
        settings = self.config.train
        self.model.train()
        self.model.encoder.train(not settings.freeze_encoder)
        # Dropout and drop-path depend on the step alone, so a resumed run draws what an undisturbed one does.
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        self.model.anneal(self.step / settings.steps)
        factor = self._set_rates()
        image, mask = batch.images.to(self.device), batch.masks.to(self.device)
        loss, logits = _loss(self.model, self.decode, image, mask, self.config, self.class_weights)
        if self.teacher is not None and settings.distillation:
            loss = loss + settings.distillation * self.teacher.loss(image, logits, settings.temperature)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if unlabelled is not None and settings.unlabelled:
            self.scaler.scale(self._unlabelled_loss(unlabelled)).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip)
        value = loss.item()
        # A float16 gradient overflows now and then. The scaler then leaves the step out, and scales the loss less.
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not math.isfinite(value) or not (torch.isfinite(norm) or overflow):
            raise PixelwiseError(self._not_finite(value))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.step)
        if self.targets is not None and self.config.sampling.hard:
            for place, error in zip(batch.places, wrong_shares(logits.detach(), mask), strict=True):
                if math.isfinite(error):
                    self.targets.record(place, error)
        self.step += 1
        return value, self.rate * factor

    def _set_rates(self) -> float:
        """Set the learning rates of this step, and return their factor."""
        settings = self.config.train
        warmup = settings.warmup if settings.warmup is not None else min(1500, settings.steps // 10)
        factor = rate_factor(
            self.step, steps=settings.steps, warmup=warmup, power=settings.poly_power, schedule=settings.schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * factor
        return factor

    def _unlabelled_loss(self, batch: Batch) -> Tensor:
        """Return the weighted loss on crops without labels, against what the teacher is sure of there."""
        settings = self.config.train
        image, mask = batch.images.to(self.device), batch.masks.to(self.device)
        with torch.no_grad():
            model = self.average.average if self.teacher is None else self.teacher.model
            logits = model.decode(image).logits if self.teacher is None else self.teacher.logits(image)
        mask = pseudo_labels(model, logits, mask, settings.confidence)
        rng = np.random.default_rng([settings.seed, DISTURBED, self.step])
        image, mask = disturbed(image, mask, self.config.augment, rng)
        # Pixels that do not count make the loss smaller, not the others larger (ClassMix, section 3.2).
        share = float((mask != IGNORE).float().mean())
        weight = unlabelled_weight(self.step, settings.steps, settings.unlabelled)
        loss, _ = _loss(self.model, self.decode, image, mask, self.config, None, LossConfig())
        return weight * share * loss

    def _not_finite(self, loss: float) -> str:
        kept = self.run.folder / "last"
        held = f" {kept} holds the last saved state." if kept.exists() else ""
        half = " float16 ends at 65,504; mixed_precision = 'bf16' does not." if self.scaler.is_enabled() else ""
        return f"The loss is {loss} at step {self.step}. Lower [train].learning_rate (it is {self.rate:g}).{half}{held}"

    @property
    def must_evaluate(self) -> bool:
        """Whether the step that was made is one to evaluate after, and was not evaluated."""
        settings = self.config.train
        every = settings.evaluate_every or max(1, settings.steps // 10)
        due = self.step > 0 and (self.step % every == 0 or self.step == settings.steps)
        return self.evaluated < 0 or (due and self.evaluated != self.step)

    def evaluate(self) -> dict[str, float | None]:
        """Return the scores of the judged network on the validation part, for the log. It changes nothing."""
        if not self.data.validation:
            return {}
        scores = evaluate_scenes(self.judged, self.data.validation, self.card, self.config.predict).scores
        return {"mIoU": scores.miou if scores.miou is not None else 0.0, "pixel_accuracy": scores.pixel_accuracy}

    def take_scores(self, scores: dict[str, float | None]) -> None:
        """Take note of an evaluation after this step."""
        self.row |= scores
        self.evaluated, self.score = self.step, scores.get("mIoU")
        if self.score is None or self.score > self.best:
            self.best, self.best_step = self.best if self.score is None else self.score, self.step

    def forget_scores(self) -> None:
        """Evaluate next, whatever the step: the best model is lost."""
        self.best, self.score, self.evaluated = -1.0, None, -1

    def save(self) -> None:
        """Save the state, and then the best model if it is of this step.

        A kill between the two loses nothing: the state has the weights of that model.
        """
        self.run.save_last(self.state())
        if self.best_step == self.step:
            self.save_model(self.run.folder / "model")

    def save_model(self, folder: Path) -> None:
        """Write the judged network as a model folder, which says of which step it is."""
        card = replace(self.card, provenance={**self.card.provenance, "step": str(self.step)})
        save_model(folder, self.judged, card)


def _loss(
    model: Segmenter,
    decode: Callable[[Tensor], Decoded],
    image: Tensor,
    mask: Tensor,
    config: Config,
    class_weights: Tensor | None,
    losses: LossConfig | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the loss and the logits of a batch.

    Args:
        losses: other ones than the configuration's.
    """
    settings = config.train
    half = settings.mixed_precision in ("bf16", "fp16")
    half |= settings.mixed_precision == "auto" and image.device.type == "cuda"
    dtype = torch.float16 if settings.mixed_precision == "fp16" else torch.bfloat16
    with torch.autocast(image.device.type, dtype=dtype, enabled=half):
        decoded = decode(image)
    losses, aux_losses = losses or settings.losses, None
    if settings.aux_loss != "same":
        aux_losses = replace(losses, **{name: float(name == settings.aux_loss) for name in LOSSES})
    # Logits stand for the image as the network pads it.
    (height, width), (rows, columns) = mask.shape[-2:], model.padded_size(mask.shape[-2:])
    padded = F.pad(mask, (0, columns - width, 0, rows - height), value=IGNORE)
    loss = total_loss(
        decoded,
        padded,
        losses,
        aux_weights=model.aux_weights,
        aux_losses=aux_losses,
        class_weights=class_weights,
        align_corners=model.align_corners,
    )
    return loss, decoded.logits


def _origins(start: FirstWeights | None, state: dict | None, run: Run) -> tuple[Origin, ...] | None:
    """Return what the model descends from; of a run that goes on, as its state says.

    Returns:
        None for a run of an early version, which did not keep it.

    Raises:
        ConfigError: a damaged state.
    """
    if state is None:
        return () if start is None else start.origins
    try:
        return origins_from(state["origins"]) if "origins" in state else None
    except ValueError as error:
        raise ConfigError(f"{run.folder / 'last'} holds a damaged state ({error}). Restore it from a copy.") from None


def _card(config: Config, data: TrainingData, model: Segmenter, origins: tuple[Origin, ...] | None) -> ModelCard:
    scene, without = data.training[0], config.data.unlabelled
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
        contract=contract_of(data.training),
        tile=config.predict.tile,
        overlap=config.predict.overlap,
        provenance={
            "pixelwise": __version__,
            "images": ", ".join(place.name for place in as_places(config.data.images)),
            "labels": ", ".join(place.name for place in config.data.label_places),
            "date": date.today().isoformat(),
            **({} if config.train.teacher is None else {"teacher": config.train.teacher.name}),
            **({} if without is None else {"unlabelled": ", ".join(place.name for place in as_places(without))}),
        },
        origins=origins,
    )


def _rates(config: Config) -> tuple[float, float]:
    given = config.model.weights is not None or bool(config.model.options.get("pretrained"))
    rate = 6e-5 if given else 1e-3
    # Each of Lion's steps is as long as the rate; the paper takes 3 to 10 times less.
    rate *= 1 / 3 if config.train.optimizer == "lion" else 1
    # One cycle is at its highest rate only for a moment, after a long rise.
    rate *= 2 if config.train.schedule == "one_cycle" else 1
    return config.train.learning_rate or rate, config.train.decoder_lr_mult or (10.0 if given else 1.0)
