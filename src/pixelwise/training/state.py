"""What a run holds while it trains: build it, restore it, make a step, evaluate, and give its state."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise.config import Config
from pixelwise.data.sampler import Batch
from pixelwise.data.scenes import Scene
from pixelwise.data.targets import Place, Targets
from pixelwise.device import laid_out, practice
from pixelwise.errors import ConfigError, out_of_memory
from pixelwise.evaluation.evaluate import Evaluation
from pixelwise.hub.licences import merged_origins, records
from pixelwise.labels import IGNORE
from pixelwise.loss_config import LOSSES, LossConfig
from pixelwise.losses import total_loss
from pixelwise.models import Decoded, Segmenter
from pixelwise.processes import all_mean, is_first, own_range
from pixelwise.runs.model_folder import save_model
from pixelwise.runs.run_folder import Run
from pixelwise.train_keys import TrainConfig
from pixelwise.training import distributed
from pixelwise.training.accumulation import LossOf, Parts, backward, in_precision, is_separable, statistics_note
from pixelwise.training.card import first_origins, model_card
from pixelwise.training.checkpointing import recompute_blocks
from pixelwise.training.exactness import made_with
from pixelwise.training.first_weights import FirstWeights, library_origins, teacher_origins
from pixelwise.training.lion import Lion
from pixelwise.training.network import first_network
from pixelwise.training.optimizer import MovingAverage, learning_rates, parameter_groups, rate_factor
from pixelwise.training.readings import Made
from pixelwise.training.teaching import (
    Teacher,
    disturbed,
    pseudo_labels,
    require_teacher,
    unlabelled_weight,
    wrong_shares,
)
from pixelwise.training.training_data import TrainingData, class_weights
from pixelwise.training.whole_batch import step_seed

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
        self.practice = practice(device, config.train.precision, config.train.log_every)
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self.score: float | None = None
        self.best_step = 0
        """The step of the best model; 0: there is none yet. A state of an early version does not say: -1."""
        self.evaluated = 0
        """The last step that was evaluated."""
        self.row: dict[str, float | None] = {}
        """Of the log, of the newest step."""
        self.evaluation: Evaluation | None = None
        """The newest of this process."""
        self.without_better = 0
        """Evaluations since the best one."""
        self.model = first_network(config, data, start, state, say)
        self.model.encoder.requires_grad_(not config.train.freeze_encoder)
        origins = first_origins(start, state, run)
        if state is None:
            accepted = config.model.accept_licence
            origins = merged_origins(
                origins or (), library_origins(self.model, accepted), teacher_origins(config.train.teacher, accepted)
            )
        self.card = model_card(config, data, self.model, origins)
        self.class_weights = class_weights(config, data, device)
        self.unlabelled = list(unlabelled)
        self.teacher = Teacher(config, self.card, self.model, device) if config.train.teacher is not None else None
        aimed = config.sampling.balanced or config.sampling.hard
        self.targets = Targets(data.training, len(data.classes), config.sampling) if aimed else None
        self._errors: list[tuple[list[Place], Tensor]] = []
        if config.train.accumulate > 1 and (note := statistics_note(config.train, self.model)) is not None:
            say(note)
        if config.train.activation_checkpointing and not recompute_blocks(self.model.encoder):
            say(
                f"The encoder of {config.model.name} has no row of blocks, so [train].activation_checkpointing changes "
                "nothing."
            )

    def prepare(self) -> None:
        """Move the network to its device, and make what changes its weights."""
        settings = self.config.train
        laid_out(self.model, self.device)
        self.rate, decoder_lr_mult = learning_rates(self.config)
        groups = parameter_groups(
            self.model,
            rate=self.rate,
            decoder_lr_mult=decoder_lr_mult,
            weight_decay=settings.weight_decay,
            first_layer_lr_mult=settings.first_layer_lr_mult,
        )
        average = copy.deepcopy(self.model)
        self.shared = distributed.share_network(self.model, average, groups, self.config, self.device)
        decode = torch.compile(self.shared.decode) if settings.compile else self.shared.decode
        self.decode = in_precision(decode, self.practice.half, self.device)
        tail = settings.steps - round(settings.tail_average * settings.steps) if settings.tail_average else None
        self.average = MovingAverage(self.model, average, settings.ema_decay, tail)
        self.optimizer = Lion(groups) if settings.optimizer == "lion" else torch.optim.AdamW(groups, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.practice.scaled)

    def restore(self, state: dict) -> None:
        """Go back to a state of the run.

        Raises:
            ConfigError: the state is of another network.
        """
        try:
            self.model.load_state_dict(distributed.as_shares(state["model"], self.model))
            self.average.average.load_state_dict(distributed.as_shares(state["average"], self.average.average))
            self.optimizer.load_state_dict(distributed.as_optimizer_shares(state["optimizer"], self.optimizer))
            if state.get("scaler"):
                # It has none where the device before it needed no scale.
                self.scaler.load_state_dict(state["scaler"])
            if self.targets is not None and "targets" in state:
                self.targets.restore(state["targets"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"{self.run.folder / 'last'} holds the state of another network than {self.config.model.name} "
                f"({' '.join(str(error).split())[:200]}). Restore it from a copy, or choose another folder (--run).",
                code="PW605",
            ) from None
        if self.teacher is not None:
            self.teacher.require_same(state)
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.without_better = state.get("without_better", 0)
        # Early versions saved nothing but what was evaluated.
        self.best_step, self.evaluated = state.get("best_step", -1), state.get("evaluated", self.step)
        self.row = {"step": self.step, **state.get("row", {})}
        self.score = state.get("score", self.best if self.best >= 0 else None)

    def state(self) -> dict:
        """Return everything that the run needs to go on after a step.

        The row of the log is in it, since a kill after the state is saved may lose it there.
        """
        self.record_errors()
        return {
            "model": distributed.whole(self.model.state_dict(), keep=is_first()),
            "average": distributed.whole(self.average.average.state_dict(), keep=is_first()),
            "optimizer": distributed.whole(self.optimizer.state_dict(), keep=is_first()),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "best": self.best,
            "score": self.score,
            "without_better": self.without_better,
            "best_step": self.best_step,
            "evaluated": self.evaluated,
            "seconds": self.row["seconds"],
            "row": self.row,
            "made_with": made_with(self.device, self.practice.half),
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
        network = self.average.average if self.config.train.ema_decay > 0 else self.model.eval()
        return distributed.whole_network(network, self.shared, self.device)

    def learn(self, batch: Batch, unlabelled: Batch | None = None) -> Made:
        """Make one step; return its loss on labelled crops, and what else the log needs.

        No device is asked for a number here. A step whose loss or gradient is not a finite number changes no weight.

        Args:
            unlabelled: crops without labels, whose pseudo labels count too.
        """
        settings = self.config.train
        self.model.train()
        self.model.encoder.train(not settings.freeze_encoder)
        # Dropout and drop-path depend on the step alone, so a resumed run draws what an undisturbed one does.
        torch.manual_seed(self._seed)
        self.model.anneal(self.step / settings.steps)
        factor = self._set_rates()
        image, mask = batch.images.to(self.device), batch.masks.to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        separable = is_separable(settings, self.model)
        loss, logits = self._backward(self._labelled_loss, image, mask, self.class_weights, separable=separable)
        if unlabelled is not None and settings.unlabelled:
            self._learn_unlabelled(unlabelled)
        self.scaler.unscale_(self.optimizer)
        norm = distributed.whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.grad_clip))
        loss = all_mean(loss)
        bad = ~torch.isfinite(loss)
        if self.scaler.is_enabled():
            # A float16 gradient overflows now and then. The scaler then leaves the step out, and scales the loss less.
            bad |= ~torch.isfinite(norm) & (self.scaler.scale(torch.ones_like(loss)) < 1)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            bad |= ~torch.isfinite(norm)
            setattr(self.optimizer, "found_inf", bad.float())  # noqa: B010  torch's fused optimisers read it
            self.optimizer.step()
        self.average.update(self.step)
        if self.targets is not None and self.config.sampling.hard:
            self._errors.append((batch.places, wrong_shares(logits, mask)))
        self.step += 1
        return Made(loss, norm, bad, self.rate * factor)

    @property
    def _seed(self) -> int:
        return step_seed(self.model, self.config.train.seed, self.step)

    def _backward(
        self, loss_of: LossOf, image: Tensor, mask: Tensor, weights: Tensor | None, *, separable: bool
    ) -> tuple[Tensor, Tensor]:
        parts = Parts(self.config.train.accumulate, self._seed, separable)
        scaled = self.scaler.scale
        return backward(
            loss_of, self.decode, self.model, image, mask, parts=parts, scaled=scaled, class_weights=weights
        )

    def _labelled_loss(self, decode: Callable[[Tensor], Decoded], image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        settings = self.config.train
        loss, logits = _loss(self.model, decode, image, mask, self.config, self.class_weights)
        if self.teacher is not None and settings.distillation:
            loss = loss + settings.distillation * self.teacher.loss(image, logits, settings.temperature)
        return loss, logits

    def record_errors(self) -> None:
        """Tell `Targets` how wrong the network was, crop by crop, in the steps since the last time."""
        if self.targets is None or not self._errors:
            return
        shares = iter(torch.cat([own for _, own in self._errors]).tolist())
        found = [[(place, next(shares)) for place in places] for places, _ in self._errors]
        self._errors = []
        for place, error in distributed.errors_of_all(found):
            if math.isfinite(error):
                self.targets.record(place, error)

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

    def _learn_unlabelled(self, batch: Batch) -> None:
        """Add the gradient of the weighted loss on crops without labels, against what the teacher is sure of there."""
        settings = self.config.train
        image, mask = batch.images.to(self.device), batch.masks.to(self.device)
        with torch.no_grad():
            model = self.average.average if self.teacher is None else self.teacher.model
            logits = model.decode(image).logits if self.teacher is None else self.teacher.logits(image)
        mask = pseudo_labels(model, logits, mask, settings.confidence)
        positions = own_range(settings.batch_size)
        rngs = [np.random.default_rng([settings.seed, DISTURBED, self.step, i]) for i in positions]
        image, mask = disturbed(image, mask, self.config.augment, rngs)
        # Pixels that do not count make the loss smaller, not the others larger (ClassMix, section 3.2).
        share = all_mean((mask != IGNORE).float().mean())
        weight = unlabelled_weight(self.step, settings.steps, settings.unlabelled) * share

        def loss_of(decode: Callable[[Tensor], Decoded], image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            loss, logits = _loss(self.model, decode, image, mask, self.config, None, LossConfig())
            return weight * loss, logits

        # Its only loss is the cross-entropy.
        separable = is_separable(TrainConfig(aux_loss=settings.aux_loss), self.model)
        self._backward(loss_of, image, mask, None, separable=separable)

    def loss_with(self, image: Tensor, mask: Tensor, losses: LossConfig) -> float:
        """Return the loss of crops with other weights of its parts, without what a teacher says."""
        decode = in_precision(self.model.decode, self.practice.half, self.device)
        return _loss(self.model, decode, image, mask, self.config, self.class_weights, losses)[0].item()

    @property
    def must_evaluate(self) -> bool:
        """Whether the step that was made is one to evaluate after, and was not evaluated."""
        settings = self.config.train
        every = settings.evaluate_every or max(1, settings.steps // 10)
        due = self.step > 0 and (self.step % every == 0 or self.step == settings.steps)
        return self.evaluated < 0 or (due and self.evaluated != self.step)

    def evaluate(self) -> dict[str, float | None]:
        """Return the scores of the judged network on the validation part, for the log. It changes no weight."""
        if not self.data.validation:
            return {}
        self.evaluation = distributed.evaluate_together(
            self.judged, self.data.validation, self.card, self.config.predict
        )
        scores = self.evaluation.scores
        found = {"mIoU": scores.miou if scores.miou is not None else 0.0, "pixel_accuracy": scores.pixel_accuracy}
        return found | {f"IoU/{each.name}": each.iou for each in scores.classes}

    def take_scores(self, scores: dict[str, float | None]) -> None:
        """Take note of an evaluation after this step."""
        self.row |= scores
        self.evaluated, self.score = self.step, scores.get("mIoU")
        self.without_better += 1
        if self.score is None or self.score > self.best:
            self.best, self.best_step = self.best if self.score is None else self.score, self.step
            self.without_better = 0

    def forget_scores(self) -> None:
        """Evaluate next, whatever the step: the best model is lost."""
        self.best, self.score, self.evaluated = -1.0, None, -1

    def save(self) -> None:
        """Save the state, and then the best model if it is of this step.

        A kill between the two loses nothing: the state has the weights of that model.
        """
        state = self.state()
        if is_first():
            self.run.save_last(state)
        if self.best_step == self.step:
            self.save_model(self.run.folder / "model")

    def save_model(self, folder: Path) -> None:
        """Write the judged network as a model folder, which says of which step it is."""
        card = replace(self.card, provenance={**self.card.provenance, "step": str(self.step)})
        judged = self.judged
        if is_first():
            save_model(folder, judged, card)


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
    settings, decoded = config.train, decode(image)
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
