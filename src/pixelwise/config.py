"""The configuration: one flat TOML file, read, checked and written here. Its keys are in `config_keys.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from pixelwise.config_errors import describe_mistakes
from pixelwise.config_keys import (
    LARGEST_SCALE,
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    Places,
    PredictConfig,
    RunConfig,
    SamplingConfig,
    as_places,
)
from pixelwise.config_table import Table, merged, parsed_overrides, read_table, renamed
from pixelwise.encoder_name import is_folder_name, is_library_name
from pixelwise.errors import ConfigError
from pixelwise.files import replacing, with_checksum
from pixelwise.train_keys import TrainConfig
from pixelwise.tune_keys import TuneConfig

SHORT_NAMES = ("imagenet", "ade20k", "cityscapes", "coco", "carvana", "dinov2")
"""Weights that [model].weights names by what they were trained on; the ledger says which are meant."""
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pdparams", ".pkl", ".toml")
"""Of paths of weights, which no name has."""

__all__ = [
    "LARGEST_SCALE",
    "SHORT_NAMES",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "Places",
    "PredictConfig",
    "RunConfig",
    "SamplingConfig",
    "TrainConfig",
    "TuneConfig",
    "as_places",
    "changed_config",
    "explain_config",
    "load_config",
    "override_config",
    "parse_config",
    "save_config",
    "toml_assignment",
]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a TOML file, and its base if it names one. Relative paths in a file count from its own folder.

    Args:
        overrides: assignments such as ``"train.steps=200"``, as `--set` takes them; relative paths in them count from
            the current folder.

    Raises:
        ConfigError: no such file, wrong TOML, an unknown key, or a value that is not allowed.
    """
    path = Path(path)
    table = read_table(path, _placed)
    # Folders of results count from the current folder, so that examples never write beside their data.
    results = {"run": str(Path("runs") / path.stem), "tune": str(Path("runs") / f"{path.stem}-tune")}
    table = merged({name: {"folder": folder} for name, folder in results.items()}, table)
    return parse_config(merged(table, _placed(parsed_overrides(overrides), Path.cwd())), _named(str(path), overrides))


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """Return a configuration with some values changed, as `--set` takes them.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    return changed_config(config, parsed_overrides(overrides), Path.cwd(), _named("The configuration", overrides))


def changed_config(config: Config, table: Table, folder: Path, where: str) -> Config:
    """Return a configuration with the values of a table in place of its own.

    Args:
        folder: relative paths in the table count from here.
        where: what the values come from, for messages.

    Raises:
        ConfigError: an unknown key, or a value that is not allowed.
    """
    before = config.model_dump(mode="json", exclude_unset=True)
    return parse_config(merged(before, _placed(table, folder)), where)


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
        raise ConfigError(f"{where}: {describe_mistakes(error, Config)}", code="PW303") from None
    if len(config.data.classes) == 1:
        raise ConfigError(
            f"{where}: [data].classes names one class, so every pixel is right from the start and there is "
            "nothing to learn. Name what is not of that class too, such as 'background'.",
            code="PW311",
        )
    return config


def save_config(config: Config, path: str | Path) -> None:
    """Write every value that is set, so that the file alone repeats the run. What [tune] would try is left out."""
    with replacing(path) as temporary:
        text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True, exclude={"tune"}))
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
                # A table of its own, below which a user adds keys.
                lines += ["", f"[{name}.{key}]".ljust(34) + f"  # {entry.description}"]
                continue
            shown = "" if entry.is_required() or entry.default is None else toml_assignment(key, entry.get_default())
            lines += [f"{shown or f'# {key} ='}".ljust(34) + f"  # {entry.description}"]
        lines += [""]
    return "\n".join(lines)


def toml_assignment(key: str, value: object) -> str:
    """Return a key with its value, as a line of TOML."""
    value = list(value) if isinstance(value, tuple) else value
    text = tomli_w.dumps({key: value}, multiline_strings=False).strip()
    return text.replace("[\n    ", "[").replace(",\n]", "]").replace("\n    ", " ")


def _placed(table: Table, folder: Path) -> Table:
    """Return a table whose paths are absolute; relative ones count from a folder. Folders of results are left alone."""
    result = dict(table)
    for name, entry in Config.model_fields.items():
        section = table.get(name)
        if name in ("run", "tune") or not isinstance(section, dict):
            continue
        fields = getattr(entry.annotation, "model_fields", {})
        placed = {
            key: _absolute(value, folder) if key in fields and _holds_path(fields[key].annotation) else value
            for key, value in section.items()
        }
        if name == "model" and _is_weights_name(section.get("weights"), folder):
            placed["weights"] = section["weights"]
        result[name] = placed
    model = result.get("model")
    options = model.get("options") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(options, dict) and "encoder" in options:
        result["model"] = {**model, "options": {**options, "encoder": _placed_encoder(options["encoder"], folder)}}
    return result


def _is_weights_name(value: object, folder: Path) -> bool:
    """Return whether [model].weights is a name that is looked up later, and no path.

    A short name is one even where a data set has a folder of that name; all else is a path if something is there.
    """
    if not isinstance(value, str) or not value:
        return False
    if value in SHORT_NAMES or value.startswith("hf:"):
        return True
    looks_like_path = value.startswith((".", "/", "~", "\\")) or Path(value).suffix in WEIGHTS_SUFFIXES
    return not looks_like_path and not (folder / value).exists()


def _placed_encoder(name: object, folder: Path) -> object:
    """Return an encoder's name whose folder, if it names one (``transformers:./folder``), is absolute."""
    if not is_library_name(name):
        return name
    library, _, place = str(name).partition(":")
    return f"{library}:{_absolute(place, folder)}" if is_folder_name(place) else name


def _holds_path(annotation: object) -> bool:
    return annotation is Path or any(_holds_path(each) for each in get_args(annotation))


def _absolute(value: object, folder: Path) -> object:
    if isinstance(value, list):
        return [_absolute(each, folder) for each in value]
    # An address (https://, s3://, /vsi...) is in no folder of this machine.
    if not isinstance(value, str) or "://" in value or value.startswith("/vsi"):
        return value
    if value == "":
        raise ConfigError(f"A path in the configuration of {folder} is empty. Name a file or a folder.", code="PW303")
    try:
        return str((folder / Path(value).expanduser()).resolve())
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"The path {value!r} in the configuration is wrong: {error}.", code="PW303") from None
