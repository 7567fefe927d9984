"""The configuration: one flat TOML file, checked here, with every default in sight."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pixelwise.errors import ConfigError
from pixelwise.files import replacing, with_checksum
from pixelwise.labels import Value


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Values = Annotated[list[Value], BeforeValidator(_as_list)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Table):
    """What is read, and what its values mean."""

    images: Path = Field(description="a folder of images or GeoTIFF scenes, or one file")
    labels: Path = Field(description="a folder of masks with the images' names, or a file of polygons")
    classes: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="names, in the order of their indices"
    )
    palette: list[str] | None = Field(default=None, description="a colour '#rrggbb' per class; none: well-spaced hues")
    values: dict[str, Values] | None = Field(
        default=None,
        description="class -> its raw mask values, colours '#rrggbb', or values of [data].attribute; none: indices",
    )
    ignore: list[Value] | None = Field(default=None, description="raw values or colours that count nowhere; none: 255")
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
    bands: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, min_length=1, description="bands to use, counted from 1; none: all but alpha"
    )
    nodata: float | None = Field(
        default=None, allow_inf_nan=True, description="value of pixels without data; none: as the file says"
    )
    validation: float = Field(default=0.2, ge=0, lt=1, description="share of scenes (or blocks) kept for validation")
    validation_images: Path | None = Field(default=None, description="images kept for validation, instead of a share")
    validation_labels: Path | None = Field(default=None, description="their masks or polygons; none: [data].labels")
    split: Literal["scene", "block"] = Field(
        default="scene", description="what goes to validation: whole scenes, or blocks of ground"
    )
    block: int = Field(default=512, ge=32, description="side of a block in pixels, where split = 'block'")

    @model_validator(mode="after")
    def _labels_with_images(self) -> "DataConfig":
        if self.validation_labels is not None and self.validation_images is None:
            raise ValueError("validation_labels are those of validation_images, which is missing; name both or neither")
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
    *("label_smoothing", "focal_gamma", "ohem_threshold", "ohem_keep", "bootstrapped_threshold", "bootstrapped_keep"),
    *("foreground_only", "ms_ssim_product", "rmi_radius", "boundary_tolerance"),
)
"""The keys of [train] that say what the losses are."""


class TrainConfig(_Table):
    """The loop."""

    steps: int = Field(default=2000, ge=1, description="optimiser steps")
    batch: int = Field(default=8, ge=1, description="crops per step")
    crop: int = Field(default=512, ge=32, description="side of a crop in pixels")
    learning_rate: float | None = Field(
        default=None, gt=0, description="of the encoder; none: 6e-5 from given weights, 1e-3 from scratch"
    )
    decoder_rate: float | None = Field(
        default=None,
        gt=0,
        description="the decoder's rate as a multiple; none: 10 from given weights, 1 from scratch",
    )
    first_layer_rate: float = Field(
        default=1.0, gt=0, le=1, description="rate of the encoder's first layer over its last's; geometric between"
    )
    freeze_encoder: bool = Field(
        default=False, description="leave the encoder as it is, its norms' statistics too; only the decoder learns"
    )
    weight_decay: float = Field(default=0.01, ge=0, description="of weights; norms and biases have none")
    warmup: int | None = Field(
        default=None, ge=0, description="steps of linear warm-up; none: a tenth of steps, at most 1500"
    )
    power: float = Field(default=1.0, ge=0, description="of the polynomial decay to zero")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    average: float = Field(
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
    ohem_keep: int = Field(default=131072, ge=1, description="pixels of a batch that count as hard at least")
    bootstrapped_threshold: float = Field(default=0.3, ge=0, description="pixels with a cross-entropy above it count")
    bootstrapped_keep: int = Field(default=4096, ge=1, description="pixels of an image that count at least")
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
    checkpointing: bool = Field(
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
        if self.compile and self.checkpointing:
            raise ValueError("compile and checkpointing do not go together; leave one of them out")
        if self.boundary_tolerance % 2 == 0:
            raise ValueError(f"boundary_tolerance is {self.boundary_tolerance}, but must be odd")
        return self


class AugmentConfig(_Table):
    """Random changes to each crop; masks are always resampled by nearest neighbour."""

    flip: bool = Field(default=True, description="mirror left and right")
    turn: bool | None = Field(
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
    scales: list[Annotated[float, Field(gt=0)]] = Field(
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


def load_config(path: str | Path) -> Config:
    """Read and check a TOML file. Relative paths in it count from its own folder.

    Raises:
        ConfigError: no such file, TOML that cannot be read, an unknown key, a value that cannot be.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration {path}. `pixelwise train --print-config` prints one to start from."
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a configuration. Name the TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None
    config = parse_config(table, str(path))
    return _with_absolute_paths(config, path)


def parse_config(table: dict[str, object], where: str) -> Config:
    """Check a table of tables.

    Args:
        table: as TOML gives it.
        where: the file, for messages.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a value that cannot be.
    """
    try:
        config = Config.model_validate(table)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + " ".join(_sentence(problem) for problem in error.errors()[:3])) from None
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


def _sentence(problem) -> str:
    place = [str(part) for part in problem["loc"]]
    name = f"[{place[0]}]" + (f".{place[1]}" if len(place) > 1 else "")
    if problem["type"] == "extra_forbidden":
        table = Config.model_fields.get(place[0])
        model = Config if len(place) == 1 else (table.annotation if table else None)
        known = list(getattr(model, "model_fields", {}))
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
        if len(place) == 1:
            homes = [
                f"[{t}].{place[0]}"
                for t, f in Config.model_fields.items()
                if place[0] in getattr(f.annotation, "model_fields", {})
            ]
            near = homes or [f"[{each}]" for each in near]
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
        return f"{name} is not a known key. {hint}"
    if problem["type"] == "missing":
        return f"{name} is missing. Add it: {_description(place)}."
    given = problem.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}{shown}."


def _description(place: list[str]) -> str:
    table = Config.model_fields.get(place[0])
    if len(place) == 1 or table is None:
        return "a table, as in `pixelwise train --print-config`"
    fields = getattr(table.annotation, "model_fields", {})
    return fields[place[1]].description if place[1] in fields else "see `pixelwise train --print-config`"


def _with_absolute_paths(config: Config, path: Path) -> Config:
    base = path.resolve().parent

    def absolute(value: Path | None) -> Path | None:
        return None if value is None else (base / value.expanduser()).resolve()

    data = config.data.model_copy(
        update={
            key: absolute(getattr(config.data, key))
            for key in ("images", "labels", "validation_images", "validation_labels")
        }
    )
    model = config.model.model_copy(update={"weights": absolute(config.model.weights)})
    # A run's folder counts from where the command is given, so that examples never write beside their data.
    run = RunConfig(folder=config.run.folder or Path("runs") / path.stem)
    return config.model_copy(update={"data": data, "model": model, "run": run})
