"""Every key of the configuration: its type, its default, its meaning, and which values go together."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pixelwise.augment_keys import AugmentConfig, SamplingConfig
from pixelwise.config_table import ConfigTable, images_beside, renamed
from pixelwise.labels import Value
from pixelwise.recipes import with_recipe
from pixelwise.train_keys import TrainConfig
from pixelwise.tune_keys import TuneConfig


def _as_list(value: object) -> object:
    return value if isinstance(value, list) else [value]


Values = Annotated[list[Value], BeforeValidator(_as_list)]
Places = Path | Annotated[list[Path], Field(min_length=1)]
"""A path, or several."""


def _path_or_name(value: object) -> object:
    # A file's paths are absolute by now.
    return Path(value) if isinstance(value, str) and Path(value).is_absolute() else value


WeightsPlace = Annotated[Path | str, BeforeValidator(_path_or_name)]
"""A path, or a name or address that is looked up later."""


def as_places(places: Places) -> tuple[Path, ...]:
    """Return the paths, of which there is at least one."""
    return tuple(places) if isinstance(places, list) else (places,)


LARGEST_SCALE = 8
"""A tile that is zoomed by more would fill any memory."""


class DataConfig(ConfigTable):
    """What is read, and what its values mean."""

    images: Places = Field(description="a folder of images or GeoTIFF scenes, one file, or a list of them")
    labels: Places | None = Field(
        default=None,
        description="a folder of masks with the images' names, a file of polygons, or a list: one for each of images",
    )
    annotations: Places | None = Field(
        default=None,
        description="instead of labels: a file or folder of COCO, LabelMe, CVAT and others (docs/annotations.md)",
    )
    annotation_format: str | None = Field(default=None, description="annotations: their format; default: recognised")
    unannotated: Literal["leave_out", "background"] = Field(
        default="leave_out", description="annotations: images on which nothing is drawn are left out, or background"
    )
    missing_images: Literal["error", "leave_out"] = Field(
        default="error",
        description="masks and annotations: images that they belong to and that are not there: an error, or left out",
    )
    mask_pattern: str | None = Field(
        default=None,
        description="name of a mask's file, such as '{name}_labelIds.png'; default: as the image, or NAME_mask",
    )
    image_pattern: str | None = Field(
        default=None, description="name of an image's file, such as '{name}_photo.jpg'; default: all of it is {name}"
    )
    classes: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1, description="names, in the order of their indices"
    )
    palette: list[str] | None = Field(
        default=None, description="a colour '#rrggbb' per class; default: well-spaced hues"
    )
    values: dict[str, Values] | None = Field(
        default=None,
        description="class -> its raw mask values, colours '#rrggbb', or values of [data].attribute; default: indices",
    )
    ignore: list[Value] | None = Field(
        default=None, description="raw values or colours that count nowhere; default: 255"
    )
    other_values: str = Field(
        default="error",
        description="masks: what values are that nothing above lists: 'error', 'ignore', 'nearest' (the class with the "
        "nearest value or colour), or a class",
    )
    missing_masks: Literal["error", "leave_out"] = Field(
        default="error", description="images without a mask: an error, or left out"
    )
    layer: str | None = Field(
        default=None, description="polygons: the layer of a file that has several; `fields.gpkg:layer` names it too"
    )
    attribute: str | None = Field(
        default=None, description="the column of polygons, or the attribute of annotations, that chooses the class"
    )
    background: str | None = Field(
        default="background",
        description="polygons: the class outside of all polygons; pixels there are ignored if no class has this name",
    )
    boundary: str | None = Field(
        default="boundary",
        description="polygons: the class of a zone along each outline, if [data].classes has this name",
    )
    boundary_width: float = Field(
        default=5.0, gt=0, description="width of that zone in metres, half of it on either side"
    )
    all_touched: bool = Field(
        default=False,
        description="polygons: a pixel belongs to a polygon that touches it, not only to one that holds its centre",
    )
    bands: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None, min_length=1, description="bands to use, counted from 1; default: all but alpha"
    )
    nodata: float | None = Field(
        default=None, allow_inf_nan=True, description="value of pixels without data; default: as the file says"
    )
    validation: float = Field(default=0.2, ge=0, lt=1, description="share of scenes (or blocks) kept for validation")
    test: float = Field(
        default=0.0, ge=0, lt=1, description="share of scenes (or blocks) kept for a test; training never reads them"
    )
    validation_images: Places | None = Field(default=None, description="images kept for validation, instead of a share")
    validation_labels: Places | None = Field(
        default=None, description="their masks, polygons or annotations; default: as the others"
    )
    split: Literal["scene", "block", "given", "shares"] = Field(
        default="scene",
        description="what goes to validation: whole scenes, in parts that annotations name or by shares; blocks of "
        "ground; given: as annotations or folders (train, val, test) say; shares: scenes, whatever annotations say",
    )
    unlabelled: Places | None = Field(
        default=None, description="images without labels to learn from too: a folder, a file, or a list of them"
    )
    group: str | None = Field(
        default=None, description="regular expression; images whose paths it finds the same text in stay in one part"
    )
    stratify: bool = Field(default=False, description="each class in each part, where that can be; scenes, not blocks")
    split_table: Path | None = Field(
        default=None, description="CSV file with a column of images and one of their parts, instead of shares"
    )
    split_column: str = Field(default="split", description="the column of split_table that holds train, val or test")
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
            raise ValueError("a pattern is a file's name that holds {name} once, such as '{name}_labelIds.png'")
        return pattern

    @property
    def label_places(self) -> tuple[Path, ...]:
        """The places of labels: masks, polygons or annotations."""
        return as_places(self.annotations or self.labels or [])

    @model_validator(mode="before")
    @classmethod
    def _images_beside_annotations(cls, given: object) -> object:
        return images_beside(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _one_kind_of_labels(self) -> "DataConfig":
        if (self.labels is None) == (self.annotations is None):
            both = "labels and annotations are both given" if self.labels is not None else "labels is missing"
            raise ValueError(f"{both}; name masks or polygons as labels, or COCO and the like as annotations")
        return self

    @model_validator(mode="after")
    def _labels_with_images(self) -> "DataConfig":
        if self.validation_labels is not None and self.validation_images is None:
            raise ValueError("validation_labels needs validation_images, which is missing; name both or neither")
        return self

    @model_validator(mode="after")
    def _parts(self) -> "DataConfig":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation = {self.validation} and test = {self.test} leave nothing to train on")
        listed = (self.training_list, self.validation_list, self.test_list)
        if self.training_list is None and any(listed):
            raise ValueError("validation_list and test_list need training_list, which is missing")
        if self.split_table is not None and (any(listed) or self.validation_images is not None):
            raise ValueError("split_table and lists or validation_images both say what is in which part; keep one")
        if self.split == "block" and (self.group or self.stratify or self.split_table):
            raise ValueError("group, stratify and split_table divide whole images, and split = 'block' does not")
        if self.validation_list is not None and self.validation_images is not None:
            raise ValueError("validation_list and validation_images both name the validation images; keep one")
        return self


class ModelConfig(ConfigTable):
    """Which network, and where its first weights come from."""

    name: str = Field(default="segformer-b0", description="one of `pixelwise models`")
    weights: WeightsPlace | None = Field(
        default=None, description="weights to start from: a name of `pixelwise weights`, a path or an address"
    )
    accept_licence: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        default=[], description="licences of weights that you accept, where they forbid commercial use or are unknown"
    )
    options: dict[str, bool | int | float | str | list[int | float]] = Field(
        default={}, description="the network's options, such as drop_path"
    )
    mirrors: dict[str, str] = Field(
        default={}, description="host -> address in its place: 'huggingface.co' = 'https://hub.example.org'"
    )

    @model_validator(mode="after")
    def _options_of_the_paper(self) -> "ModelConfig":
        for name, instead in (("classes", "[data].classes"), ("bands", "[data].bands")):
            if name in self.options:
                raise ValueError(f"options hold {name!r}, which {instead} gives; leave it out")
        return self


class PredictConfig(ConfigTable):
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


class RunConfig(ConfigTable):
    """Where results go."""

    folder: Path | None = Field(default=None, description="the run's folder; default: runs/NAME of the configuration")
    track: list[Literal["mlflow", "wandb"]] = Field(
        default=[], description="servers that show the run too: 'mlflow', 'wandb' (Weights & Biases)"
    )


class Config(ConfigTable):
    """All tables. Only [data] is required."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()
    augment: AugmentConfig = AugmentConfig()
    predict: PredictConfig = PredictConfig()
    run: RunConfig = RunConfig()
    tune: TuneConfig = TuneConfig()

    @model_validator(mode="before")
    @classmethod
    def _recipe(cls, given: object) -> object:
        return with_recipe(renamed(given, cls.__name__)) if isinstance(given, dict) else given
