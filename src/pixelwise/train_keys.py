"""Keys of [train]: how the network is trained."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pixelwise.config_table import ConfigTable
from pixelwise.loss_config import LOSS_KEYS, LOSSES, LossConfig


class TrainConfig(ConfigTable):
    """How the network is trained."""

    steps: int = Field(default=2000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=8, ge=1, description="crops per step")
    crop_size: int = Field(default=512, ge=32, description="side of a crop in pixels")
    recipe: Literal["quick", "strong"] | None = Field(
        default=None, description="values of other keys at once (docs/recipes.md): 'quick' or 'strong'; own keys win"
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="of the encoder; default: 6e-5 from given weights, 1e-3 from scratch; twice that for one_cycle, a "
        "third for lion",
    )
    decoder_lr_mult: float | None = Field(
        default=None,
        gt=0,
        description="the decoder's rate over the encoder's; default: 10 from given weights, 1 from scratch",
    )
    first_layer_lr_mult: float = Field(
        default=1.0, gt=0, le=1, description="rate of the encoder's first layer over its last's; geometric between"
    )
    freeze_encoder: bool = Field(
        default=False, description="the encoder, with its norms' statistics, stays as it is; only the decoder learns"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="of weights; norms and biases have none")
    warmup: int | None = Field(
        default=None, ge=0, description="steps of linear warm-up; default: a tenth of steps, at most 1500"
    )
    schedule: Literal["poly", "cosine", "one_cycle"] = Field(
        default="poly", description="of the rate after warm-up: polynomial, half a cosine, or one cycle (no warm-up)"
    )
    poly_power: float = Field(default=1.0, ge=0, description="of the polynomial decay to zero")
    optimizer: Literal["adamw", "lion"] = Field(
        default="adamw", description="lion: each step is as long as the rate, whose default is a third of AdamW's"
    )
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="decay of the exponential moving average (EMA) of the weights; 0: no average",
    )
    tail_average: float = Field(
        default=0.0, ge=0, le=1, description="plain mean of the weights over this last share of the steps, not the EMA"
    )
    teacher: Path | None = Field(
        default=None, description="a run or model folder of ours that this network learns from too (distillation)"
    )
    distillation: float = Field(default=1.0, ge=0, description="weight of what the teacher says in the loss")
    temperature: float = Field(
        default=2.0, gt=0, description="of the teacher's and the network's probabilities; high: softer"
    )
    unlabelled: float = Field(
        default=1.0,
        ge=0,
        description="weight of the loss on [data].unlabelled; it rises in the first 30 % of steps",
    )
    confidence: float = Field(
        default=0.9, ge=0, lt=1, description="a pixel without a label counts where the teacher is surer than this"
    )
    cross_entropy: float = Field(
        default=LossConfig.cross_entropy, ge=0, description="weight of the cross-entropy in the loss"
    )
    focal: float = Field(default=LossConfig.focal, ge=0, description="weight of the focal loss in the loss")
    ohem: float = Field(
        default=LossConfig.ohem, ge=0, description="weight of the cross-entropy of hard pixels (OHEM) in the loss"
    )
    bootstrapped: float = Field(
        default=LossConfig.bootstrapped,
        ge=0,
        description="weight of the cross-entropy of each image's worst pixels in the loss",
    )
    binary_cross_entropy: float = Field(
        default=LossConfig.binary_cross_entropy,
        ge=0,
        description="weight of the cross-entropy with a sigmoid per class in the loss; goes with rmi",
    )
    dice: float = Field(default=LossConfig.dice, ge=0, description="weight of the Dice loss in the loss")
    soft_iou: float = Field(default=LossConfig.soft_iou, ge=0, description="weight of the soft IoU loss in the loss")
    lovasz: float = Field(default=LossConfig.lovasz, ge=0, description="weight of the Lovász-softmax loss in the loss")
    ms_ssim: float = Field(
        default=LossConfig.ms_ssim, ge=0, description="weight of the multi-scale structural similarity in the loss"
    )
    rmi: float = Field(default=LossConfig.rmi, ge=0, description="weight of the region mutual information in the loss")
    boundary: float = Field(default=LossConfig.boundary, ge=0, description="weight of the boundary F1 loss in the loss")
    class_weights: list[float] | str = Field(
        default="none",
        description="in cross-entropy, focal, ohem and bootstrapped: 'none', a number per class, or 'balanced' (by the "
        "root of the frequency)",
    )
    label_smoothing: float = Field(default=LossConfig.label_smoothing, ge=0, lt=1, description="in the cross-entropy")
    focal_gamma: float = Field(
        default=LossConfig.focal_gamma, ge=0, description="power that makes easy pixels count less; 0: cross-entropy"
    )
    ohem_threshold: float = Field(
        default=LossConfig.ohem_threshold,
        ge=0,
        le=1,
        description="pixels whose class has a probability below it are hard",
    )
    ohem_min_kept: int = Field(
        default=LossConfig.ohem_min_kept, ge=1, description="pixels of a batch that count as hard at least"
    )
    bootstrapped_threshold: float = Field(
        default=LossConfig.bootstrapped_threshold, ge=0, description="pixels with a cross-entropy above it count"
    )
    bootstrapped_min_kept: int = Field(
        default=LossConfig.bootstrapped_min_kept, ge=1, description="pixels of an image that count at least"
    )
    foreground_only: bool = Field(
        default=LossConfig.foreground_only, description="leave the first class out of dice, soft_iou and ms_ssim"
    )
    ms_ssim_product: Literal["paper", "unet3p"] = Field(
        default=LossConfig.ms_ssim_product, description="of the five levels: the paper's, or that of UNet 3+'s release"
    )
    rmi_radius: int = Field(
        default=LossConfig.rmi_radius, ge=1, le=9, description="side of the neighbourhood, in pixels pooled by 4"
    )
    boundary_tolerance: int = Field(
        default=LossConfig.boundary_tolerance, ge=1, description="side of the window within which boundaries meet, odd"
    )
    aux_loss: Literal["same", "cross_entropy", "binary_cross_entropy"] = Field(
        default="same", description="of auxiliary outputs: the same sum as above, or one loss alone"
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="steps between evaluations; default: a tenth of steps"
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations without a better mIoU; default: make all steps"
    )
    keep_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between models that are kept in checkpoints/; default: only the best one is kept",
    )
    save_every_minutes: float = Field(
        default=5.0,
        ge=0,
        description="minutes between saved states, for --resume; 0: after every step. Evaluations save too",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        default="auto",
        description="of the network; auto: bf16 on a GPU that has it, fp16 on an older one, fp32 elsewhere",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="parts in which a step's crops go through the network, one after the other, for less memory",
    )
    log_every: int | None = Field(
        default=None,
        ge=1,
        description="steps between readings of the loss; default: 1, on a GPU 10, since each makes it wait",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="compute the encoder's inner maps again in the backward pass: slower, and less memory",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="of several processes (docs/distributed.md): ddp: each holds all weights; fsdp: each holds a part, "
        "for encoders that are too large for one GPU",
    )
    compile: bool = Field(
        default=False, description="compile the network before the first step (minutes; needs a C++ compiler)"
    )
    device: str = Field(default="auto", description="'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one")
    workers: int | None = Field(default=None, ge=0, description="threads that read crops; default: one per two cores")
    seed: int = Field(default=0, ge=0, description="of every random draw")

    @property
    def losses(self) -> LossConfig:
        """The keys of the losses."""
        return LossConfig(**self.model_dump(include={*LOSS_KEYS}))

    @field_validator("precision", mode="before")
    @classmethod
    def _off_is_float32(cls, given: object) -> object:
        # Its name while the key was mixed_precision.
        return "fp32" if given == "off" else given

    @model_validator(mode="after")
    def _settings_that_go_together(self) -> "TrainConfig":
        if not any(getattr(self, name) for name in LOSSES):
            raise ValueError("all losses have weight 0, so there is nothing to learn from; set cross_entropy = 1.0")
        weights = self.class_weights
        if isinstance(weights, str) and weights not in ("none", "balanced"):
            raise ValueError(f"class_weights is {weights!r}, but must be 'none', 'balanced' or a list of numbers")
        if isinstance(weights, list) and (min(weights, default=0.0) < 0 or not any(weights)):
            raise ValueError(f"class_weights is {weights}; give a number from 0 on per class, not all of them 0")
        if self.tail_average and not self.ema_decay:
            raise ValueError("tail_average is an average, and ema_decay = 0 asks for none; leave one of them out")
        if self.compile and self.parallel == "fsdp":
            raise ValueError("compile and parallel = 'fsdp' do not go together; leave one of them out")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate}, but a step has only {self.batch_size} crops (batch_size)"
            )
        if self.compile and self.activation_checkpointing:
            raise ValueError("compile and activation_checkpointing do not go together; leave one of them out")
        if self.boundary_tolerance % 2 == 0:
            raise ValueError(f"boundary_tolerance is {self.boundary_tolerance}, but must be odd")
        return self
