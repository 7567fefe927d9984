"""What a run holds while it trains: build it, restore it, make a step, evaluate, and give its state."""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelwise import __version__
from pixelwise.config import Config, as_places
from pixelwise.data.contract import contract_of
from pixelwise.errors import ConfigError, PixelwiseError, out_of_memory
from pixelwise.evaluation.evaluate import evaluate_scenes
from pixelwise.geo.colours import ColourReader
from pixelwise.labels import IGNORE
from pixelwise.loss_config import LOSSES
from pixelwise.losses import total_loss
from pixelwise.models import Decoded, Segmenter
from pixelwise.runs.model_folder import ModelCard, save_model
from pixelwise.runs.run_folder import Run
from pixelwise.training.checkpointing import recompute_blocks
from pixelwise.training.network import first_network
from pixelwise.training.optimizer import MovingAverage, parameter_groups, rate_factor
from pixelwise.training.training_data import TrainingData, class_weights


class Training:
    """The network of a run, the moving average of its weights, its optimiser, and how many steps it has made."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        device: torch.device,
        run: Run,
        state: dict | None,
        say: Callable[[str], None],
    ) -> None:
        """Build the network with its first weights.

        Args:
            state: of the run that goes on, which knows its network; None: a new run.
            say: called with sentences about the network.
        """
        torch.manual_seed(config.train.seed)
        self.config, self.data, self.device, self.run = config, data, device, run
        self.step, self.best, self.seconds = 0, -1.0, 0.0
        self.score: float | None = None
        self.model = first_network(config, data, state, say)
        self.model.encoder.requires_grad_(not config.train.freeze_encoder)
        self.card = _card(config, data, self.model)
        self.class_weights = class_weights(config, data, device)
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
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            if out_of_memory(error):
                raise
            raise ConfigError(
                f"{self.run.folder / 'last'} holds the state of another network than {self.config.model.name} "
                f"({' '.join(str(error).split())[:200]}). Restore it from a copy, or choose another folder (--run)."
            ) from None
        self.step, self.best, self.seconds = state["step"], state["best"], state["seconds"]
        self.score = self.best if self.best >= 0 else None

    def state(self, row: dict) -> dict:
        """Return everything that the run needs to go on after a step.

        Args:
            row: of the log. A kill after the state is saved may lose it there.
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
            PixelwiseError: the loss or the gradient is not a finite number.
        """
        settings = self.config.train
        self.model.train()
        self.model.encoder.train(not settings.freeze_encoder)
        # Dropout and drop-path depend on the step alone, so a resumed run draws what an undisturbed one does.
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
        # A float16 gradient overflows now and then. The scaler then leaves the step out, and scales the loss less.
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() >= 1
        if not math.isfinite(value) or not (torch.isfinite(norm) or overflow):
            raise PixelwiseError(self._not_finite(value))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.step)
        self.step += 1
        return value, self.rate * factor

    def _not_finite(self, loss: float) -> str:
        kept = self.run.folder / "last"
        held = f" {kept} holds the state of the last evaluation." if kept.exists() else ""
        half = " float16 ends at 65,504; mixed_precision = 'bf16' does not." if self.scaler.is_enabled() else ""
        return f"The loss is {loss} at step {self.step}. Lower [train].learning_rate (it is {self.rate:g}).{half}{held}"

    def evaluate(self) -> dict[str, float | None]:
        """Score the judged network on the validation part, and save it if it is the best; return the scores."""
        found = {}
        if self.data.validation:
            scores = evaluate_scenes(self.judged, self.data.validation, self.card, self.config.predict).scores
            self.score = scores.miou if scores.miou is not None else 0.0
            found = {"mIoU": self.score, "pixel_accuracy": scores.pixel_accuracy}
        if self.score is None or self.score > self.best:
            self.best = self.best if self.score is None else self.score
            save_model(self.run.folder / "model", self.judged, self.card)
        return found


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
    losses, aux_losses = settings.losses, None
    if settings.aux_loss != "same":
        aux_losses = replace(losses, **{name: float(name == settings.aux_loss) for name in LOSSES})
    # Logits stand for the image as the network pads it.
    (height, width), (rows, columns) = mask.shape[-2:], model.padded_size(mask.shape[-2:])
    padded = F.pad(mask, (0, columns - width, 0, rows - height), value=IGNORE)
    return total_loss(
        decoded,
        padded,
        losses,
        aux_weights=model.aux_weights,
        aux_losses=aux_losses,
        class_weights=class_weights,
        align_corners=model.align_corners,
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
        contract=contract_of(data.training),
        tile=config.predict.tile,
        overlap=config.predict.overlap,
        provenance={
            "pixelwise": __version__,
            "images": ", ".join(place.name for place in as_places(config.data.images)),
            "labels": ", ".join(place.name for place in config.data.label_places),
            "date": date.today().isoformat(),
        },
    )


def _rates(config: Config) -> tuple[float, float]:
    given = config.model.weights is not None
    rate = config.train.learning_rate or (6e-5 if given else 1e-3)
    return rate, config.train.decoder_lr_mult or (10.0 if given else 1.0)
