"""The configuration: one flat TOML file, checked here, with every default in sight."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from pixelwise.config_errors import describe_mistakes
from pixelwise.config_table import Table, merged, parsed_overrides, read_table, renamed
from pixelwise.errors import ConfigError
from pixelwise.files import replacing, with_checksum
from pixelwise.labels import Value


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Values = Annotated[list[Value], BeforeValidator(_as_list)]
Places = Path | Annotated[list[Path], Field(min_length=1)]
"""A path, or several."""


def as_places(places: Places) -> tuple[Path, ...]:
    """Return the paths, of which there is at least one."""
    return tuple(places) if isinstance(places, list) else (places,)


LARGEST_SCALE = 8
"""A tile that is zoomed by more would fill any memory."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, given: object) -> object:
        name = cls.__name__.removesuffix("Config").lower()
        return renamed({name: given}, cls.__name__)[name] if isinstance(given, dict) else given


class DataConfig(_Table):
    """What is read, and what its values mean."""

    images: Places = Field(description="a folder of images or GeoTIFF scenes, one file, or a list of them")
    labels: Places = Field(
        description="a folder of masks with the images' names, a file of polygons, or a list: one for each of images"
    )
    mask_pattern: str | None = Field(
        default=None,
        description="how a mask's file is called, such as '{name}_labelIds.png'; none: as the image, or NAME_mask",
    )
    image_pattern: str | None = Field(
        default=None, description="how an image's file is called, such as '{name}_photo.jpg'; none: {name} is all of it"
    )
    classes: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="names, in the order of their indices"
    )
    palette: list[str] | None = Field(default=None, description="a colour '#rrggbb' per class; none: well-spaced hues")
    values: dict[str, Values] | None = Field(
        default=None,
        description="class -> its raw mask values, colours '#rrggbb', or values of [data].attribute; none: indices",
    )
    ignore: list[Value] | None = Field(default=None, description="raw values or colours that count nowhere; none: 255")
    layer: str | None = Field(
        default=None, description="polygons: the layer of a file that has several; `fields.gpkg:layer` names it too"
    )
    attribute: str | None = Field(default=None, description="polygons: the column that chooses the class")
    background: str | None = Field(
        default="background",
        description="polygons: the class outside of all polygons; if no class has this name, outside is ignored",
    )
    boundary: str | None = Field(
        default="boundary",
        description="polygons: the class of a band along each outline, if [data].classes has this name",
    )
    boundary_width: float = Field(
        default=5.0, gt=0, description="width of that band in metres, half of it on either side"
    )
    all_touched: bool = Field(
        default=False,
        description="polygons: a pixel is of a polygon that touches it, not only of one that holds its centre",
    )
    bands: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, min_length=1, description="bands to use, counted from 1; none: all but alpha"
    )
    nodata: float | None = Field(
        default=None, allow_inf_nan=True, description="value of pixels without data; none: as the file says"
    )
    validation: float = Field(default=0.2, ge=0, lt=1, description="share of scenes (or blocks) kept for validation")
    test: float = Field(
        default=0.0, ge=0, lt=1, description="share of scenes (or blocks) kept for a test that training never looks at"
    )
    validation_images: Places | None = Field(default=None, description="images kept for validation, instead of a share")
    validation_labels: Places | None = Field(default=None, description="their masks or polygons; none: [data].labels")
    split: Literal["scene", "block"] = Field(
        default="scene", description="what goes to validation: whole scenes, or blocks of ground"
    )
    training_list: Path | None = Field(
        default=None, description="text file of the images (or blocks) to train on, such as split/train.txt of a run"
    )
    validation_list: Path | None = Field(default=None, description="the same for validation; instead of a share")
    test_list: Path | None = Field(default=None, description="the same for the test; instead of a share")
    block: int = Field(default=512, ge=32, description="side of a block in pixels, where split = 'block'")

    @field_validator("mask_pattern", "image_pattern")
    @classmethod
    def _one_name(cls, pattern: str | None) -> str | None:
        if pattern is not None and (pattern.count("{name}") != 1 or "/" in pattern):
            raise ValueError("a pattern is a file's name with {name} in it once, such as '{name}_labelIds.png'")
        return pattern

    @model_validator(mode="after")
    def _labels_with_images(self) -> "DataConfig":
        if self.validation_labels is not None and self.validation_images is None:
            raise ValueError("validation_labels are those of validation_images, which is missing; name both or neither")
        return self

    @model_validator(mode="after")
    def _parts(self) -> "DataConfig":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation = {self.validation} and test = {self.test} leave nothing to train on")
        listed = (self.training_list, self.validation_list, self.test_list)
        if self.training_list is None and any(listed):
            raise ValueError("validation_list and test_list need training_list, which is missing")
        if self.validation_list is not None and self.validation_images is not None:
            raise ValueError("validation_list and validation_images both say what validation is; keep one")
        return self


class ModelConfig(_Table):
    """Which network, and where its first weights come from."""

    name: str = Field(default="segformer-b0", description="one of `pixelwise models`")
    weights: Path | None = Field(default=None, description="weights to start from: any layout that load_weights knows")
    options: dict[str, bool | int | float | str | list[int | float]] = Field(
        default={}, description="the paper's options, such as drop_path"
    )

    @model_validator(mode="after")
    def _options_of_the_paper(self) -> "ModelConfig":
        for name, instead in (("classes", "[data].classes"), ("bands", "[data].bands")):
            if name in self.options:
                raise ValueError(f"options hold {name!r}, which follows from {instead}; leave it out")
        return self


LOSSES = (
    *("cross_entropy", "focal", "ohem", "bootstrapped", "binary_cross_entropy", "dice", "soft_iou", "lovasz"),
    *("ms_ssim", "rmi", "boundary"),
)
"""The keys of [train] that are weights of losses in the sum."""
LOSS_SETTINGS = (
    *("label_smoothing", "focal_gamma", "ohem_threshold", "ohem_min_kept", "bootstrapped_threshold"),
    *("bootstrapped_min_kept", "foreground_only", "ms_ssim_product", "rmi_radius", "boundary_tolerance"),
)
"""The keys of [train] that say what the losses are."""


class TrainConfig(_Table):
    """The loop."""

    steps: int = Field(default=2000, ge=1, description="optimiser steps")
    batch_size: int = Field(default=8, ge=1, description="crops per step")
    crop_size: int = Field(default=512, ge=32, description="side of a crop in pixels")
    learning_rate: float | None = Field(
        default=None, gt=0, description="of the encoder; none: 6e-5 from given weights, 1e-3 from scratch"
    )
    decoder_lr_mult: float | None = Field(
        default=None,
        gt=0,
        description="the decoder's rate as a multiple; none: 10 from given weights, 1 from scratch",
    )
    first_layer_lr_mult: float = Field(
        default=1.0, gt=0, le=1, description="rate of the encoder's first layer over its last's; geometric between"
    )
    freeze_encoder: bool = Field(
        default=False, description="leave the encoder as it is, its norms' statistics too; only the decoder learns"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="of weights; norms and biases have none")
    warmup: int | None = Field(
        default=None, ge=0, description="steps of linear warm-up; none: a tenth of steps, at most 1500"
    )
    poly_power: float = Field(default=1.0, ge=0, description="of the polynomial decay to zero")
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the exponential moving average of the weights; 0: none"
    )
    cross_entropy: float = Field(default=1.0, ge=0, description="weight of the cross-entropy in the loss")
    focal: float = Field(default=0.0, ge=0, description="weight of the focal loss in the loss")
    ohem: float = Field(default=0.0, ge=0, description="weight of the cross-entropy of hard pixels (OHEM) in the loss")
    bootstrapped: float = Field(
        default=0.0, ge=0, description="weight of the cross-entropy of each image's worst pixels in the loss"
    )
    binary_cross_entropy: float = Field(
        default=0.0, ge=0, description="weight of the cross-entropy with a sigmoid per class in the loss; goes with rmi"
    )
    dice: float = Field(default=0.0, ge=0, description="weight of the Dice loss in the loss")
    soft_iou: float = Field(default=0.0, ge=0, description="weight of the soft IoU loss in the loss")
    lovasz: float = Field(default=0.0, ge=0, description="weight of the Lovász-softmax loss in the loss")
    ms_ssim: float = Field(default=0.0, ge=0, description="weight of the multi-scale structural similarity in the loss")
    rmi: float = Field(default=0.0, ge=0, description="weight of the region mutual information in the loss")
    boundary: float = Field(default=0.0, ge=0, description="weight of the boundary F1 loss in the loss")
    class_weights: list[float] | str = Field(
        default="none",
        description="in cross-entropy, focal, ohem and bootstrapped: 'none', a number per class, or 'balanced' (by the "
        "root of the frequency)",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="in the cross-entropy")
    focal_gamma: float = Field(default=2.0, ge=0, description="power that turns easy pixels down; 0: cross-entropy")
    ohem_threshold: float = Field(
        default=0.9, ge=0, le=1, description="pixels whose class has a probability below it are hard"
    )
    ohem_min_kept: int = Field(default=131072, ge=1, description="pixels of a batch that count as hard at least")
    bootstrapped_threshold: float = Field(default=0.3, ge=0, description="pixels with a cross-entropy above it count")
    bootstrapped_min_kept: int = Field(default=4096, ge=1, description="pixels of an image that count at least")
    foreground_only: bool = Field(default=False, description="leave the first class out of dice, soft_iou and ms_ssim")
    ms_ssim_product: Literal["paper", "unet3p"] = Field(
        default="paper", description="of the five levels: the paper's, or that of UNet 3+'s release"
    )
    rmi_radius: int = Field(default=3, ge=1, le=9, description="side of the neighbourhood, in pixels pooled by 4")
    boundary_tolerance: int = Field(default=5, ge=1, description="side of the window within which boundaries meet, odd")
    aux_loss: Literal["same", "cross_entropy", "binary_cross_entropy"] = Field(
        default="same", description="of auxiliary outputs: the same sum as above, or one loss alone"
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="steps between evaluations; none: a tenth of steps"
    )
    keep_every: int | None = Field(
        default=None, ge=1, description="steps between models that stay, in checkpoints/; none: the best one alone"
    )
    mixed_precision: Literal["auto", "bf16", "fp16", "off"] = Field(
        default="auto",
        description="bfloat16 where there is a GPU (auto), bfloat16 or float16 anywhere, or float32 alone (off)",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="compute the encoder's inner maps again in the backward pass: slower, and less memory",
    )
    compile: bool = Field(
        default=False, description="compile the network before the first step (minutes; needs a C++ compiler)"
    )
    device: str = Field(default="auto", description="'cpu', 'cuda', 'cuda:1'; auto: a GPU if there is one")
    workers: int | None = Field(default=None, ge=0, description="threads that read crops; none: one per two cores")
    seed: int = Field(default=0, ge=0, description="of every random draw")

    @model_validator(mode="after")
    def _settings_that_go_together(self) -> "TrainConfig":
        if not any(getattr(self, name) for name in LOSSES):
            raise ValueError("all losses have weight 0, so there is nothing to learn from; set cross_entropy = 1.0")
        weights = self.class_weights
        if isinstance(weights, str) and weights not in ("none", "balanced"):
            raise ValueError(f"class_weights is {weights!r}, but must be 'none', 'balanced' or a list of numbers")
        if isinstance(weights, list) and (min(weights, default=0.0) < 0 or not any(weights)):
            raise ValueError(f"class_weights is {weights}; give a number from 0 on per class, not all of them 0")
        if self.compile and self.activation_checkpointing:
            raise ValueError("compile and activation_checkpointing do not go together; leave one of them out")
        if self.boundary_tolerance % 2 == 0:
            raise ValueError(f"boundary_tolerance is {self.boundary_tolerance}, but must be odd")
        return self


class AugmentConfig(_Table):
    """Random changes to each crop; masks are always resampled by nearest neighbour."""

    flip: bool = Field(default=True, description="mirror left and right")
    rotate90: bool | None = Field(
        default=None, description="turn by quarters and mirror up and down; none: for scenes, not for photos"
    )
    scale: tuple[float, float] = Field(default=(0.75, 1.5), description="zoom between these factors")
    rotate: float = Field(default=0.0, ge=0, le=180, description="turn by up to so many degrees")
    brightness: float = Field(default=0.2, ge=0, description="shift by up to so many standard deviations of the band")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="stretch by up to this share")
    band_jitter: float = Field(
        default=0.1, ge=0, description="the same shift and stretch again, for each band by itself"
    )

    @model_validator(mode="after")
    def _scale_in_order(self) -> "AugmentConfig":
        low, high = self.scale
        if not 0 < low <= high:
            raise ValueError("scale needs two positive factors, the smaller first")
        return self


class PredictConfig(_Table):
    """How evaluation and prediction cut what is too large for one piece."""

    tile: int = Field(default=512, ge=64, description="side of a tile in pixels, a multiple of 32")
    overlap: int = Field(
        default=128, ge=0, description="pixels that neighbouring tiles share, a multiple of 32, at most half a tile"
    )
    flips: bool = Field(default=False, description="average over mirrored copies")
    scales: list[Annotated[float, Field(gt=0, le=LARGEST_SCALE)]] = Field(
        default=[1.0], min_length=1, description="average over zoomed copies"
    )

    @model_validator(mode="after")
    def _grid(self) -> "PredictConfig":
        if self.tile % 32 or self.overlap % 32:
            raise ValueError("tile and overlap must be multiples of 32")
        if self.overlap > self.tile // 2:
            raise ValueError(f"overlap is {self.overlap}, more than half of tile = {self.tile}")
        return self


class RunConfig(_Table):
    """Where results go."""

    folder: Path | None = Field(default=None, description="the run's folder; none: runs/NAME of the configuration")


class Config(_Table):
    """All of it. Every table but [data] may be left out."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    predict: PredictConfig = PredictConfig()
    run: RunConfig = RunConfig()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a TOML file, and its base if it names one. Relative paths in a file count from its own folder.

    Args:
        overrides: assignments such as ``"train.steps=200"``, as `--set` takes them; relative paths in them count from
            the current folder.

    Raises:
        ConfigError: no such file, TOML that cannot be read, an unknown key, a value that is not allowed.
    """
    path = Path(path)
    table = read_table(path, _placed)
    # A run's folder counts from where the command is given, so that examples never write beside their data.
    table = merged({"run": {"folder": str(Path("runs") / path.stem)}}, table)
    return parse_config(merged(table, _placed(parsed_overrides(overrides), Path.cwd())), _named(str(path), overrides))


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """Return a configuration with some values changed, as `--set` takes them.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    table = _placed(parsed_overrides(overrides), Path.cwd())
    before = config.model_dump(mode="json", exclude_unset=True)
    return parse_config(merged(before, table), _named("The configuration", overrides))


def _named(where: str, overrides: Sequence[str]) -> str:
    return where + "".join(f" --set {each}" for each in overrides)


def parse_config(table: Table, where: str) -> Config:
    """Check a table of tables.

    Args:
        table: as TOML gives it.
        where: the file, for messages.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a value that is not allowed.
    """
    try:
        config = Config.model_validate(renamed(table, where))
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe_mistakes(error, Config)}") from None
    if len(config.data.classes) == 1:
        raise ConfigError(
            f"{where}: [data].classes names one class, so that every pixel is right from the start and nothing can be "
            "learned. Name what is not of it too, such as 'background'."
        )
    return config


def save_config(config: Config, path: str | Path) -> None:
    """Write every value that is set, so that the file alone repeats the run."""
    with replacing(path) as temporary:
        text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
        temporary.write_text(with_checksum(text), encoding="utf-8", newline="\n")


def explain_config() -> str:
    """Return every key with its default and its meaning, as TOML that can be edited."""
    lines = []
    for name, table in Config.model_fields.items():
        model = table.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        lines += [f"[{name}]"]
        for key, entry in model.model_fields.items():
            if entry.default == {}:
                # A table of its own: keys that a user adds stand below it.
                lines += ["", f"[{name}.{key}]".ljust(34) + f"  # {entry.description}"]
                continue
            shown = "" if entry.is_required() or entry.default is None else _toml(key, entry.get_default())
            lines += [f"{shown or f'# {key} ='}".ljust(34) + f"  # {entry.description}"]
        lines += [""]
    return "\n".join(lines)


def _toml(key: str, value: object) -> str:
    value = list(value) if isinstance(value, tuple) else value
    text = tomli_w.dumps({key: value}, multiline_strings=False).strip()
    return text.replace("[\n    ", "[").replace(",\n]", "]").replace("\n    ", " ")


def _placed(table: Table, folder: Path) -> Table:
    """Return a table whose paths are absolute; relative ones count from a folder. ``[run].folder`` is left alone."""
    result = dict(table)
    for name, entry in Config.model_fields.items():
        section = table.get(name)
        if name == "run" or not isinstance(section, dict):
            continue
        fields = getattr(entry.annotation, "model_fields", {})
        result[name] = {
            key: _absolute(value, folder) if key in fields and _holds_path(fields[key].annotation) else value
            for key, value in section.items()
        }
    return result


def _holds_path(annotation: object) -> bool:
    return annotation is Path or any(_holds_path(each) for each in get_args(annotation))


def _absolute(value: object, folder: Path) -> object:
    if isinstance(value, list):
        return [_absolute(each, folder) for each in value]
    # Addresses (https://, s3://, /vsi...) belong to no folder of this machine.
    if not isinstance(value, str) or "://" in value or value.startswith("/vsi"):
        return value
    if value == "":
        raise ConfigError(f"A path in the configuration of {folder} is empty. Name a file or a folder.")
    try:
        return str((folder / Path(value).expanduser()).resolve())
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"The path {value!r} cannot be used: {error}.") from None
